"""`simulate --policy TRAINING@…`: read once from the stream of the training, and kept with the run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from streambot.agents.checkpoint import read_head
from streambot.learning.serving import keep
from tests.integration.cli.conftest import Ended, Run, Start, end, wait_for
from tests.served import ENV, begin, layout_of, on, trained, training_of, weights_of, write
from tests.trained import save_loud

pytestmark = [pytest.mark.integration, pytest.mark.train]
FAST = ("simulate", "--speed", "max", "--json", "-q", "--broker", "in-process")


def summary(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    document: dict[str, Any] = json.loads(ended.out)
    return document


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())["manifest"]


def orders(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "orders.ndjson").read_text().splitlines()]


def test_weights_are_kept_with_the_run_and_are_those_of_a_checkpoint(
    here: Run, broker: str, tmp_path: Path
) -> None:
    """The same digest as a checkpoint of the same weights; verified and repeated without a broker."""
    training = on(broker, lambda log: trained(log, 1, 2))
    ended = here(*(flag for flag in FAST if flag != "-q"), "--policy", "moe-1@newest", "--run", "r")
    done = summary(ended)
    assert done["policy"] == "moe-1@2"
    assert "policy moe-1@2" in ended.err
    assert done["fills"] > 20
    assert done["warnings"] == []
    kept = tmp_path / "runs" / "r" / "policy"
    head = read_head(kept)
    assert head.about["served"] == "moe-1@2"
    told = manifest(kept.parent)["policy"]
    assert (told["spec"], told["weights"]) == ("moe-1@2", head.digest)
    said = [line["policy"]["weights"] for line in orders(kept.parent) if line["orders"]]
    assert set(said) == {2}

    keep(weights_of(training, 2), tmp_path / "same", name="moe-1@2", layout=layout_of(), where="")
    assert read_head(tmp_path / "same").digest == head.digest, (
        "the same record, the same checkpoint"
    )
    assert summary(here(*FAST, "--policy", "same"))["digest"] == done["digest"]
    assert summary(here(*FAST, "--policy", "moe-1@1"))["digest"] != done["digest"]

    on(broker, lambda log: write(log, training, weights_of(training, 3)))
    here("broker", "stop", "--delete-data")
    found = summary(here("verify", "--run", "r", "--json"))
    assert found["digest"] == found["digest_again"] == done["digest"]
    (tmp_path / "runs").rename(tmp_path / "moved")
    elsewhere = here("verify", "--run", "r", "--runs-dir", "moved", "--json")
    assert summary(elsewhere)["digest_again"] == done["digest"]
    again = here(*FAST, "--policy", "moved/r/policy")
    assert summary(again)["digest"] == done["digest"]


def test_what_the_training_does_meanwhile_does_not_matter(
    start: Start, here: Run, broker: str, tmp_path: Path
) -> None:
    """Killed, and resumed behind newer weights, without the broker: the same orders."""
    training = on(broker, lambda log: trained(log, 1))
    whole = summary(here(*FAST, "--policy", "moe-1@1", "--run", "whole"))
    process = start("simulate", "--speed", "6000x", "--policy", "moe-1@newest", "--run", "r")
    wait_for(process, "about")
    folder = tmp_path / "runs" / "r"
    on(broker, lambda log: write(log, training, weights_of(training, 2)))
    wait_for_orders(process, folder, 20)
    process.kill()
    process.wait()
    here("broker", "stop", "--delete-data")
    done = summary(here("simulate", "--resume", "r", "--speed", "max", "--json"))
    assert (done["digest"], done["policy"]) == (whole["digest"], "moe-1@1")
    assert done["resumes"] == 1
    for name in folder.joinpath("policy").glob("*.safetensors"):
        name.write_bytes(torn(name.read_bytes()))
    ended = here("verify", "--run", "r")
    assert ended.code == 4
    assert "the weights are not those that the checkpoint names" in " ".join(ended.err.split())


def wait_for_orders(process: Any, folder: Path, count: int) -> None:
    limit = time.monotonic() + 60
    while sum(len(line["orders"]) for line in orders(folder)) < count:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_pin_serves_when_its_weights_are_gone_and_a_recording_repeats_them(
    here: Run, broker: str, tmp_path: Path
) -> None:
    """On the run's own broker, where the training is declared as well."""
    training = on(broker, lambda log: trained(log, 1))
    assert here("policy", "pin", "moe-1@1").code == 0

    async def compacted(log: Any) -> None:
        await log.delete([training.topics["policy"]])
        await begin(log, training)
        await write(log, training, weights_of(training, 1), key=b"main@1")
        await write(log, training, weights_of(training, 9))

    on(broker, compacted)
    recorded = ("simulate", "--speed", "max", "--json", "-q", "--bootstrap-servers", broker)
    done = summary(here(*recorded, "--policy", "moe-1@1", "--run", "r"))
    assert done["policy"] == "moe-1@1"
    again = (*FAST, "--from-run", "r", "--from-broker", broker)
    assert summary(here(*again))["digest"] == done["digest"]
    (tmp_path / "runs" / "r").rename(tmp_path / "away")
    assert summary(here(*again))["digest"] == done["digest"], "read from the broker once more"
    assert summary(here(*again, "--policy", "moe-1@newest"))["policy"] == "moe-1@9"
    assert here("verify", "--run", "r", "--bootstrap-servers", broker).code == 3


