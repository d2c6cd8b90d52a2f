"""How a training is told: what the figures on the screen are of."""

from __future__ import annotations

import pytest

from streambot.cli.training_view import RATE_S, Pace


def test_the_pace_is_that_of_the_last_seconds_not_of_the_last_update():
    """An update that takes four times as long, with a look behind it, is one among those around it."""
    pace = Pace()
    assert pace(100.0, 8_192) is None
    now, steps, told = 100.0, 8_192, []
    for update in range(200):
        now += 2.0 if update % 25 == 24 else 0.5
        steps += 8_192
        told.append(pace(now, steps))
    expected = 25 * 8_192 / (24 * 0.5 + 2.0)
    assert min(told[30:]) > 0.8 * expected
    assert max(told[30:]) < 1.25 * expected


def test_the_pace_forgets_what_was_long_ago():
    pace = Pace()
    pace(0.0, 0)
    assert pace(1_000.0, 1_000) == pytest.approx(1.0), "one update may take longer than that"
    for second in range(1, 41):
        last = pace(1_000.0 + second, 1_000 + 100 * second)
    assert RATE_S < 40
    assert last == pytest.approx(100.0)
