"""A recording gives back the ticks that were recorded, however they had been cut into frames."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.data.recorded import RecordedRun, RecordedTimeline
from streambot.domain.errors import DataError, SequenceGapError, StreamError
from streambot.replay.framing import Framing
from streambot.replay.pacing import GapClock
from streambot.streams.frame import decode_frame
from streambot.streams.sequence import FrameChain
from tests.unit.processor.market import MINUTE, Market


def frames_of(market: Market, manifest, *, max_rows: int = 50, spans=None, end: bool = True):
    """Frames of every partition, cut somehow, END included."""
    framing = Framing(manifest.partition_of, manifest.partitions, max_rows=max_rows)
    chains = [
        FrameChain(manifest.run_id, p, len(manifest.instruments))
        for p in range(manifest.partitions)
    ]
    out = [[] for _ in chains]

    def add(drafts) -> None:
        for d in drafts:
            data = chains[d.partition].data(d.closes, d.ticks, t_lo=d.t_lo, t_hi=d.t_hi)
            out[d.partition].append(data)

    clock, n = GapClock(None), 0
    for window in market.windows():
        cutting = framing.open(window)
        if spans is None:
            add(cutting.all())
            continue
        cutting.schedule(clock)
        while (batch := cutting.due(spans[n % len(spans)])) is not None:
            add(batch.drafts)
            n += 1
    if end:
        for chain, values in zip(chains, out, strict=True):
            values.append(chain.end())
    return out


class Opened:
    """Opens values, and counts who still holds them."""

    def __init__(self, values):
        self.values = values
        self.held = 0

    @contextmanager
    def __call__(self):
        self.held += 1
        try:
            yield [iter(v) for v in self.values]
        finally:
            self.held -= 1


def timeline(manifest, values, **more) -> RecordedTimeline:
    opened = values if isinstance(values, Opened) else Opened(values)
    run = RecordedRun(
        manifest.run,
        manifest.run_id,
        manifest.instruments,
        manifest.partitions,
        MINUTE,
        None,
        opened,
    )
    return RecordedTimeline(run, **more)


def joined(windows) -> tuple:
    """All rows with their interval in the run, and all closes."""
    windows = list(windows)
    rows = [
        np.concatenate([np.asarray(getattr(w.ticks, name), np.int64) for w in windows])
        for name in ("instrument", "flags", "ts", "price", "size")
    ]
    intervals = np.concatenate([w.ticks.bar.astype(np.int64) + w.barrier_lo for w in windows])
    closes = np.concatenate([w.closes for w in windows])
    return (*(column.tolist() for column in rows), intervals.tolist(), closes.tolist())


@settings(max_examples=40)
@given(
    seed=st.integers(1, 4),
    partitions=st.integers(1, 5),
    max_rows=st.integers(1, 200),
    spans=st.one_of(st.none(), st.lists(st.integers(0, 3 * MINUTE), min_size=1, max_size=5)),
    window_ticks=st.integers(1, 3_000),
    missing=st.sampled_from([0.0, 0.2, 0.9]),
)
def test_the_ticks_come_back_as_they_were_sequenced(
    seed, partitions, max_rows, spans, window_ticks, missing
):
    market = Market("ABCDE", bars=80, seed=seed, missing=missing)
    manifest = market.manifest(partitions=partitions)
    values = frames_of(market, manifest, max_rows=max_rows, spans=spans)
    recorded = timeline(manifest, values, window_ticks=window_ticks)
    expected = joined(market.windows())
    assert joined(recorded.windows()) == expected
    plan = recorded.plan()
    assert plan.ticks == len(expected[0])
    assert plan.bars * 4 == plan.ticks
    assert plan.first_ns == min(expected[2])
    assert plan.last_ns == expected[-1][-1]
    assert recorded.complete
    assert recorded.through == 80
    for window in recorded.windows():
        assert int(window.closes[-1]) >= int(window.ticks.ts.max(initial=0))


@given(from_barrier=st.integers(0, 80), window_ticks=st.integers(1, 900))
def test_from_any_barrier_on_it_is_the_rest(from_barrier, window_ticks):
    market = Market("ABC", bars=80)
    manifest = market.manifest(partitions=2)
    recorded = timeline(manifest, frames_of(market, manifest), window_ticks=window_ticks)
    windows = list(recorded.windows(from_barrier))
    if from_barrier == 80:
        assert not windows
        return
    assert windows[0].barrier_lo == from_barrier
    rest = joined(windows)
    *columns, intervals, closes = joined(market.windows())
    at = int(np.searchsorted(intervals, from_barrier))
    assert rest == (*(c[at:] for c in columns), intervals[at:], closes[from_barrier:])


@given(
    kept=st.lists(st.integers(0, 400), min_size=3, max_size=3),
    spans=st.lists(st.integers(0, 2 * MINUTE), min_size=1, max_size=4),
)
def test_without_an_end_it_counts_up_to_the_last_barrier_that_all_have_closed(kept, spans):
    market = Market("ABC", bars=40)
    manifest = market.manifest(partitions=3)
    values = frames_of(market, manifest, spans=spans, end=False)
    cut = [v[:n] for v, n in zip(values, kept, strict=True)]
    closed = [
        sum(len(decode_frame(v, manifest.run_id, p, 3).closes) for v in frames)
        for p, frames in enumerate(cut)
    ]
    recorded = timeline(manifest, cut)
    if not min(closed):
        with pytest.raises(DataError, match="no whole bar"):
            recorded.plan()
        return
    *columns, intervals, closes = joined(market.windows())
    at = int(np.searchsorted(intervals, min(closed)))
    assert joined(recorded.windows()) == (
        *(c[:at] for c in columns), intervals[:at], closes[: min(closed)],
    )  # fmt: skip
    assert not recorded.complete
    assert recorded.through == min(closed)
    assert recorded.plan().ticks == at
    assert f"barrier {min(closed)} " in recorded.source
    again = timeline(manifest, values, limit=min(closed))
    assert again.source == recorded.source, "what came later changes nothing"
    assert joined(again.windows()) == joined(recorded.windows())


def test_hours_without_a_session_are_closed_spans():
    """A session ends with the bar that says so, and begins with the next tick."""
    market = Market("AB", bars=250, missing=0.0)
    manifest = market.manifest(partitions=2)
    recorded = timeline(manifest, frames_of(market, manifest))
    assert recorded.plan().sessions == 2  # every hundredth bar ends one
    assert recorded.plan().closed_ns == 0  # and the next one follows at once


def test_the_fingerprint_is_of_all_partitions():
    market = Market("AB", bars=30)
    manifest = market.manifest(partitions=2)
    values = frames_of(market, manifest)
    source = timeline(manifest, values).source
    assert source.startswith("run run, END ")
    other = frames_of(market, manifest, max_rows=7)
    assert timeline(manifest, [values[0], other[1]]).source != source


def test_missing_and_altered_frames_are_noticed_before_anything_is_replayed():
    market = Market("AB", bars=60)
    manifest = market.manifest(partitions=2)
    values = frames_of(market, manifest)
    with pytest.raises(SequenceGapError):
        timeline(manifest, [values[0][1:], values[1]]).plan()
    altered = [bytearray(v) for v in values[1]]
    altered[1][-9] ^= 1
    with pytest.raises(SequenceGapError):  # it is no frame, so one is missing
        timeline(manifest, [values[0], [bytes(v) for v in altered]]).plan()
    junk = [values[0][0], b"junk", *values[0][1:]]
    assert timeline(manifest, [junk, values[1]]).complete, "what is no frame is left out"
    with pytest.raises(StreamError, match="same barriers"):
        list(timeline(manifest, [values[0], _other_closes(manifest)]).windows())


def _other_closes(manifest):
    market = Market("AB", bars=60)
    *before, last = market.windows()
    closes = last.closes.copy()
    closes[-1] += 1
    market.windows = lambda: iter([*before, last._replace(closes=closes)])
    return frames_of(market, manifest)[1]


def test_who_stops_reading_lets_go_of_the_recording():
    market = Market("ABC", bars=80)
    manifest = market.manifest(partitions=2)
    opened = Opened(frames_of(market, manifest))
    recorded = timeline(manifest, opened, window_ticks=50)
    recorded.plan()
    assert opened.held == 0
    windows = recorded.windows()
    next(windows)
    assert opened.held == 1
    windows.close()
    assert opened.held == 0


def test_memory_is_bounded_by_a_window_also_where_partitions_are_unlike():
    """A partition with few ticks is read ahead by a frame, not by all of it."""
    market = Market("ABCDE", bars=400, missing=0.0)
    manifest = market.manifest(partitions=2)
    values = frames_of(market, manifest, max_rows=40)
    drawn = [0, 0]

    @contextmanager
    def counted():
        def counting(p):
            for value in values[p]:
                drawn[p] += 1
                yield value

        yield [counting(0), counting(1)]

    recorded = timeline(manifest, counted, window_ticks=200)
    recorded._run = recorded._run._replace(open=counted)
    recorded.plan()
    drawn[:] = [0, 0]
    next(recorded.windows())
    assert max(drawn) < len(values[0]) / 4
