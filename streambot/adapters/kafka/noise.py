"""What aiokafka says in its log: counted, and kept from people's eyes.

Everything that matters comes back as an exception and becomes a `StreambotError`. The log tells
every retry of every background task besides: a dead broker alone fills a screen. So a message that
is known is counted; one that is not known is passed on as a warning of this package.

`NotEnoughReplicasError ... retrying` deserves a word: during a transaction it is the broker's
verification (KIP-890) answering an old client while a partition is being added. The retry succeeds.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import aiokafka
from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from types import TracebackType

_log = logging.getLogger(__name__)

_KNOWN = (
    # Connections and their retries: the log's watch says it once, when it is true for good.
    'Unable connect to "%s:%s": %s',
    "Unable connect to node with id %s: %s",
    'Unable to request metadata from "%s:%s": %s',
    "Unable to request metadata from node with id %s: %r",
    "Unable to update metadata from %s",
    "No broker metadata found in MetadataResponse -- ignoring.",
    "Failed fetch messages from %s: %s",
    "Failed fetch offsets from %s: %s",
    "Cannot send %r to %s: %r",
    "Could not send %r: %r",
    "Got error produce response: %s",
    "Got error produce response on topic-partition %s, retrying. Error: %s",
    "FindCoordinator Request failed: %s",
    "Unexpected error during InitProducerIdRequest: %s",
    "Unexpected exception in AIOKafkaConnection",
    # Transactions and idempotent producers: what fails voids the transaction, which says so.
    "Unexpected error in sender routine",
    "Could not add partition %s due to unexpected error: %s",
    "Could not add consumer group due to unexpected error: %s",
    "Could not commit offset for partition %s due to unexpected error: %s",
    "Could not end transaction due to unexpected error: %s",
    "Unexpected error in fetcher routine",
    # Topics that come and go: checked, and reported, by `KafkaLog`.
    "Topic %s is not available during auto-create initialization",
    "Topic %s not found in cluster metadata",
    "Topic %s is not authorized for this client",
    "Error fetching metadata for topic %s: %s",
    "Unexpected error while fetching data: %s",
    "Not authorized to read from topic %s.",
    "Attempt to fetch offsets for partition %s failed due to: %s",
    "Received unknown topic or partition error in ListOffset request for partition %s.",
    "Sending username and password in the clear",
    # Groups: whoever is in one joins it again, and repeats are dropped.
    "Group Coordinator Request failed: %s",
    "Error sending %s to node %s [%s] -- marking coordinator dead",
    "Marking the coordinator dead (node %s)for group %s.",
    "LeaveGroup request failed: %s",
    "Heartbeat session expired - marking coordinator dead",
    "Heartbeat send request failed: %s. Will retry.",
    "Heartbeat failed",
    "User provided listener %s",
)


class _Counting(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: Counter[str] = Counter()
        self.last = ""
        self.cause: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        template = str(record.msg)
        self.last = record.getMessage()
        if isinstance(record.args, tuple) and record.args:
            reason = record.args[-1]
            self.cause = reason if isinstance(reason, BaseException) else None
        if template.startswith(_KNOWN):
            self.counts[template] += 1
        else:
            self.counts["unknown"] += 1
            _log.warning("aiokafka: %s", self.last)


_handler = _Counting()
_HOME = str(Path(aiokafka.__file__).parent)


class _Abandoned(logging.Filter):
    """Failures of its background work that aiokafka never looks at, once a client was given up.

    asyncio would print each with a traceback. What they say is known here already: it is why the
    client was given up.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        failure = record.exc_info[1] if record.exc_info else None
        if failure is None:
            return True
        lost = "never retrieved" in said and isinstance(failure, KafkaError)
        if lost or _raised_there(failure.__traceback__):
            _handler.counts["abandoned"] += 1
            return False
        return True


def _raised_there(traceback: TracebackType | None) -> bool:
    """True where the innermost frame is one of aiokafka's."""
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename.startswith(_HOME)


_abandoned = _Abandoned()


def silence() -> None:
    """Take over aiokafka's log. A second call does nothing."""
    logger = logging.getLogger("aiokafka")
    if _handler not in logger.handlers:
        logger.addHandler(_handler)
        logger.propagate = False
        logging.getLogger("asyncio").addFilter(_abandoned)


def noise_counts() -> Counter[str]:
    """How often each message was held back so far; `unknown` ones were passed on."""
    return Counter(_handler.counts)


def last_noise() -> tuple[str, BaseException | None]:
    """The last message, and the exception in it: why a connection failed stands nowhere else."""
    return _handler.last, _handler.cause


def forget_noise() -> None:
    """Forget the last message, before something whose reason should be told."""
    _handler.last, _handler.cause = "", None
