"""`VectorTradingEnv`: N environments in one compiled call, as Gymnasium's `VectorEnv`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from streambot.domain.errors import UsageError
from streambot.engine.decode import REASONS
from streambot.env.config import ActionLayout
from streambot.env.core import Core
from streambot.env.fields import FIRST_BUY, observation_fields
from streambot.env.reward import TERMS
from streambot.env.settings import make_config
from streambot.env.shell import action_space, ask, events_of, observation_space, refuse_action
from streambot.env.world import (
    CAUSES,
    FOUND_END,
    FOUND_NO_ACTION,
    FOUND_REJECTION,
    RESET_AT_NEXT_STEP,
    RESET_BY_CALL,
    RESET_IN_STEP,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streambot.domain.events import EngineEvent
    from streambot.env.fields import ObservationField
    from streambot.env.sources import Source

Observations = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
_RESET_WHEN = {
    AutoresetMode.NEXT_STEP: RESET_AT_NEXT_STEP,
    AutoresetMode.SAME_STEP: RESET_IN_STEP,
    AutoresetMode.DISABLED: RESET_BY_CALL,
}
_REASONS = np.array([None, *(reason.value for reason in REASONS)], dtype=object)
_INDEX = np.dtype(np.int64)
_PAID = tuple(key for name in TERMS for key in (name, f"_{name}"))
_CAUSES = np.array([None, *CAUSES[1:]], dtype=object)


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value > 0)


def _seed(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise UsageError(f"a seed is a whole number from 0 on, not {value!r}")
    return int(value)


class VectorTradingEnv(VectorEnv[Observations, npt.NDArray[Any], npt.NDArray[Any]]):
    """N accounts over shared data; environment i draws its own episodes of the seed.

    Environment i is `TradingEnv(source, actor=actor, slot=i)`: the same seed gives the same episodes,
    observations, rewards and fills.

    Args:
        source: the data.
        num_envs: N.
        actor: number of this process among those that collect with one seed.
        autoreset_mode: when an episode that ended is followed by a new one, as Gymnasium says.
        copy: hand out copies of observations and masks; else they change with the next step.
        settings: see `env.settings.NAMES`.

    Raises:
        ConfigError: a setting that is unknown or wrong.
        DataError: the data hold no episode.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        source: Source,
        num_envs: int = 1,
        *,
        actor: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        **settings: Any,  # noqa: ANN401  # by name, checked by `make_config`
    ) -> None:
        if not _is_count(num_envs):
            raise UsageError(f"{num_envs} environments: at least one")
        self.config = make_config(settings)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space(self.config)
        self.single_action_space = action_space(self.config)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._source, self._actor, self._copy = source, actor, copy
        self._open()

    def _open(self) -> None:
        config = self.config
        core = Core(
            self._source.open(config.features),
            config,
            self.num_envs,
            actor=self._actor,
            autoreset=_RESET_WHEN[self.autoreset_mode],
        )
        self.core = core
        self._seeded = False
        # Views and names that are the same at every step.
        self._terminated = core.terminated.view(np.bool_)
        self._truncated = core.truncated.view(np.bool_)
        self._rejections = core.rejections.view(np.bool_)
        self._found = 0
        joint = config.actions is ActionLayout.JOINT
        self._alike = (self.num_envs,) if joint else ()
        self._everybody = np.ones(self.num_envs, np.bool_)
        self._everybody.flags.writeable = False
        self._paid = dict.fromkeys(_PAID, self._everybody)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: of all environments, or one each; None: their sequences go on.
            options: those of `TradingEnv.reset`, for all; `reset_mask`, bool [N]: only where true.

        Raises:
            StreambotError: there is no such episode.
        """
        asked = dict(options or {})
        where = self._where(asked.pop("reset_mask", None))
        self._sow(seed, where)
        for i in np.flatnonzero(where).tolist():
            ask(self.core, i, asked)
        self.core.reset(where)
        self._found = self._met()
        return self._observations(), self._infos()

    def _met(self) -> int:
        """What a step would have said of the environments as they stand, as `FOUND_…`."""
        core = self.core
        ended = FOUND_END if core.envs["ended"].any() else 0
        return ended | (FOUND_REJECTION if core.reasons.any() else 0)

    def _where(self, mask: object) -> Flags:
        if mask is None:
            return self._everybody
        where = np.asarray(mask)
        if where.dtype != np.bool_ or where.shape != (self.num_envs,) or not where.any():
            raise UsageError(f"`reset_mask` is a bool for each of {self.num_envs} environments")
        return where

    def _sow(self, seed: int | Sequence[int | None] | None, where: Flags) -> None:
        core = self.core
        if seed is None:
            if self._seeded:
                return
            seed = int(self.np_random.integers(2**62))
        if isinstance(seed, (int, np.integer)):
            self._np_random_seed = _seed(seed)
            self._np_random = np.random.default_rng(_seed(seed))
            for i in range(self.num_envs):
                if where[i] or not core.envs[i]["key"]:
                    core.seed(i, int(seed))
        elif isinstance(seed, (str, bytes)) or not hasattr(seed, "__len__"):
            raise UsageError(f"a seed is a whole number, or one for each environment, not {seed!r}")
        else:
            if len(seed) != self.num_envs:
                raise UsageError(f"{len(seed)} seeds for {self.num_envs} environments")
            for i, own in enumerate(seed):
                if where[i] and (own is not None or not core.envs[i]["key"]):
                    drawn = int(self.np_random.integers(2**62)) if own is None else own
                    core.seed(i, _seed(drawn))
        self._seeded = True

    def step(
        self, actions: npt.NDArray[Any]
    ) -> tuple[Observations, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """One step of every environment.

        Args:
            actions: joint indices [N], or with `actions="multi"` [N, 2].

        Returns:
            Observations, rewards, terminated, truncated, and infos: those of `TradingEnv.step` as
            arrays. Where an episode has ended, the autoreset mode says what follows.

        Raises:
            InvalidAction: what is no action.
            ResetNeeded: an episode has ended and nobody began a new one.
        """
        core = self.core
        if not self._seeded:
            raise ResetNeeded("no episode has begun: call reset()")
        if self._found & FOUND_END and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded("an episode has ended: reset it, with `reset_mask` in the options")
        core.actions[:] = self._indices(actions)
        found = core.step()
        if found == FOUND_NO_ACTION:
            raise refuse_action(actions, self.config)
        self._found = found
        if found & FOUND_END and self.autoreset_mode is AutoresetMode.SAME_STEP:
            return self._begin_again(core.envs["ended"] != 0)
        return (
            self._observations(),
            core.rewards.copy(),
            self._terminated.copy(),
            self._truncated.copy(),
            self._infos(),
        )

    def _begin_again(
        self, ended: Flags
    ) -> tuple[Observations, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """The step that ended episodes, with the first observations of those that follow."""
        core = self.core
        rewards = core.rewards.copy()
        terminated, truncated = (
            core.terminated.view(np.bool_).copy(), core.truncated.view(np.bool_).copy(),
        )  # fmt: skip
        last, final = np.full(self.num_envs, None, object), self._infos()
        final["action_mask"] = core.masks.copy()  # also where the observations are not copied
        for i in np.flatnonzero(ended).tolist():
            last[i] = core.observations[i].copy()
        core.reset(ended)
        self._found = self._met()
        infos = self._infos()
        # What the step was paid for belongs to the step; the masks to the observation.
        infos |= {name: final[name] for name in ("reward_terms", "_reward_terms")}
        infos |= {"final_obs": last, "_final_obs": ended.copy()}
        infos |= {"final_info": final, "_final_info": ended.copy()}
        return self._observations(), rewards, terminated, truncated, infos

    def _indices(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if (
            actions.__class__ is np.ndarray
            and actions.dtype == _INDEX
            and actions.shape == self._alike
        ):
            return actions  # as learners give them; the compiled step looks at their range
        given = np.asarray(actions)
        if given.dtype.kind in "iu":
            given = given.astype(np.int64)  # what comes in bytes must not be counted in bytes
        multi = self.config.actions is ActionLayout.MULTI
        shape = (self.num_envs, 2) if multi else (self.num_envs,)
        if given.shape != shape or given.dtype.kind not in "iu":
            raise refuse_action(actions, self.config)
        if not multi:
            return given
        most = self.config.max_quantity
        kind, size = given[:, 0], given[:, 1]
        if kind.min() < 0 or kind.max() > 3 or size.min() < 0 or size.max() >= most:
            raise refuse_action(actions, self.config)
        # HOLD 0, BUY 1, SELL 2, CLOSE 3, as `fields.joint_index` says for one.
        bought, sold = FIRST_BUY + size, FIRST_BUY + most + size
        return np.choose(kind, [np.zeros_like(size), bought, sold, np.ones_like(size)])

    def _observations(self) -> Observations:
        return self.core.observations.copy() if self._copy else self.core.observations

    def _infos(self) -> dict[str, Any]:
        core, everybody = self.core, self._everybody
        paid: dict[str, Any] = self._paid.copy()
        paid.update(zip(TERMS, core.terms.T.copy(), strict=True))
        infos = {
            "action_mask": core.masks.copy() if self._copy else core.masks,
            "_action_mask": everybody,
            "reward_terms": paid,
            "_reward_terms": everybody,
            "equity": core.equity.copy(),
            "_equity": everybody,
        }
        if self._found & FOUND_REJECTION:
            infos["rejected"] = _REASONS.take(core.reasons)
            infos["_rejected"] = self._rejections.copy()
        if self._found & FOUND_END:
            envs = core.envs
            infos["end_reason"], infos["_end_reason"] = _CAUSES[envs["cause"]], envs["ended"] != 0
        return infos

    @property
    def observation_fields(self) -> tuple[ObservationField, ...]:
        """Every number of an observation: where it stands, its name, group and meaning."""
        return observation_fields(self.config.window, self.config.features)

    def events(self, i: int) -> list[EngineEvent]:
        """Fills, rejections, expiries, settlements and breaches of the last step of environment i."""
        return events_of(self.core, i)

    def action_masks(self) -> Flags:
        """Legal joint actions, bool [N, actions]."""
        return self.core.masks.astype(np.bool_)

    def __getstate__(self) -> dict[str, Any]:
        """Settings, and the episodes as they stand: memory that is mapped does not travel."""
        left = {
            "core",
            "_terminated",
            "_truncated",
            "_rejections",
            "_everybody",
            "_paid",
            "_seeded",
            "_found",
        }
        kept = {name: value for name, value in self.__dict__.items() if name not in left}
        return {**kept, "_state": self.core.snapshot(), "_was_seeded": self._seeded}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the data again, and go on from the episodes as they stood."""
        snapshot, seeded = state.pop("_state"), state.pop("_was_seeded")
        self.__dict__.update(state)
        self._open()
        self.core.restore(snapshot)
        self._seeded = seeded
        self._found = self._met()
