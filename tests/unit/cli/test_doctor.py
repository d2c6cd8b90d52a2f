"""`streambot doctor`: says what it found, and fails with the right code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from streambot.cli import doctor_checks
from streambot.cli.doctor_checks import Finding
from streambot.domain.errors import BrokerError

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]


def check_broker() -> Iterator[Finding]:
    yield Finding("ok", "broker", "the binary is there")
    raise BrokerError("it does not start", hint="free some memory")


def check_disk() -> Iterator[Finding]:
    yield Finding("warn", "disk", "little room", "free some")


def check_odd() -> Iterator[Finding]:
    raise ZeroDivisionError("oops")
    yield


def test_a_check_that_raises_is_a_finding(
    streambot: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "CHECKS", (check_disk, check_broker, check_odd))
    said = streambot("doctor", "--json")
    document = json.loads(said.out)
    assert said.code == 5  # the broker's code: the first check that failed
    assert document["healthy"] is False
    assert (document["failed"], document["warnings"]) == (2, 1)
    assert [check["status"] for check in document["checks"]] == ["warn", "ok", "fail", "fail"]
    assert document["checks"][2]["hint"] == "free some memory"
    assert document["checks"][3]["detail"] == "ZeroDivisionError: oops"


def test_warnings_alone_are_healthy(streambot: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "CHECKS", (check_disk,))
    said = streambot("doctor")
    assert said.code == 0
    assert "warn  disk" in said.out
    assert "try: free some" in said.out
    assert said.out.endswith("0 failed, 1 to look at\n")


def test_kafka_is_off_without_its_folder_and_warned_about_when_it_is_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    assert [finding.status for finding in doctor_checks.check_kafka()] == ["off"]
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert next(iter(doctor_checks.check_kafka())).status == "warn"


def test_python_and_packages_of_this_machine_are_found() -> None:
    found = [*doctor_checks.check_python(), *doctor_checks.check_packages()]
    assert all(finding.status in {"ok", "warn"} for finding in found)
    assert "msgspec" in found[2].detail
