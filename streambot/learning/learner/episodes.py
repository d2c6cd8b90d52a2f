"""Fragments as RLlib's episodes: each its own piece, with what the actor said when it acted.

A piece that neither terminated nor was truncated is cut: RLlib values its last observation. Ids are
the fragment's own, because the learner's connectors change and join pieces of one id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from streambot.learning.learner.module import seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.learning.learner.module import Spaces
    from streambot.streams.fragment import Fragment

WEIGHTS_SEQ_NO = "weights_seq_no"
"""RLlib reads this, and logs how old the policy that acted was."""


def episode_of(fragment: Fragment, spaces: Spaces, reward: Any) -> SingleAgentEpisode:  # noqa: ANN401
    """A fragment as an episode.

    Args:
        fragment: the steps.
        spaces: see `module.spaces_of`.
        reward: what is learnt from, [T]; scaled rewards, or the fragment's own.
    """
    head = fragment.head
    return SingleAgentEpisode(
        id_=f"{head.episode_id}#{head.t_started}",
        observations=list(seen(fragment.obs, fragment.mask)),
        actions=list(fragment.action.astype(np.int64)),
        rewards=[float(value) for value in reward],
        extra_model_outputs={
            Columns.ACTION_LOGP: list(fragment.log_prob),
            Columns.ACTION_DIST_INPUTS: list(fragment.log_probs),
            WEIGHTS_SEQ_NO: list(np.full(head.steps, head.weights, np.int64)),
        },
        terminated=head.terminated,
        truncated=head.truncated,
        observation_space=spaces[0],
        action_space=spaces[1],
        t_started=head.t_started,
        len_lookback_buffer=0,
    ).to_numpy()


def episodes_of(
    fragments: Sequence[Fragment], spaces: Spaces, rewards: Sequence[Any]
) -> list[SingleAgentEpisode]:
    """Fragments as episodes, in their order."""
    return [episode_of(f, spaces, r) for f, r in zip(fragments, rewards, strict=True)]
