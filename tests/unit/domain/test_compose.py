"""`compose/kafka.yml`: loopback only, pinned, healthy, lasting, and the broker that we start natively.

That its settings are those of the native broker, both ways, is held by `tests/unit/adapters/test_apache_settings.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from streambot.adapters.broker.apache import _HEAP
from streambot.adapters.broker.apache_settings import SETTINGS

COMPOSE = Path(__file__).parents[3] / "compose" / "kafka.yml"
LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def composed():
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def service(composed):
    return composed["services"]["kafka"]


def test_it_is_one_broker(composed):
    assert list(composed["services"]) == ["kafka"]


def test_it_listens_on_loopback_only(service):
    assert service["ports"]
    assert all(port.startswith(f"{LOOPBACK}:") for port in service["ports"])
    environment = service["environment"]
    assert environment["KAFKA_ADVERTISED_LISTENERS"].startswith(f"PLAINTEXT://{LOOPBACK}:")
    # Inside the container only the port that `ports` opens may be heard by others than itself.
    listeners = dict(
        listener.split("://") for listener in environment["KAFKA_LISTENERS"].split(",")
    )
    assert set(listeners) == {"PLAINTEXT", "CONTROLLER"}
    assert listeners["CONTROLLER"].startswith(f"{LOOPBACK}:")
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@{listeners['CONTROLLER']}"
    assert "network_mode" not in service


def test_the_port_that_is_open_is_the_one_that_it_listens_on_and_names(service):
    """`KAFKA_PORT` moves all of them together, or a client is sent to a port where nobody is."""
    port = "${KAFKA_PORT:-9092}"
    environment = service["environment"]
    assert service["ports"] == [f"{LOOPBACK}:{port}:{port}"]
    assert environment["KAFKA_LISTENERS"].startswith(f"PLAINTEXT://0.0.0.0:{port},")
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{LOOPBACK}:{port}"
    assert f"{LOOPBACK}:{port}" in service["healthcheck"]["test"][-1]


def test_its_data_outlive_the_container(composed, service):
    """A named volume, not one without a name: `down` would forget where the recordings are."""
    data = service["environment"]["KAFKA_LOG_DIRS"]
    mounted = dict(volume.split(":")[:2][::-1] for volume in service["volumes"])
    assert mounted[data] in composed["volumes"]
    assert "tmpfs" not in service
    assert len(service["environment"]["CLUSTER_ID"]) == 22


def test_it_is_pinned_and_watched(service):
    assert re.fullmatch(r"apache/kafka:4\.\d+\.\d+", service["image"])
    check = service["healthcheck"]
    assert "kafka-broker-api-versions" in check["test"][-1]
    assert set(check) >= {"interval", "timeout", "retries", "start_period"}
    assert service["mem_limit"]


def test_its_settings_are_those_of_the_native_broker(service):
    environment = service["environment"]
    for name, value in SETTINGS.items():
        assert environment[f"KAFKA_{name.upper().replace('.', '_')}"] == value, name
    assert environment["KAFKA_HEAP_OPTS"].split() == list(_HEAP)


def test_everything_is_text_so_that_docker_takes_it_as_written(service):
    assert all(isinstance(value, str) for value in service["environment"].values())
