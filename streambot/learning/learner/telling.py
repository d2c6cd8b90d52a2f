"""Updates that nobody is known to have been told of: they are told with what is published next.

A learner goes on while what it sends is on its way. Where the broker goes away meanwhile, an update or
two are learnt from and told to nobody; they stand in the checkpoint, and whoever goes on from it tells
them first. So the `status` stream has every update, whatever went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streambot.streams.ports import Log


class Untold:
    """Records of updates, from when they were made until they are known to be there.

    Args:
        records: that a checkpoint says nobody was told of.
    """

    def __init__(self, records: Iterable[bytes] = ()) -> None:
        self._records = list(records)
        self._going = 0

    @property
    def records(self) -> tuple[bytes, ...]:
        """In the order of their updates."""
        return tuple(self._records)

    def add(self, record: bytes) -> None:
        """An update was made."""
        self._records.append(record)

    def send(self) -> tuple[bytes, ...]:
        """All of them, which are on their way from now on."""
        self._going = len(self._records)
        return self.records

    def arrived(self) -> None:
        """What was on its way is there."""
        del self._records[: self._going]
        self._going = 0

    async def look(self, log: Log, stream: str) -> None:
        """Leave those that have arrived after all: a broker may take a record and go before it says so.

        Args:
            log: to which nobody writes them any more.
            stream: of status records.

        Raises:
            StreambotError: the log is gone, or does not give what it says it has.
        """
        if not self._records:
            return
        there: set[bytes] = set()
        async for batch in read_to_end(log, stream):
            there.update(record.value for record in batch if record.value in self._records)
        self._records = [record for record in self._records if record not in there]
