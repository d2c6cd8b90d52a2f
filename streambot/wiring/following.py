"""What an actor decides with that serves: weights of a training, pinned ones or the newest there are.

    policy stream -> newest weights -> (between two frames) the policy of every partition

The stream is followed beside the run, on whatever broker it is. Where it goes away, the weights of
now go on deciding, and it is looked for again now and then. An actor that is started again answers
as it had answered, from the log; so it never contradicts itself, whatever the weights are by then.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from streambot.domain.errors import BrokerError, StreambotError, TopicError
from streambot.domain.events import Action
from streambot.env.trader import Recalled, SlotTraders
from streambot.learning.declaration import POLICY
from streambot.learning.published import asked_of, look
from streambot.processor.frame_core import FrameCore
from streambot.wiring.extras import needs_train
from streambot.wiring.served import ServedName
from streambot.wiring.serving import open_training

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from streambot.learning.actor import NewestWeights
    from streambot.learning.serving import Supply
    from streambot.processor.declaration import Declared
    from streambot.processor.mirror_orders import Sent
    from streambot.wiring.serving import Brokers, Lookup

LOOK_S = 0.5
"""How long newer weights are waited for at a time."""
TELL_S = 5.0
"""Of weights that change faster, the last ones are told."""
PAUSES_S = (1.0, 2.0, 5.0, 10.0)
"""Between two looks for a stream that went away; the last one again and again."""


class Serving:
    """Decides with weights of a training.

    Args:
        name: which weights.
        supply: of them.

    Attributes:
        label: for people.
    """

    def __init__(self, name: ServedName, supply: Supply) -> None:
        self._supply = supply
        self.label = str(
            name if name.sequence is None else ServedName(name.training, supply.sequence)
        )

    @property
    def used(self) -> list[int]:
        """Sequences of the weights that have decided, in the order in which they first did."""
        return self._supply.used

    def core(self, declared: Declared, partition: int, sent: Sent) -> FrameCore:
        """The mirror's core of a partition.

        Args:
            declared: the run.
            partition: of it.
            sent: what was answered before, and is answered again.

        Raises:
            ConfigError: the policy cannot trade there.
        """
        from streambot.learning.serving import Seat

        supply, seat = self._supply, Seat(self._supply)
        answers = {
            (order.instrument, order.barrier): Action(order.action, order.quantity)
            for order in sent.orders
        }
        agents = SlotTraders(
            seat, supply.config, weights=supply.digest, recalled=Recalled(sent.through, answers)
        )
        manifest = declared.declaration.manifest
        return FrameCore(manifest, partition, declared.context, agents, seat.next_frame)


@asynccontextmanager
async def serving(
    name: ServedName,
    brokers: Callable[[], Brokers],
    by: Lookup,
    *,
    told: Callable[[str], None],
    warned: Callable[[str], None],
) -> AsyncIterator[Serving]:
    """Weights of a training to decide with, for as long as this lasts.

    Args:
        name: which ones; the newest are followed.
        brokers: to ask now.
        by: how the training is looked up.
        told: what happens; other weights decide.
        warned: what people should know; the stream is away, or its weights cannot be used.

    Raises:
        StreambotError: there are no weights to begin with.
    """
    with needs_train("a trained policy", where=str(name)):
        from streambot.learning.serving import Supply
        from streambot.learning.weights import decode_weights
    async with open_training(name.training, brokers(), by) as found:
        shelf = await look(found.log, found.topic, name.sequence)
        if shelf is None:
            raise TopicError(f"training {name.training} is declared no more", where=found.topic)
        record = asked_of(shelf, name.sequence).value
    changes = _Changes(name.training, told)
    weights = decode_weights(record, layout=shelf.training.layout)
    supply = await asyncio.to_thread(Supply, weights, shelf.training.topics[POLICY], changes.taken)
    follower = _Follower(name.training, brokers, by, supply, told, warned)
    following = None if name.sequence is not None else asyncio.create_task(follower.run())
    try:
        yield Serving(name, supply)
    finally:
        changes.close()
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following


class _Changes:
    """Tells that other weights decide: at once, then what came of it since, every so often."""

    def __init__(self, name: str, told: Callable[[str], None]) -> None:
        self._name, self._told = name, told
        self._loop = asyncio.get_running_loop()
        self._quiet: asyncio.TimerHandle | None = None
        self._last: int | None = None
        self._untold: int | None = None

    def taken(self, now: int, before: int) -> None:
        """Other weights have decided. Called from any thread."""
        self._loop.call_soon_threadsafe(self._take, now, before)

    def close(self) -> None:
        """Tell what is untold."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._over()

    def _take(self, now: int, before: int) -> None:
        if self._last is None:
            self._last = before
        self._untold = max(now, self._untold or 0)
        if self._quiet is None:
            self._over()

    def _over(self) -> None:
        self._quiet = None
        if self._untold is not None:
            self._told(
                f"weights {self._untold:,} of {self._name} decide from here on, before: {self._last:,}"
            )
            self._last, self._untold = self._untold, None
            self._quiet = self._loop.call_later(TELL_S, self._over)


class _Follower:
    """Follows the stream of a training, through everything that may happen to it."""

    def __init__(
        self,
        name: str,
        brokers: Callable[[], Brokers],
        by: Lookup,
        supply: Supply,
        told: Callable[[str], None],
        warned: Callable[[str], None],
    ) -> None:
        self._name, self._brokers, self._by, self._supply = name, brokers, by, supply
        self._told, self._warned = told, warned
        self._failures, self._away = 0, False
        self._said: set[str] = set()
        self._refused = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._follow()
            except StreambotError as error:
                self._lost(error)
            pause = PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        from streambot.learning.actor import NewestWeights

        async with open_training(self._name, self._brokers(), self._by) as found:
            reader = NewestWeights(found.log, found.training)
            try:
                while True:
                    newer = await reader.read(LOOK_S)
                    if newer is not None:
                        self._once(await asyncio.to_thread(self._supply.offer, newer))
                    self._found(reader)
            finally:
                await reader.close()

    def _found(self, reader: NewestWeights) -> None:
        if self._away:
            self._told(f"the weights of {self._name} can be read again")
        self._failures, self._away = 0, False
        refused = reader.refused.total() - reader.refused["older"]
        if refused:
            self._once(f"weights of {self._name} are torn, or of somebody else: they are left out")

    def _lost(self, error: StreambotError) -> None:
        """Told once. The first time a newer generation may have taken over, and is looked for."""
        self._failures += 1
        if not self._away and (isinstance(error, BrokerError) or self._failures > 1):
            self._away = True
            where = f"{error.where}: " if error.where else ""
            self._warned(
                f"the weights of {self._name} cannot be read any more ({where}{error.message}); "
                f"{self._supply.sequence:,} go on deciding"
            )

    def _once(self, text: str) -> None:
        if text and text not in self._said:
            self._said.add(text)
            self._warned(text)
