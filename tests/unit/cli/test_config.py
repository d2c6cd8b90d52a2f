"""`streambot config`: every setting, who gave it, and mistakes at file, line and key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.cli.conftest import Said

    Invoke = Callable[..., Said]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(said: Said) -> dict[str, list[str]]:
    assert said.code == 0, said.err
    return {line.split()[0]: line.split()[1:] for line in said.out.splitlines()[2:]}


def test_origin_says_who_won(
    streambot: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "streambot.yaml").write_text("speed: 50x\nseed: 4\n")
    monkeypatch.setenv("STREAMBOT_SEED", "7")
    found = rows(streambot("config", "show", "--origin"))
    assert found["speed"] == ["50x", "streambot.yaml:1"]
    assert found["seed"] == ["7", "$STREAMBOT_SEED"]
    assert found["gaps"] == ["skip", "default"]
    document = json.loads(streambot("config", "show", "--json").out)
    assert document["schema"] == "streambot.config/1"
    assert document["origins"]["seed"] == "$STREAMBOT_SEED"
    assert "origin" not in streambot("config", "show").out.splitlines()[0]


def test_secrets_are_stars(streambot: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMBOT_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("STREAMBOT_KAFKA_SASL_USERNAME", "me")
    monkeypatch.setenv("STREAMBOT_KAFKA_SASL_PASSWORD", "hunter2")
    for arguments in (["show"], ["show", "--json"], ["show", "--origin"], ["check"]):
        said = streambot("config", *arguments)
        assert said.code == 0, said.err
        assert "hunter2" not in said.out + said.err
    assert rows(streambot("config", "show"))["kafka_sasl_password"] == ["***"]


def test_check_counts_the_layers(streambot: Invoke, folder: Path) -> None:
    (folder / "mine.yaml").write_text("speed: 50x\n")
    said = streambot("config", "check", "--config", "mine.yaml")
    assert said.code == 0
    assert "1 from mine.yaml" in said.out
    assert "ok  registry bundled" in said.out
    document = json.loads(streambot("config", "check", "--json").out)
    assert document["registry"] == "bundled"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed: fast\n", ["streambot.yaml:1:speed", "`fast` is no speed", "100x"]),
        ("speed: 0x\n", ["streambot.yaml:1:speed", "nothing would ever happen"]),
        ("speed: -1x\n", ["streambot.yaml:1:speed", "backwards"]),
        ("seed: 1\nsped: 3x\n", ["streambot.yaml:2:sped", "did you mean `speed`?"]),
        ("seed: 1\nseed: 2\n", ["streambot.yaml:2"]),
        ("lots: many\n", ["streambot.yaml:1:lots"]),
        ("kafka_sasl_password: x\n", ["streambot.yaml:1", "secret"]),
        ("a: &a [x]\nb: *a\n", ["streambot.yaml"]),
        ("speed: [\n", ["streambot.yaml"]),
        ("registry: nowhere.yaml\n", ["nowhere.yaml"]),
    ],
)
def test_mistakes_are_3(streambot: Invoke, folder: Path, text: str, words: list[str]) -> None:
    (folder / "streambot.yaml").write_text(text)
    said = streambot("config", "check")
    assert said.code == 3, said
    assert said.out == ""
    for word in words:
        assert word in said.err
    assert "Traceback" not in said.err


def test_a_typo_in_the_environment_is_found(
    streambot: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMBOT_SPEDE", "3x")
    said = streambot("config", "show")
    assert said.code == 3
    assert "did you mean $STREAMBOT_SPEED?" in said.err
