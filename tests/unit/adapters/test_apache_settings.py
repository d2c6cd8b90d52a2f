"""The broker that streambot starts and the one that compose starts are the same broker."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from streambot.adapters.broker.apache_settings import SETTINGS, server_properties
from tests.conftest import ROOT

# Where the two differ by nature: addresses, folders, names.
PLACE = {
    "process.roles", "node.id", "controller.quorum.voters", "controller.listener.names", "listeners",
    "advertised.listeners", "listener.security.protocol.map", "inter.broker.listener.name",
    "log.dirs",
}  # fmt: skip


@pytest.fixture
def composed() -> dict[str, str]:
    """Settings of compose/kafka.yml under their own names: KAFKA_LOG_DIRS is log.dirs."""
    service = yaml.safe_load((ROOT / "compose" / "kafka.yml").read_text())["services"]["kafka"]
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in service["environment"].items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }


def test_the_same_settings(composed):
    assert {name: value for name, value in composed.items() if name not in PLACE} == SETTINGS


def test_only_the_place_differs(composed):
    native = server_properties(20_001, 20_002, Path("/data"))
    names = {line.partition("=")[0] for line in native.splitlines()}
    assert names == set(composed)
    for name in ("process.roles", "listener.security.protocol.map", "inter.broker.listener.name"):
        assert f"{name}={composed[name]}\n" in native


def test_loopback_only():
    native = server_properties(20_001, 20_002, Path("/data"))
    for line in native.splitlines():
        if line.startswith(("listeners=", "advertised.listeners=")):
            assert "0.0.0.0" not in line
            assert "127.0.0.1" in line
