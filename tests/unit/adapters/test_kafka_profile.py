"""Settings of Kafka clients: what must never be forgotten, and secrets that stay secret."""

from __future__ import annotations

import logging
import ssl

import pytest
from aiokafka import errors as kafka

from streambot.adapters.kafka.failures import told
from streambot.adapters.kafka.profile import (
    APACHE,
    EMBEDDED,
    client_settings,
    consumer_settings,
    producer_settings,
    require_extension,
)
from streambot.domain.errors import BrokerError, ConfigError, RefusedError, StreamError, TopicError
from streambot.domain.kafka_settings import KafkaSecurity, SaslMechanism, Secret, SecurityProtocol
from streambot.streams.frame import MAX_FRAME_BYTES
from streambot.streams.ports import MAX_RECORD_BYTES


@pytest.mark.parametrize("profile", [APACHE, EMBEDDED])
def test_what_every_client_relies_on(profile):
    writing, reading = producer_settings(profile), consumer_settings(profile)
    assert writing["acks"] == "all"
    assert writing["max_request_size"] > MAX_RECORD_BYTES
    assert writing["max_batch_size"] > MAX_FRAME_BYTES
    assert reading["check_crcs"] is True
    assert reading["group_id"] is None
    assert reading["enable_auto_commit"] is False
    assert reading["auto_offset_reset"] == "none", "a hole must be an error, not a jump"
    assert reading["max_partition_fetch_bytes"] > MAX_RECORD_BYTES


@pytest.mark.parametrize("profile", [APACHE, EMBEDDED])
def test_a_reader_that_can_wait_asks_more_seldom(profile):
    """The embedded broker looks half way through a wait: within 30 ms it has looked."""
    at_once, later = consumer_settings(profile), consumer_settings(profile, rest_ms=30)
    assert at_once["fetch_max_wait_ms"] == profile.fetch_wait_ms
    assert later["fetch_max_wait_ms"] == max(60, profile.fetch_wait_ms)
    assert later | {"fetch_max_wait_ms": profile.fetch_wait_ms} == at_once


def test_batches_fit_a_broker_with_default_limits():
    assert APACHE.batch_bytes < 1_048_588


def test_the_extension_is_there():
    require_extension()


def test_without_the_extension(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BrokerError, match="without its C extension"):
        require_extension()


def test_plain_text_by_default():
    settings = client_settings("a:1,b:2", KafkaSecurity())
    assert settings["bootstrap_servers"] == ["a:1", "b:2"]
    assert settings["security_protocol"] == "PLAINTEXT"
    assert "ssl_context" not in settings


def test_tls_is_verified():
    settings = client_settings("a:1", KafkaSecurity(security_protocol=SecurityProtocol.SSL))
    context = settings["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_certificate_that_is_not_there(tmp_path):
    security = KafkaSecurity(
        security_protocol=SecurityProtocol.SSL, ssl_cafile=str(tmp_path / "ca.pem")
    )
    with pytest.raises(ConfigError, match="cannot be used"):
        client_settings("a:1", security)


def test_a_password_reaches_the_client_only():
    security = KafkaSecurity(
        security_protocol=SecurityProtocol.SASL_SSL,
        sasl_mechanism=SaslMechanism.SCRAM_SHA_256,
        sasl_username="me",
        sasl_password=Secret("canary"),
    )
    settings = client_settings("a:1", security)
    assert settings["sasl_plain_password"] == "canary"  # noqa: S105
    assert settings["sasl_mechanism"] == "SCRAM-SHA-256"
    assert "canary" not in repr(security)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (kafka.UnknownTopicOrPartitionError(), TopicError),
        (kafka.MessageSizeTooLargeError("big"), RefusedError),
        (kafka.TopicAuthorizationFailedError("t"), RefusedError),
        (kafka.OffsetOutOfRangeError({}), StreamError),
        (kafka.CorruptRecordException("crc"), StreamError),
        (kafka.KafkaTimeoutError(), BrokerError),
        (kafka.KafkaConnectionError("gone"), BrokerError),
        (ConnectionResetError("reset"), BrokerError),
        (kafka.UnknownError(), BrokerError),
    ],
)
def test_every_failure_gets_words(cause, kind):
    error = told(cause, "localhost:9092", "t/0")
    assert type(error) is kind
    assert str(error)
    assert "Error: Error" not in str(error)


def test_an_error_of_our_own_stays_what_it_is():
    own = BrokerError("x")
    assert told(own, "localhost:9092") is own


def test_no_secret_in_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    client_settings(
        "a:1",
        KafkaSecurity(
            security_protocol=SecurityProtocol.SASL_PLAINTEXT,
            sasl_username="me",
            sasl_password=Secret("canary"),
        ),
    )
    assert "canary" not in caplog.text