def test_a_seek_goes_on_with_the_weights_of_before(
    start: Start, here: Run, broker: str, tmp_path: Path
) -> None:
    training = on(broker, lambda log: trained(log, 1))
    process = start(
        "simulate", "--speed", "600x", "--policy", "moe-1@newest", "--run", "r", "--json"
    )
    wait_for(process, "about")
    on(broker, lambda log: write(log, training, weights_of(training, 2)))
    assert here("replay", "seek", "2020-12-15T15:40").code == 0
    ended = end(process)
    first, second = (json.loads(line) for line in ended.out.splitlines())
    assert (first["policy"], second["policy"]) == ("moe-1@1", "moe-1@1")
    folders = [tmp_path / "runs" / row["run"] for row in (first, second)]
    digests = {read_head(folder / "policy").digest for folder in folders}
    assert digests == {manifest(folder)["policy"]["weights"] for folder in folders}
    assert len(digests) == 1


def torn(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


@pytest.mark.parametrize(
    ("policy", "code", "said"),
    [
        ("moe-1@9", 6, "training moe-1 has no weights 9 (any more)"),
        ("moe-9@newest", 6, "no training moe-9 is declared on"),
        ("silent@newest", 6, "has not published weights yet"),
        ("torn@newest", 4, "no weights of training torn can be used: crc 1"),
        ("strange@newest", 4, "no weights of training strange can be used: foreign 1"),
        ("old@newest", 4, "no weights of training old can be used: magic 1"),
        ("format@newest", 4, "weights of format 7, and this version reads 1"),
        ("other@newest", 4, "other observations"),
        ("moe-1@newset", 3, "`newset` is no sequence of weights"),
        ("moe-1", 3, "there is no policy `moe-1`"),
    ],
)
def test_what_cannot_serve_is_one_line(
    here: Run, broker: str, tmp_path: Path, policy: str, code: int, said: str
) -> None:
    async def written(log: Any) -> None:
        await trained(log, 1)
        name = policy.partition("@")[0]
        one = training_of(name)
        values = {
            "silent": [],
            "torn": [torn(weights_of(one, 1))],
            "strange": [weights_of(one, 1, env=ENV | {"window": 5})],
            "old": [b"SBW0" + weights_of(one, 1)[4:]],
            "format": [in_format(weights_of(one, 1), 7)],
            "other": [weights_of(one, 1, env=ENV | {"window": 5}, agent=None)],
        }
        if name == "other":  # says of its environment what its agent does not
            from tests.trained import loud_agent

            values[name] = [weights_of(one, 1, env=ENV | {"window": 5}, agent=loud_agent(env=ENV))]
        if name in values:
            await begin(log, one)
            await write(log, one, *values[name])

    on(broker, written)
    ended = here(*FAST, "--policy", policy)
    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.split())
    assert ended.err.count("error: ") == 1
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


def in_format(record: bytes, number: int) -> bytes:
    """The same weights, by another version."""
    import msgspec

    from streambot.learning.weights import _ENVELOPE

    head, body = _ENVELOPE.open(record)
    head = msgspec.structs.replace(head, head=msgspec.structs.replace(head.head, format=number))
    return _ENVELOPE.seal(head, body)


def test_without_a_broker_it_says_so(here: Run, tmp_path: Path) -> None:
    nobody = here(*FAST, "--policy", "moe-1@newest")
    assert nobody.code == 2
    assert "no broker to ask about it" in nobody.err
    away = here(*FAST, "--policy", "moe-1@newest", "--bootstrap-servers", "127.0.0.1:1")
    assert away.code in {2, 5}
    save_loud(tmp_path / "moe-1@7", env=ENV)
    assert summary(here(*FAST, "--policy", "moe-1@7"))["policy"] == "moe-1@7", "a folder goes first"


def test_records_that_cannot_be_used_are_told_beside_those_that_can(here: Run, broker: str) -> None:
    training = on(broker, lambda log: trained(log, 1))
    on(broker, lambda log: write(log, training, torn(weights_of(training, 2))))
    done = summary(here(*FAST, "--policy", "moe-1@newest"))
    assert done["policy"] == "moe-1@1"
    (warning,) = done["warnings"]
    assert "records of weights beside it that cannot be used: crc 1" in warning
