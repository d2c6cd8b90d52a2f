"""`compose/kafka.yml`: loopback only, pinned, healthy, lasting, and the broker that we start natively."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from streambot.adapters.broker.apache_settings import SETTINGS

COMPOSE = Path(__file__).parents[3] / "compose" / "kafka.yml"


@pytest.fixture(scope="module")
def service():
    return yaml.safe_load(COMPOSE.read_text())["services"]["kafka"]


def test_it_listens_on_loopback_only(service):
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["KAFKA_ADVERTISED_LISTENERS"].startswith("PLAINTEXT://127.0.0.1:")


def test_it_is_pinned_watched_and_lasting(service):
    assert re.fullmatch(r"apache/kafka:4\.\d+\.\d+", service["image"])
    assert "kafka-broker-api-versions" in service["healthcheck"]["test"][-1]
    data = service["environment"]["KAFKA_LOG_DIRS"]
    assert any(volume.split(":")[1] == data for volume in service["volumes"])
    assert len(service["environment"]["CLUSTER_ID"]) == 22


def test_its_settings_are_those_of_the_native_broker(service):
    environment = service["environment"]
    for name, value in SETTINGS.items():
        assert environment[f"KAFKA_{name.upper().replace('.', '_')}"] == value, name


def test_everything_is_text_so_that_docker_takes_it_as_written(service):
    assert all(isinstance(value, str) for value in service["environment"].values())
