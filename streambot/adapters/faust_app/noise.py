"""What Faust and mode say in their logs: counted, and kept from people's eyes.

Everything that matters comes back as a `StreambotError`. The two log every step of every service,
and warn of waits that are none (a partition without records looks stuck to them). A message that is
known is counted; one that is not is passed on as a warning of this package.

Only where streambot hosts Faust: whoever types `faust … worker -l info` wants to read Faust's log.
"""

from __future__ import annotations

import logging
from collections import Counter

_log = logging.getLogger(__name__)

_KNOWN = (
    # A crash is told by `RollupWork.failure`; its traceback, by whoever prints that.
    "Crashed reason=",
    "Error while stopping child",
    # A service that waits looks stuck to Faust: quiet streams, a broker that is gone.
    "Thread keepalive is not responding",
    "No active partitions for",
    "Aiokafka",
    "Broker stopped responding",
    "Highwater not yet available",
    "Fetcher is ignoring cancel or slow",
    "Timer ",
    # Topics are never declared here, on purpose.
    "Topic creation disabled!",
    # Rebalances: at least once, and repeats are dropped.
    "rebalance again generation id",
    "Recovery rebalancing again",
    "exception performing seek when flow not active",
)


_HERE = __name__.rpartition(".")[0]
_LOGGERS = ("faust", "mode", f"{_HERE}.rollup_app", f"{_HERE}.transport")
"""A subclass of a service speaks through the log of its own module."""


class _Counting(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        bare = said.split("]: ", 1)[-1] if said.startswith("[^") else said
        if bare.startswith(_KNOWN):
            self.counts[bare.split("(", maxsplit=1)[0][:60]] += 1
        else:
            self.counts["unknown"] += 1
            _log.warning("faust: %s", bare)


_handler = _Counting()


def silence() -> None:
    """Take over the logs of Faust and mode. A second call does nothing."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _handler not in logger.handlers:
            logger.addHandler(_handler)
            logger.propagate = False


def noise_counts() -> Counter[str]:
    """How often each message was held back so far; `unknown` ones were passed on."""
    return Counter(_handler.counts)
