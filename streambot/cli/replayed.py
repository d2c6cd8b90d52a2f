"""What `simulate` or `replay` is asked to replay makes sense: bars, a recording, or a run to go on with."""

from __future__ import annotations

from typing import Any

from streambot.domain.errors import UsageError


def check_scenario(scenario: str | None, named: str | None, data: list[str] | None) -> None:
    """Bars are given with `--data`, and what is replayed is said once."""
    said = scenario or named
    if scenario is not None and named is not None:
        raise UsageError(f"two scenarios, {scenario} and {named}", hint="give one")
    if said is not None and said.lower().endswith(_BAR_FILES):
        raise UsageError(f"{said} is a file of bars, not a scenario", hint=f"--data {said}")
    if said is not None and data:
        raise UsageError(
            f"a scenario ({said}) and --data both say what to replay", hint="leave one of them out"
        )


def check_recording(flags: dict[str, Any]) -> None:
    """What is replayed is said once, and a recording is replayed as it is."""
    if flags["from_run"] is None:
        if flags["from_broker"] is not None:
            raise UsageError("which run is replayed?", where="--from-broker", hint="--from-run RUN")
        if flags["policy"] == "recorded":
            raise UsageError(
                "the policy `recorded` gives the orders of a recording",
                where="--policy",
                hint="--from-run RUN names it",
            )
        return
    given = [name for name in _OF_BARS if flags[name] is not None]
    if given:
        from streambot.domain.config import SETTINGS

        names = ", ".join(SETTINGS[name].flag for name in given)
        raise UsageError(
            f"--from-run and {names} both say what to replay",
            hint="a recording is replayed as it is: leave one of them out",
        )


_OF_BARS = (
    "data", "scenario", "instruments", "registry", "infer_instruments", "from", "to", "timeframe",
    "bar_path", "quote_side", "round_prices",
)  # fmt: skip


def check_resume(flags: dict[str, Any], what: str = "run") -> None:
    """What is resumed keeps its settings; only how fast it goes on may be said anew."""
    given = [name for name, value in flags.items() if value is not None and name not in _RESUMABLE]
    if given:
        from streambot.domain.config import SETTINGS

        names = ", ".join(SETTINGS[name].flag for name in given)
        raise UsageError(
            f"a resumed {what} keeps its settings: {names} cannot be given with --resume",
            hint="--speed and --gaps may be changed; for all else start a new run",
        )


_BAR_FILES = (".csv", ".parquet", ".pq", ".csv.gz", ".txt", ".tsv")
_RESUMABLE = frozenset({"speed", "gaps", "runs_dir"})
