"""What people are told when a broker cannot be reached, and what of a client's words never reaches them."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

import pytest
from aiokafka import errors as kafka

from streambot.adapters.kafka.failures import told
from streambot.adapters.kafka.noise import forget_noise, last_noise, noise_counts, silence
from streambot.adapters.kafka.opening import not_opened
from streambot.domain.errors import BrokerError, FencedError, RefusedError
from streambot.streams.patience import MOST_OUTAGES, Patience, mends

PLAIN, SASL, TLS = ({"security_protocol": name} for name in ("PLAINTEXT", "SASL_PLAINTEXT", "SSL"))


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("cause", "settings", "kind", "words"),
    [
        (ConnectionRefusedError(111, "no"), PLAIN, BrokerError, "no broker answers at a:1: nobody listens"),
        (socket.gaierror(-2, "not known"), PLAIN, BrokerError, "name of the host is not known"),
        (TimeoutError(), PLAIN, BrokerError, "did not answer in time"),
        (kafka.KafkaConnectionError("closed"), PLAIN, BrokerError, "hangs up. It may want a password, or TLS"),
        (kafka.KafkaConnectionError("closed"), SASL, BrokerError, "hangs up. It may want TLS"),
        (ssl.SSLError("wrong version"), TLS, BrokerError, "no TLS is spoken there"),
        (ConnectionResetError(), TLS, BrokerError, "no TLS is spoken there"),
        (untrusted(), TLS, RefusedError, "not trusted: self-signed certificate"),
        (kafka.SaslAuthenticationFailed("x"), SASL, RefusedError, "refuses user alice"),
        (kafka.IllegalSaslStateError(), SASL, RefusedError, "asks for no password"),
        (kafka.UnsupportedSaslMechanismError(), SASL, RefusedError, "mechanism PLAIN"),
        (None, PLAIN, BrokerError, "what it said"),
    ],
)  # fmt: skip
def test_why_no_connection_was_opened(cause, settings, kind, words):
    known = settings | {"sasl_plain_username": "alice", "sasl_mechanism": "PLAIN"}
    error = not_opened(cause, "what it said", "a:1", known)
    assert type(error) is kind
    assert words in error.message
    assert error.hint


def test_the_reason_of_a_failure_is_kept_with_its_words():
    silence()
    forget_noise()
    reason = ConnectionRefusedError(111, "refused")
    logging.getLogger("aiokafka").error('Unable connect to "%s:%s": %s', "a", 1, reason)
    assert last_noise() == ('Unable connect to "a:1": [Errno 111] refused', reason)
    forget_noise()
    assert last_noise() == ("", None)


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("Got error produce response on topic-partition %s, retrying. Error: %s", ("t", "NotEnoughReplicasError")),
        ("Could not end transaction due to unexpected error: %s", ("x",)),
        ("Could not add partition %s due to unexpected error: %s", (1, "x")),
        ("Unexpected error in sender routine", ()),
        ("Cannot send %r to %s: %r", (1, 2, 3)),
    ],
)  # fmt: skip
def test_words_about_transactions_do_not_reach_people(capfd, template, values):
    silence()
    before = noise_counts()[template]
    logging.getLogger("aiokafka.producer.sender").warning(template, *values)
    assert noise_counts()[template] == before + 1
    assert capfd.readouterr().err == ""


def test_what_a_client_leaves_behind_is_counted_and_other_things_are_not(caplog):
    """asyncio tells of failures that nobody looked at; those of aiokafka's own tasks are known."""
    silence()
    before = noise_counts()["abandoned"]
    logger = logging.getLogger("asyncio")
    try:
        kafka.for_code([])
    except TypeError as raised:
        theirs = raised
    for said, failure in (
        ("Future exception was never retrieved", kafka.KafkaError("x")),
        ("Exception in callback Sender._fail_all()", theirs),
        ("Exception in callback ours()", ValueError("a bug of ours")),
    ):
        info = (type(failure), failure, failure.__traceback__)
        logger.error(said, exc_info=info)
    assert noise_counts()["abandoned"] == before + 2
    assert [record.exc_info[1].args for record in caplog.records] == [("a bug of ours",)]


def test_the_cause_of_a_failed_sender_is_told():
    wrapped = kafka.KafkaError("Unexpected error during batch delivery")
    wrapped.__cause__ = kafka.KafkaStorageError()
    assert "cannot do its work" in told(wrapped, "a:1", "t/0").message
    wrapped.__cause__ = kafka.KafkaError("KafkaConnectionError()")
    wrapped.__cause__.__cause__ = kafka.KafkaConnectionError()
    error = told(wrapped, "a:1", "t/0")
    assert (error.message, error.where) == ("no answer from a:1: the connection is lost", "t/0")
    assert error.hint
    wrapped.__cause__ = AttributeError("a bug of theirs")
    assert "a bug of theirs (AttributeError)" in told(wrapped, "a:1", "t/0").message


async def test_an_outage_is_told_once_and_ends_after_its_limit():
    said: list[str] = []
    patience = Patience(0.05, told=said.append, again="do it again")
    assert patience.failed(BrokerError("gone")) is None
    assert patience.failed(BrokerError("gone")) is None
    assert said == ["gone; trying again for 0.05 s"]
    await asyncio.sleep(0.06)
    final = patience.failed(BrokerError("gone", hint="look"))
    assert final is not None
    assert (final.hint, "nothing could be stored for" in final.message) == ("do it again", True)
    patience.succeeded()
    assert said[1].startswith("the broker is back")
    assert patience.failed(BrokerError("gone")) is None


async def test_a_broker_that_answers_and_fails_for_ever_is_given_up():
    patience = Patience(60.0)
    for _ in range(MOST_OUTAGES):
        assert patience.failed(BrokerError("no")) is None
        patience.answered()
    final = patience.failed(BrokerError("no"))
    assert final is not None
    assert "nothing could be stored between" in final.message


def test_what_trying_again_cannot_mend():
    assert mends(BrokerError("gone"))
    assert not mends(RefusedError("no"))
    assert not mends(FencedError("taken"))
    assert not mends(ValueError())
