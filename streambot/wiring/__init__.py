"""The one place that names concrete classes: builds a run from its settings and takes it down."""

from streambot.report.progress import Observer, Progress, RunPlan, SilentObserver
from streambot.report.summary import Summary
from streambot.wiring.scenario import scenario_names, with_origins, with_scenario
from streambot.wiring.simulation import run_simulation
from streambot.wiring.stopping import StopRequest

__all__ = [
    "Observer",
    "Progress",
    "RunPlan",
    "SilentObserver",
    "StopRequest",
    "Summary",
    "run_simulation",
    "scenario_names",
    "with_origins",
    "with_scenario",
]
