"""`TradingEnv`: one instrument, one account, one step a bar, as Gymnasium's `Env`."""

from __future__ import annotations

from operator import index
from struct import Struct
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded

from streambot.domain.errors import UsageError
from streambot.engine.decode import REASONS
from streambot.engine.slots import word
from streambot.env.config import ActionLayout
from streambot.env.core import Core
from streambot.env.fields import joint_index, observation_fields
from streambot.env.history import History
from streambot.env.reward import TERMS
from streambot.env.settings import make_config
from streambot.env.shell import action_space, events_of, observation_space, refuse_action
from streambot.env.venues import EngineVenue, LiveSource
from streambot.env.world import CAUSES, ENV, FOUND_END, FOUND_NO_ACTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streambot.domain.events import EngineEvent
    from streambot.domain.instruments import Instrument
    from streambot.env.fields import ObservationField
    from streambot.env.sources import Source
    from streambot.env.venues import Venue

Observation = npt.NDArray[np.float32]


_ENDED, _CAUSE = word(ENV, "ended"), word(ENV, "cause")
_unpack_terms = Struct(f"{len(TERMS)}d").unpack_from
_WHY = (None, *(reason.value for reason in REASONS))


def _plain(array: Any) -> memoryview:  # noqa: ANN401  # arrays are buffers, whatever mypy thinks
    """The numbers of an array as Python's own."""
    return memoryview(array)


