"""Weights as records of the `policy` stream: what the learner publishes and actors act with.

An envelope whose header says whose weights these are, and whose body is safetensors: the policy and
its critic, nothing of the optimizer. Records are keyed by the policy's name, so that the newest ones
stay when the topic is compacted; a pin is a copy under `<name>@<sequence>`, which stays as well.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import safetensors
import safetensors.torch
import torch
from msgspec import Meta

from streambot.agents.checkpoint import KINDS, Head
from streambot.domain.errors import DecodeError
from streambot.streams.envelope import Envelope

if TYPE_CHECKING:
    from streambot.agents.ppo import PPOAgent

MAX_WEIGHTS_BYTES = 8 << 20
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_PARTS = ("network.", "critic.")


class WeightsHead(msgspec.Struct, frozen=True, kw_only=True):
    """Whose weights these are.

    Attributes:
        training: whose learner published them.
        policy: name of the policy.
        sequence: updates behind them; never falls in one life of a learner.
        head: what a checkpoint with these weights would say of itself; its digest is of the body.
        wanted: steps that each actor is asked for under these weights; then it waits for newer ones.
        urgent: the learner waits; what an actor has traded more than it was asked for is forgotten.
        experience, stream: where experience goes, and where newer weights will come, from now on;
            empty: where they did.
        learner: number of the learner's life. One that goes on from a checkpoint begins with fewer
            updates than the one before it had made.
    """

    training: Annotated[str, Meta(min_length=1, max_length=128)]
    policy: Annotated[str, Meta(min_length=1, max_length=128)]
    sequence: _Count
    head: Head
    wanted: _Count = 0
    urgent: bool = False
    experience: Annotated[str, Meta(max_length=249)] = ""
    stream: Annotated[str, Meta(max_length=249)] = ""
    learner: _Count = 0


class Weights(NamedTuple):
    """Weights, read and checked.

    Attributes:
        head: whose.
        tensors: of network and critic, by name.
    """

    head: WeightsHead
    tensors: dict[str, torch.Tensor]

    def agent(self, device: torch.device | None = None) -> PPOAgent:
        """An agent with them, whose optimizer remembers nothing.

        Raises:
            DecodeError: they do not fit the agent that the head describes.
        """
        try:
            made = KINDS[self.head.head.kind](self.head.head.agent, device=device)
        except (KeyError, RuntimeError, ValueError, TypeError) as cause:
            raise DecodeError(f"no such agent: {_first(cause)}", reason="domain") from cause
        self.give(made)
        return made

    def give(self, agent: PPOAgent) -> None:
        """Put them in the place of an agent's own.

        Raises:
            DecodeError: they do not fit it; its own are as they were.
        """
        modules = {"network.": agent.network, "critic.": agent.critic}
        wanted = {
            f"{prefix}{name}": value.shape
            for prefix, module in modules.items()
            for name, value in module.state_dict().items()
        }
        found = {name: value.shape for name, value in self.tensors.items()}
        if found != wanted:
            odd = sorted({n for n in {*found, *wanted} if found.get(n) != wanted.get(n)})
            raise DecodeError(f"weights of another agent: `{odd[0]}` differs", reason="foreign")
        for prefix, module in modules.items():
            module.load_state_dict({
                name.removeprefix(prefix): value
                for name, value in self.tensors.items()
                if name.startswith(prefix)
            })  # fmt: skip


_ENVELOPE = Envelope(b"SBW1", WeightsHead, MAX_WEIGHTS_BYTES, most_header=64 << 10)


def encode_weights(
    agent: PPOAgent,
    *,
    training: str,
    policy: str,
    sequence: int,
    wanted: int = 0,
    urgent: bool = False,
    experience: str = "",
    stream: str = "",
    learner: int = 0,
    **head: Any,  # noqa: ANN401
) -> bytes:
    """The weights of an agent as bytes.

    Args:
        agent: whose.
        training, policy, sequence, wanted, urgent, experience, stream, learner: see `WeightsHead`.
        head: further fields of `agents.checkpoint.Head`: `env`, `names`, `about`, `progress`.

    Raises:
        ValueError: too many bytes for a record.
    """
    tensors = {
        name: value.clone() for name, value in agent.state().items() if name.startswith(_PARTS)
    }
    body = safetensors.torch.save(tensors)
    said = Head(
        format=1, kind=agent.kind, agent=agent.config, weights="record",
        digest=_digest(body), **head,
    )  # fmt: skip
    whose = WeightsHead(
        training=training, policy=policy, sequence=sequence, head=said, wanted=wanted, urgent=urgent,
        experience=experience, stream=stream, learner=learner,
    )  # fmt: skip
    return _ENVELOPE.seal(whose, body)


def decode_weights(record: bytes, *, layout: str | None = None) -> Weights:
    """The weights that bytes hold.

    Args:
        layout: digest of the observations and actions that they are to meet; None: any.

    Raises:
        DecodeError: they are no weights, damaged, or of another layout.
    """
    whose, body = _ENVELOPE.open(record)
    if _digest(body) != whose.head.digest:
        raise DecodeError("the weights are not those that the header names", reason="crc")
    if layout is not None and whose.head.agent.layout != layout:
        raise DecodeError(
            f"weights of other observations or actions (layout {whose.head.agent.layout[:40]}, not "
            f"{layout})",
            reason="foreign",
        )
    try:
        tensors = safetensors.torch.load(bytes(body))
    except (safetensors.SafetensorError, ValueError, RuntimeError, KeyError) as cause:
        raise DecodeError(f"no tensors: {_first(cause)}", reason="arrow") from cause
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise DecodeError("weights that are no numbers", reason="domain")
    return Weights(whose, tensors)


def _digest(body: bytes | memoryview) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _first(cause: BaseException) -> str:
    text = str(cause)
    return (text.splitlines()[0] if text else type(cause).__name__)[:200]
