"""What a learner has read of the `experience` stream and not learnt from yet; every step counted once.

    record -> decoded -> whose? -> next of its actor's life? -> behind the steps before? -> not too old -> FIFO

An actor numbers the fragments of a life from 0 without a gap, and the steps of an episode too. So a
record that was written twice is known, and one that is missing is an error: nothing may be lost
silently. Fragments whose weights are too many updates old are dropped and counted; they were read, so
what follows them is still contiguous.

What was read and not taken is read again after a restart: `state` points in front of it.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import DecodeError, SequenceGapError
from streambot.streams.fragment import Fragment, decode_fragment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streambot.streams.ports import Record

MAX_LAG = 8
"""Updates between sampling and learning; older fragments are dropped (PPO collapses at 32)."""
MOST_LIVES = 4_096
"""Lives of actors that are remembered: the ones heard of last."""


class Life(msgspec.Struct, frozen=True):
    """How far an actor's life was read.

    Attributes:
        actor, incarnation: whose.
        next_sequence: number of its next fragment.
        episodes: by environment, the number of the episode and of its next step.
        late: it was met in its middle, and so will be the episodes of its other environments.
    """

    actor: str
    incarnation: int
    next_sequence: int = 0
    episodes: dict[int, tuple[int, int]] = {}
    late: bool = False

    def behind(self, fragment: Fragment) -> Life:
        """How far it was read with one more fragment."""
        head = fragment.head
        over = head.terminated or head.truncated
        step = (head.episode + 1, 0) if over else (head.episode, head.t_started + head.steps)
        episodes = {**self.episodes, head.env: step}
        return Life(self.actor, self.incarnation, head.sequence + 1, episodes, self.late)


class BufferState(msgspec.Struct, frozen=True):
    """Where to read on, and what is known of what lies before.

    Attributes:
        offsets: of the next record by stream; each has one partition.
        lives: how far actors were read up to there.
        counts: see `ExperienceBuffer.counts`.
        again: up to these offsets, by stream, experience is read again: it may be as old as it
            likes.
        forgot: there were more lives than are remembered.
    """

    offsets: dict[str, int]
    lives: tuple[Life, ...] = ()
    counts: dict[str, int] = {}
    again: dict[str, int] = {}
    forgot: bool = False


class _Read:
    """A record that was read.

    Attributes:
        stream, offset: where.
        counted: what was counted because of it.
        bounded: False: it may be as old as it likes.
        life: of its actor in front of it; None: there was none, or it is nobody's.
        key: of its actor's life; None: it is nobody's.
        fragment: what waits to be taken; None: nothing does (any more).
    """

    __slots__ = ("bounded", "counted", "fragment", "key", "life", "offset", "stream")

    def __init__(self, stream: str, offset: int) -> None:
        self.stream, self.offset = stream, offset
        self.counted: Counter[str] = Counter()
        self.bounded = True
        self.life: Life | None = None
        self.key: tuple[str, int] | None = None
        self.fragment: Fragment | None = None


class ExperienceBuffer:
    """Fragments in the order in which they were read.

    Args:
        training: whose experience it is.
        layout: digest of what observations and actions mean.
        state: of another one, to go on from.
        max_lag: see `MAX_LAG`.

    Attributes:
        counts: of fragments and steps, by what became of them: `read`, `steps`, `duplicate`,
            `foreign` (another training or layout), `broken` (no fragment), `stale`, `stale_steps`,
            `again`, `again_steps` (see `BufferState`), `taken`, `taken_steps`.
        steps: that are held.
        taken: offsets of the first and the last fragment that were taken last, by stream.
    """

    def __init__(
        self,
        training: str,
        layout: str,
        state: BufferState | None = None,
        *,
        max_lag: int = MAX_LAG,
    ) -> None:
        state = state or BufferState({})
        self._again, self._forgot = state.again, state.forgot
        self._training, self._layout, self._max_lag = training, layout, max_lag
        self._lives = {(life.actor, life.incarnation): life for life in state.lives}
        self._offsets = dict(state.offsets)
        self._read: deque[_Read] = deque()
        """From the first record on that has something to be taken."""
        self.counts: Counter[str] = Counter(state.counts)
        self.steps = 0
        self.taken: dict[str, tuple[int, int]] = {}

    def offer(self, records: Iterable[Record], weights: int) -> None:
        """Take in what was read.

        Args:
            records: in the order of their streams.
            weights: sequence number of the newest weights: older ones are measured against it.

        Raises:
            SequenceGapError: a fragment or steps of an episode are missing.
        """
        for record in records:
            read = _Read(record.stream, record.offset)
            self._look(read, record, weights)
            self._offsets[record.stream] = record.offset + 1
            self.counts.update(read.counted)
            if self._read or read.fragment is not None:
                self._read.append(read)

    def _look(self, read: _Read, record: Record, weights: int) -> None:
        try:
            fragment = decode_fragment(record.value)
        except DecodeError:
            read.counted["broken"] = 1
            return
        head = fragment.head
        if (head.training, head.layout) != (self._training, self._layout):
            read.counted["foreign"] = 1
            return
        key = read.key = (head.actor, head.incarnation)
        read.life = self._lives.get(key)
        again = record.offset < self._again.get(record.stream, 0)
        known = read.life or Life(*key)
        if read.life is None and head.sequence and (self._again or self._forgot):
            # In its middle: not everything was read, or is remembered.
            known = Life(*key, next_sequence=head.sequence, late=True)
        if head.sequence < known.next_sequence:
            read.counted["duplicate"] = 1
            return
        _check(fragment, known, record)
        self._lives.pop(key, None)
        self._lives[key] = known.behind(fragment)  # last in the order of the dict: heard of last
        while len(self._lives) > MOST_LIVES:
            del self._lives[next(iter(self._lives))]
            self._forgot = True
        read.counted.update(read=1, steps=head.steps)
        if again:
            read.counted.update(again=1, again_steps=head.steps)
            read.bounded = False
        if self._stale(read, fragment, weights):
            read.counted.update(stale=1, stale_steps=head.steps)
            return
        read.fragment = fragment
        self.steps += head.steps

    def take(self, steps: int, weights: int) -> list[Fragment]:
        """The oldest fragments, of `steps` steps or a little more; none where there are not as many.

        Args:
            steps: at least.
            weights: of now: what has become too old meanwhile is dropped.
        """
        for read in self._read:
            if read.fragment is not None and self._stale(read, read.fragment, weights):
                self._counts(read, "stale", "stale_steps")
        taken: list[Fragment] = []
        if self.steps >= steps:
            got, self.taken = 0, {}
            for read in self._read:
                if got >= steps:
                    break
                if read.fragment is not None:
                    taken.append(read.fragment)
                    first, _ = self.taken.get(read.stream, (read.offset, read.offset))
                    self.taken[read.stream] = (first, read.offset)
                    got += read.fragment.head.steps
                    self._counts(read, "taken", "taken_steps")
        while self._read and self._read[0].fragment is None:
            self._read.popleft()
        return taken

    def _stale(self, read: _Read, fragment: Fragment, weights: int) -> bool:
        return read.bounded and weights - fragment.head.weights > self._max_lag

    def offset(self, stream: str) -> int:
        """Of the record that is read next; 0 where none was."""
        return self._offsets.get(stream, 0)

    def forget(self, stream: str) -> None:
        """A stream is gone; nothing of it waits any more."""
        self._offsets.pop(stream, None)

    def held(self, stream: str) -> bool:
        """Does something of that stream wait to be taken?"""
        return any(read.stream == stream and read.fragment is not None for read in self._read)

    def _counts(self, read: _Read, fragments: str, steps: str) -> None:
        """Something has become of a fragment that waited."""
        assert read.fragment is not None  # noqa: S101  # the caller has looked
        done = Counter({fragments: 1, steps: read.fragment.head.steps})
        self.steps -= read.fragment.head.steps
        read.fragment = None
        read.counted.update(done)
        self.counts.update(done)

    def state(self) -> BufferState:
        """Where to read on so that what waits is read again, and nothing else.

        What was taken stands in front of it, in its stream: fragments are taken in the order in
        which they were read.
        """
        offsets, lives, counts = dict(self._offsets), dict(self._lives), Counter(self.counts)
        first: dict[str, int] = {}
        for read in self._read:
            if read.fragment is not None:
                first.setdefault(read.stream, read.offset)
        for read in reversed(self._read):
            if read.offset < first.get(read.stream, read.offset + 1):
                continue
            offsets[read.stream] = read.offset
            counts.subtract(read.counted)
            if read.key is not None:
                lives.pop(read.key, None)
                if read.life is not None:
                    lives[read.key] = read.life
        kept = {name: count for name, count in counts.items() if count}
        return BufferState(offsets, tuple(lives.values()), kept, self._again, self._forgot)


def _check(fragment: Fragment, known: Life, record: Record) -> None:
    """Refuse what is not next."""
    head = fragment.head
    hint = (
        f"experience of actor {head.actor}, episode {head.episode_id}, is lost or damaged: `streambot "
        f"train --resume FOLDER --replay-from {record.offset}` goes on behind it"
    )
    if head.sequence != known.next_sequence:
        raise SequenceGapError(
            record.stream, record.partition, expected=known.next_sequence, received=head.sequence,
            what="fragment", hint=hint,
        )  # fmt: skip
    first = (head.episode, head.t_started if known.late else 0)
    episode, step = known.episodes.get(head.env, first)
    if (head.episode, head.t_started) != (episode, step):
        raise SequenceGapError(
            record.stream, record.partition, expected=step, received=head.t_started,
            what="step", hint=hint,
        )  # fmt: skip
