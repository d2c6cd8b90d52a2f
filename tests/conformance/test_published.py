"""Weights of a training are read and pinned alike on every log."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

pytest.importorskip("torch")

from streambot.learning.declaration import declare_training, generation
from streambot.learning.published import declared_trainings, look, pin
from streambot.streams.ports import Log, StreamSpec
from tests.served import AT_MS, begin, trained, training_of, weights_of, write

pytestmark = pytest.mark.train


async def test_the_newest_weights_and_those_that_are_pinned(
    log: Log, name: Callable[[str], str]
) -> None:
    space = name("s")
    training = await trained(log, 0, 1, 2, namespace=space)
    runs = training.topics["runs"]
    made = await pin(log, runs, 1)
    assert made is not None
    assert (made.weights.sequence, made.new) == (1, True)
    await write(log, training, weights_of(training, 3), at_ms=AT_MS + 5)
    shelf = await look(log, runs)
    assert shelf is not None
    assert shelf.newest is not None
    assert (shelf.newest.sequence, shelf.newest.at_ms, shelf.newest.pinned) == (3, AT_MS + 5, False)
    assert list(shelf.sequences) == [0, 1, 2, 3]
    assert list(shelf.pins) == [1]
    assert shelf.pins[1].value == weights_of(training, 1), "the same bytes, under another key"
    again = await pin(log, runs, 1)
    assert again is not None
    assert not again.new
    assert not shelf.refused
    assert (await declared_trainings(log, space)).trainings == {"moe-1": training}


async def test_a_newer_generation_takes_over(log: Log, name: Callable[[str], str]) -> None:
    plain = training_of(namespace=name("s"))
    first, second = (
        msgspec.structs.replace(
            plain, topics=plain.topics | {"policy": generation(plain.topics["policy"], number)}
        )
        for number in (0, 1)
    )
    await begin(log, first)
    await write(log, first, weights_of(first, 7))
    await log.create([StreamSpec(name=second.topics["policy"])])
    await write(log, second, weights_of(first, 8))
    await declare_training(log, second, at_ms=AT_MS)
    await log.delete([first.topics["policy"]])
    shelf = await look(log, first.topics["runs"])
    assert shelf is not None
    assert shelf.newest is not None
    assert (shelf.newest.sequence, list(shelf.sequences)) == (8, [8])
    found = await declared_trainings(log, first.namespace)
    assert found.trainings == {"moe-1": second}
