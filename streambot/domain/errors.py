"""One tree of errors. Every error has fields for machines and one sentence for people.

    StreambotError
    ├── UsageError            2  a command line that makes no sense
    ├── ConfigError           3  a file, key or value of the configuration
    │   └── UnknownInstrumentError
    ├── DataError             4  bars that cannot be trusted
    │   └── StrategyError     4  a user's strategy raised or answered nonsense
    ├── BrokerError           5  unreachable, refused, died
    │   ├── FencedError       5  another process took over
    │   └── RefusedError      5  credentials, rights, a limit: trying again does not help
    ├── TopicError            6  topics differ from `topics.yaml`
    ├── StreamError           4  the log itself is wrong
    │   ├── DecodeError          bytes that are no frame or no event
    │   ├── SequenceGapError     a frame is missing
    │   └── OrderViolationError  ticks that go back in time behind the sequencer
    ├── VerificationError     8  two runs that should agree do not
    │   └── DivergenceError      an agent's mirror and the engine disagree
    └── AgentTimeoutError     9  a registered agent did not answer

The number is the exit code of the command line (`docs/operations.md`). Anything outside the tree
is a bug (exit code 1).
"""

from __future__ import annotations


class StreambotError(Exception):
    """What went wrong, where, why, and what to try.

    Args:
        message: one sentence: what is wrong and why.
        where: `file:line:key`, or topic/partition/offset; empty when nowhere in particular.
        hint: what to try next; empty when there is nothing better to say than the message.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  try: {self.hint}" if self.hint else text


class UsageError(StreambotError):
    """The command line makes no sense."""

    exit_code = 2


class ConfigError(StreambotError):
    """A file, key or value of the configuration is wrong."""

    exit_code = 3


class UnknownInstrumentError(ConfigError):
    """A symbol that no registry declares.

    Attributes:
        symbols: the unknown symbols, sorted.
        suggestion: the YAML block that would declare them, ready to paste; empty when unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        symbols: tuple[str, ...],
        suggestion: str = "",
        where: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.symbols = symbols
        self.suggestion = suggestion


class DataError(StreambotError):
    """Bars that cannot be trusted."""

    exit_code = 4


class StrategyError(DataError):
    """A user's strategy raised, or answered something that is no action."""


class BrokerError(StreambotError):
    """The broker is unreachable, refuses, or died."""

    exit_code = 5


class FencedError(BrokerError):
    """Another process took over what this one was working on; nothing of this one counts any more."""


class RefusedError(BrokerError):
    """The broker is there and says no: user, password, rights, a limit. Trying again does not help."""


class TopicError(StreambotError):
    """The topics of the broker differ from `topics.yaml`."""

    exit_code = 6


class StreamError(StreambotError):
    """The log itself is wrong."""

    exit_code = 4


class DecodeError(StreamError):
    """Bytes that are no frame or no event.

    Attributes:
        reason: one of a small closed set of words (`short`, `magic`, `version`, `schema`, `crc`,
            `length`, `arrow`, `domain`, `foreign`), the key of the dead-letter counters.
    """

    def __init__(self, message: str, *, reason: str, where: str = "") -> None:
        super().__init__(message, where=where)
        self.reason = reason


class SequenceGapError(StreamError):
    """A frame is missing: the run stops, because a silent gap is worse than none.

    So does a training where a fragment, or a step, of an actor's life is missing.
    """

    def __init__(
        self,
        stream: str,
        partition: int,
        *,
        expected: int,
        received: int,
        what: str = "frame",
        hint: str = "the recording is incomplete: replay it again from its source",
    ) -> None:
        super().__init__(
            f"expected {what} {expected}, received {received}",
            where=f"{stream}/{partition}",
            hint=hint,
        )
        self.stream = stream
        self.partition = partition
        self.expected = expected
        self.received = received


class OrderViolationError(StreamError):
    """Ticks that go back in time behind the sequencer."""


class VerificationError(StreambotError):
    """Two runs that should give the same events do not."""

    exit_code = 8


class DivergenceError(VerificationError):
    """The fills that an agent's mirror computed are not those of the engine."""


class AgentTimeoutError(StreambotError):
    """A registered agent did not answer a barrier in time."""

    exit_code = 9
