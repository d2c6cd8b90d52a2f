"""A policy and the environment that it knows: made together, kept together, loaded together.

What the numbers of an observation mean is part of a policy, so a checkpoint says it in the words in
which environments are made (`env.settings.NAMES`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from streambot.agents.checkpoint import Head, load_checkpoint, read_head
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import AgentConfig, PPOAgent
from streambot.domain.errors import ConfigError, DataError
from streambot.env.config import ActionLayout, EnvConfig
from streambot.env.fields import joint_size, layout_digest, observation_fields
from streambot.env.settings import make_config

if TYPE_CHECKING:
    from pathlib import Path

    import torch

AGENTS: dict[str, type[PPOAgent]] = {MoEAgent.kind: MoEAgent, PPOAgent.kind: PPOAgent}
"""What can be trained, by the name that people give."""


class LoadedPolicy(NamedTuple):
    """A policy that was trained.

    Attributes:
        agent: the policy.
        config: of the environment that it knows.
        head: what the checkpoint says of itself.
        extra: tensors of the training, by name.
    """

    agent: PPOAgent
    config: EnvConfig
    head: Head
    extra: dict[str, Any]


def agent_config(env: EnvConfig, **settings: Any) -> AgentConfig:  # noqa: ANN401  # by name
    """What an agent for an environment is.

    Args:
        env: the environment; its actions are joint.
        settings: the rest of `AgentConfig`.

    Raises:
        ConfigError: actions that are not joint: a mixture averages joint probabilities.
    """
    if env.actions is not ActionLayout.JOINT:
        raise ConfigError(
            "agents choose kind and size of an order together",
            where="actions",
            hint="actions=joint",
        )
    fields = observation_fields(env.window, env.features)
    return AgentConfig(
        features=len(fields),
        actions=joint_size(env.max_quantity),
        regimes=tuple(field.position for field in fields if field.group == "regime"),
        layout=layout_digest(env),
        **settings,
    )


def load_policy(
    folder: Path, *, device: torch.device | None = None, mixed: torch.dtype | None = None
) -> LoadedPolicy:
    """Read a checkpoint, and the environment that its policy knows.

    Args:
        folder: of the checkpoint.
        device, mixed: where and in what the agent computes, see `PPOAgent`.

    Raises:
        DataError: there is none, it is damaged, or says something else of its observations than
            this version does.
        ConfigError: its settings of the environment are wrong.
    """
    head = read_head(folder)
    config, layout = known_to(head, str(folder))
    found = load_checkpoint(folder, layout=layout, device=device, mixed=mixed)
    return LoadedPolicy(found.agent, config, found.head, found.extra)


def known_to(head: Head, where: str) -> tuple[EnvConfig, str]:
    """The environment that a policy knows, and the digest of its layout here and now.

    Raises:
        DataError: it says something else of its observations than this version does.
        ConfigError: its settings of the environment are wrong.
    """
    if not head.agent.layout:
        raise DataError("the policy does not say what it observes", where=where)
    config = make_config(head.env)
    made = agent_config(config)
    said = (head.agent.features, head.agent.actions, head.agent.regimes)
    if head.agent.layout == made.layout and said != (made.features, made.actions, made.regimes):
        raise DataError("the agent takes other observations than its checkpoint says", where=where)
    return config, made.layout
