"""How a trained policy does on data, beside controls that know nothing, and how sure that is.

range -> has it seen these bars? -> (adapt on the bars before) -> play -> measures
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streambot.agents.adaptation import as_parameters
from streambot.data.segments import Segments
from streambot.domain.errors import DataError
from streambot.domain.replay_settings import Moment
from streambot.env.config import EnvConfig
from streambot.env.passage import Stretch, stretches
from streambot.env.settings import make_config
from streambot.learning.adapting import Adaptation, adapt, check_finite
from streambot.learning.measures import deflated_sharpe
from streambot.learning.playing import CONTROLS, play, scripted, trained
from streambot.learning.results import Results
from streambot.learning.seen import Seen, Training, behind, seen_of, training_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from streambot.env.sources import Source
    from streambot.learning.playing import Contender
    from streambot.learning.policy import LoadedPolicy

POLICY = "policy"
"""Name of the trained policy among the contenders."""


class Asked(NamedTuple):
    """What an evaluation is asked for.

    Attributes:
        start, end: range of the closes, see `EnvConfig`; both None: what lies behind the training.
        sampled: draw actions; False: the likeliest.
        seed: of everything that is drawn.
        lots: of the controls' orders; None: the most, up to Q, that the capital buys.
        adapt: how the policy is adapted, to stand beside itself; None: not.
        trials: configurations that were tried before this one was chosen, itself included.
    """

    start: Moment | None = None
    end: Moment | None = None
    sampled: bool = False
    seed: int = 0
    lots: int | None = None
    adapt: Adaptation | None = None
    trials: int = 1


class Plan(NamedTuple):
    """What is gone through, and what is known of it before.

    Attributes:
        segments: the data.
        config: of the environment.
        spans: bars of every instrument.
        left_out: symbols with too few bars in the range.
        start, end: the range; None: as far as the data go.
        nothing_behind: the range was to lie behind the training, and no bars do.
        training, seen: what the checkpoint says of its training, and of these bars.
    """

    segments: Segments
    config: EnvConfig
    spans: tuple[Stretch, ...]
    left_out: tuple[str, ...]
    start: Moment | None
    end: Moment | None
    nothing_behind: bool
    training: Training
    seen: Seen

    @property
    def symbols(self) -> tuple[str, ...]:
        """Of the instruments that are gone through."""
        return tuple(self.segments.head.instruments[span.instrument].symbol for span in self.spans)


class Evaluation(NamedTuple):
    """What came of it.

    Attributes:
        results: measures of every contender: `policy`, the adapted one, the controls.
        deflated: see `measures.deflated_sharpe`, of the last trained contender; None: one trial
            only, or it cannot be said.
        judged: name of that contender.
    """

    results: Results
    deflated: float | None
    judged: str


def plan(policy: LoadedPolicy, source: Source, settings: Mapping[str, Any], asked: Asked) -> Plan:
    """Find the bars.

    Args:
        policy: what is evaluated.
        source: the data.
        settings: of the environment, as `make_config` takes them; their range does not count.
        asked: see `Asked`.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the data cannot be used, or have no bars in the range.
    """
    config = make_config(settings)
    segments = source.open(config.features)
    training = training_of(policy.head.about)
    start, end, nothing = asked.start, asked.end, False
    if start is None and end is None:
        start = behind(training)
    found, short = stretches(segments, config, start, end)
    if not found and asked.start is None and asked.end is None and start is not None:
        start, nothing = None, True
        found, short = stretches(segments, config, None, None)
    if not found:
        raise DataError(
            f"no instrument has two bars in the range, with {config.lookback} before the first",
            hint="another range: --from and --to, or none of them",
        )
    return Plan(
        segments, config, tuple(found), tuple(short), start, end, nothing, training,
        seen_of(training, segments, found),
    )  # fmt: skip


def evaluate(
    policy: LoadedPolicy,
    source: Source,
    settings: Mapping[str, Any],
    on: Plan,
    asked: Asked,
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Play, and measure.

    Args:
        policy: what is evaluated; it stays as it is.
        source, settings: as in `plan`.
        on: the plan.
        asked: see `Asked`.
        on_step: told now and then how many steps are done, and of how many.

    Raises:
        ConfigError: the capital does not buy one lot, or the controls cannot have their lots.
        DataError: too few bars to adapt on, or weights that are no numbers.
    """
    agent, sampling = policy.agent, asked.seed if asked.sampled else None
    check_finite(as_parameters(agent.network), "the checkpoint's weights are no numbers")
    contenders: dict[str, Contender] = {POLICY: trained(agent, seed=sampling)}
    judged = POLICY
    if asked.adapt is not None:
        judged = f"adapted {asked.adapt.steps}"
        after = adapt(policy, source, settings, on.segments, on.spans, asked.adapt)
        contenders[judged] = trained(agent, seed=sampling, parameters=after)
    for name in CONTROLS:
        contenders[name] = scripted(name, lots=asked.lots, seed=asked.seed)
    played = play(on.segments, on.config, on.spans, contenders, on_step=on_step)
    results = Results(on.segments, on.spans, played, seed=asked.seed)
    deflated = None
    if asked.trials > 1:
        deflated = deflated_sharpe(results.daily(judged), asked.trials)
    return Evaluation(results, deflated, judged)