class TradingEnv(gymnasium.Env[Observation, Any]):
    """Trade one instrument from one close to the next; the engine is the one of the stream task.

    An order decided at a bar's close acts at the first tick of the instrument's next bar. What the
    mask calls illegal is still handed to the engine, which rejects it with a reason, as it does on
    the stream: nothing happens, and `info["rejected"]` says why.

    Args:
        source: the data, or a run that is going on (`LiveSource`).
        render_mode: `rgb_array`, `human`, or None.
        actor: number of this process among those that collect with one seed.
        slot: number of this environment among those of the actor.
        settings: see `env.settings.NAMES`.

    Raises:
        ConfigError: a setting that is unknown or wrong.
        DataError: the data hold no episode.

    Attributes:
        config: the settings.
        observation_fields: every number of an observation.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # as Gymnasium declares it
        "render_modes": ["human", "rgb_array"],
        "render_fps": 10,
    }

    def __init__(
        self,
        source: Source | LiveSource,
        *,
        render_mode: str | None = None,
        actor: int = 0,
        slot: int = 0,
        **settings: Any,  # noqa: ANN401  # by name, checked by `make_config`
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"no render mode `{render_mode}`: human, rgb_array or None")
        self.render_mode = render_mode
        self._source, self._actor, self._slot = source, actor, slot
        if isinstance(source, LiveSource):
            self.config, self.venue = source.connect(settings)
        else:
            self.config = make_config(settings)
            self.venue = self._in_process(source)
        self.observation_space = observation_space(self.config)
        self.action_space = action_space(self.config)
        self._look()

    def _in_process(self, source: Source) -> Venue:
        config = self.config
        segments = source.open(config.features)
        return EngineVenue(Core(segments, config, actor=self._actor, first_slot=self._slot))

    def _look(self) -> None:
        """Where the numbers of a step stand."""
        config, core = self.config, self.venue.core
        self.core = core
        self._seeded = False
        self._joint = config.actions is ActionLayout.JOINT
        # Plain numbers of records and arrays, without the cost of numpy's scalars.
        self._actions, self._rewards = _plain(core.actions), _plain(core.rewards)
        self._terms, self._words = _plain(core.terms[0]), _plain(core.envs.view(np.int64))
        self._terminated, self._truncated = _plain(core.terminated), _plain(core.truncated)
        self._equity, self._reasons = _plain(core.equity), _plain(core.reasons)
        self._observation, self._mask = core.observations[0], core.masks[0]
        self._over = True
        self._run = self.venue.step
        self._history = History(core) if self.render_mode is not None else None
        self._window: Any = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin the next episode of this seed, or the one that `options` name.

        Args:
            seed: begins the sequence of episodes anew; without one ever, the sequence is a random one.
            options: `instrument`, `bar` or `start`, `bars`; see `env.shell.ask`.

        Returns:
            The observation at the close that the episode begins with, and the info of `step`.

        Raises:
            StreambotError: there is no such episode.
        """
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            drawn = seed if seed is not None else int(self.np_random.integers(2**62))
            self.core.seed(0, drawn)
            self._seeded = True
        self.venue.begin(options)
        self._over = False
        if self._history is not None:
            self._history.begin()
            if self.render_mode == "human":
                self.render()
        return self._observation.copy(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Answer the close that was shown, and go on to the next one.

        Args:
            action: a joint index, or with `actions="multi"` the pair of kind and lots - 1.

        Returns:
            Observation, reward, terminated, truncated, and info: `action_mask`, `reward_terms` by
            name, `equity` in the instrument's currency, `rejected`, the reason or None, and at the
            end of an episode `end_reason`.

        Raises:
            InvalidAction: what is no action.
            ResetNeeded: the episode has ended, or none has begun.
        """
        if self._over:
            raise ResetNeeded("the episode has ended, or none has begun: call reset()")
        if self._joint:
            try:
                # Memory of integers takes whole numbers, and nothing else.
                self._actions[0] = action
            except (TypeError, ValueError):
                raise refuse_action(action, self.config) from None
        else:
            self._actions[0] = self._index(action)
        found = self._run()
        if found:
            if found == FOUND_NO_ACTION:
                raise refuse_action(action, self.config)
            self._over = (found & FOUND_END) != 0
        if self._history is not None:
            self._history.note()
            if self.render_mode == "human":
                self.render()
        return (
            self._observation.copy(),
            self._rewards[0],
            self._terminated[0] != 0,
            self._truncated[0] != 0,
            self._info(),
        )

    def _index(self, action: Any) -> int:  # noqa: ANN401  # whatever a learner answers
        """Joint index of a pair of kind and size."""
        try:
            kind, size = (index(part) for part in action)
        except (TypeError, ValueError):
            raise refuse_action(action, self.config) from None
        if not (0 <= kind < 4 and 0 <= size < self.config.max_quantity):
            raise refuse_action(action, self.config)
        return joint_index(kind, size, self.config.max_quantity)

    def _info(self) -> dict[str, Any]:
        # Written out: a dictionary of names that are known takes half the time of one made of pairs.
        core, idleness, realized, overtrading, trail, early, termination = _unpack_terms(
            self._terms
        )
        info = {
            "action_mask": self._mask.copy(),
            "reward_terms": {
                "core": core,
                "idleness": idleness,
                "realized_profit": realized,
                "overtrading": overtrading,
                "trail": trail,
                "early_close": early,
                "termination": termination,
            },
            "equity": self._equity[0],
            "rejected": _WHY[self._reasons[0]],
        }
        if self._over:
            info["end_reason"] = CAUSES[self._words[_CAUSE]]
        return info

    @property
    def instrument(self) -> Instrument:
        """What the episode trades."""
        return self.core.instrument_of(0)

    @property
    def observation_fields(self) -> tuple[ObservationField, ...]:
        """Every number of an observation: where it stands, its name, group and meaning."""
        return observation_fields(self.config.window, self.config.features)

    @property
    def events(self) -> list[EngineEvent]:
        """Fills, rejections, expiries, settlements and breaches of the last step."""
        return events_of(self.core, 0)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Legal joint actions, as learners that mask ask for them."""
        return np.asarray(self._mask, np.bool_)

    def render(self) -> Any:  # noqa: ANN401  # an image, or nothing
        """Price, trades, trailing stop and equity of the episode so far.

        Returns:
            uint8 [height, width, 3] with `rgb_array`; None with `human`, which shows a window.
        """
        if self._history is None:
            return None
        from streambot.env.render import Window, draw  # noqa: PLC0415  # brings a plotting library

        if self.render_mode == "rgb_array":
            return draw(self._history)
        if self._window is None:
            self._window = Window()
        self._window.show(self._history)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        self.venue.close()
        if self._window is not None:
            self._window.close()
            self._window = None

    def __getstate__(self) -> dict[str, Any]:
        """Settings, and the episode as it stands: memory that is mapped does not travel.

        Raises:
            UsageError: it trades a run that is going on: that has one place.
        """
        if isinstance(self._source, LiveSource):
            raise UsageError(
                "an environment on a running run cannot be sent to another process",
                hint="make it there",
            )
        kept = {
            name: value
            for name, value in self.__dict__.items()
            if name in {"render_mode", "config", "observation_space", "action_space", "spec"}
            or name in {"_source", "_actor", "_slot", "_np_random", "_np_random_seed"}
        }
        return {**kept, "_state": self.core.snapshot(), "_was_seeded": self._seeded}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the data again, and go on from the episode as it stood."""
        snapshot, seeded = state.pop("_state"), state.pop("_was_seeded")
        self.__dict__.update(state)
        assert not isinstance(self._source, LiveSource)  # noqa: S101  # see `__getstate__`
        self.venue = self._in_process(self._source)
        self._look()
        self.core.restore(snapshot)
        self._seeded = seeded
        self._over = self._words[_ENDED] != 0
        if self._history is not None:
            self._history.begin()
