"""Updates that nobody is known to have been told of: they stand in the checkpoint until they can be read.

A learner goes on while what it sends is on its way. Where the broker goes away meanwhile, an update or
two are learnt from and told to nobody; and a broker that is being stopped may call a transaction
complete whose records nobody ever sees (`streams.finishing`). Whoever goes on tells them first. So the
`status` stream has every update, whatever went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.streams.reading import read_back

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streambot.streams.ports import Log

_BACK = 256
"""So far back in the stream a record is looked for: what nobody is known to have seen is among the newest."""


class Untold:
    """Records of updates, from when they were made until it is known that they can be read.

    Args:
        records: that a checkpoint says nobody was told of.
    """

    def __init__(self, records: Iterable[bytes] = ()) -> None:
        self._records = list(records)
        self._sent = 0

    @property
    def records(self) -> tuple[bytes, ...]:
        """In the order of their updates."""
        return tuple(self._records)

    def add(self, record: bytes) -> None:
        """An update was made."""
        self._records.append(record)

    def send(self) -> tuple[bytes, ...]:
        """Those that are sent now: nobody has sent them yet."""
        unsent = tuple(self._records[self._sent :])
        self._sent = len(self._records)
        return unsent

    def confirm(self) -> None:
        """What was sent can be read."""
        del self._records[: self._sent]
        self._sent = 0

    async def look(self, log: Log, stream: str) -> None:
        """Leave those that have arrived after all: a broker may take a record and go before it says so.

        Args:
            log: to which nobody writes them any more.
            stream: of status records.

        Raises:
            StreambotError: the log is gone, or does not give what it says it has.
        """
        if self._records:
            back = await read_back(log, stream, 0, max(_BACK, 2 * len(self._records)))
            there = {record.value for record in back}
            self._records = [record for record in self._records if record not in there]
