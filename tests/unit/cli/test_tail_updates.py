"""`tail status` of a training: an update a line, whatever stands on the topic."""

from __future__ import annotations

import json

import msgspec
import pytest

from streambot.cli.lines import Traded
from streambot.cli.tail_updates import UPDATE_FIELDS, update_row
from streambot.cli.tail_views import make_view
from streambot.cli.where import compile_where
from streambot.learning.declaration import STATUS_SCHEMA
from streambot.streams.ports import Record

pytest.importorskip("torch")

from streambot.learning.learner.progress import Learnt
from streambot.learning.looking import Look

pytestmark = pytest.mark.train
AT_MS = 1_795_552_265_250
LEARNT = Learnt(
    25, 400, 204_800, 2.5e-7, (0.25, -0.75), 1.0, 3, {"read": 64, "taken": 60}, 512, 2,
    {"entropy": 0.125, "kl": 0.004, "policy_loss": -0.5}, Look(-0.00004, 20_000, 3),
    {"streambot.t.experience.g0001": (3, 66)},
)  # fmt: skip


def record(value: bytes) -> Record:
    return Record("streambot.t.status", 0, 4, AT_MS, b"update", value, ())


def said(learnt: Learnt = LEARNT, schema: str = STATUS_SCHEMA) -> Record:
    return record(msgspec.json.encode({"schema": schema, **learnt.said()}))


def human(row: dict) -> str:
    return " ".join(make_view("status", Traded({}, {}), training=True).human(row).split())


def test_what_a_learner_says_is_a_line() -> None:
    assert human(update_row(said())) == (
        "2026-11-24 20:31:05 UTC 25/400 204,800 +2.5e-07 -0.25 0.1250 0.0040 1 2 held out 0.00 %"
    )
    without = LEARNT._replace(returns=(), look=None, measured={})
    assert human(update_row(said(without))) == "2026-11-24 20:31:05 UTC 25/400 204,800 +2.5e-07 1 2"


def test_json_has_what_a_learner_says_and_where_it_stands() -> None:
    view = make_view("status", Traded({}, {}), training=True)
    row = update_row(said())
    assert set(row) <= set(UPDATE_FIELDS) == set(view.fields)
    written = json.loads(view.machine(row))
    assert written["schema"] == "streambot.training-status/1"
    assert (written["update"], written["offset"]) == (25, 4)
    assert written["counts"] == {"read": 64, "taken": 60}
    assert written["look"] == {"gain": -0.00004, "decisions": 20_000, "instruments": 3}
    assert compile_where("lag > 0 and actors == 2", view.fields)(row)


def test_numbers_that_are_none_are_left_empty() -> None:
    """An update that goes astray is the one that people want to see."""
    astray = LEARNT._replace(
        reward=float("nan"), measured={"kl": float("inf"), "entropy": float("nan")},
        look=Look(float("-inf"), 1, 1),
    )  # fmt: skip
    row = update_row(said(astray))
    assert "refused" not in row
    assert human(row) == "2026-11-24 20:31:05 UTC 25/400 204,800 -0.25 1 2"


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\xff\xfe", b"null", b"[1]", b"{}", b'{"schema":"streambot.training-status/1"}',
        said(schema="streambot.other/1").value, said().value[:-5], said().value.replace(b"25", b'"x"'),
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_update_is_a_line_that_says_so(value: bytes) -> None:
    row = update_row(record(value))
    assert row["refused"] == "schema"
    assert "no update (schema): " in human(row)
    assert len(human(row)) < 400
    assert json.loads(make_view("status", Traded({}, {}), training=True).machine(row))["message"]


def test_the_status_of_a_run_is_another_one() -> None:
    assert make_view("status", Traded({}, {})).schema != "training-status"
