"""The configuration of a simulation, in one place for those who use it.

The types are in `domain.simulation_config` and `domain.replay_settings`, the text forms in
`domain.setting_table`, the layers (flag > environment > `streambot.yaml` > default) in
`domain.layers`, Kafka's security in `domain.kafka_settings`.
"""

from __future__ import annotations

from streambot.domain.durations import format_duration, parse_duration, parse_timeframe
from streambot.domain.kafka_settings import (
    KafkaSecurity,
    SaslMechanism,
    Secret,
    SecurityProtocol,
    parse_bootstrap,
)
from streambot.domain.layers import (
    CONFIG_FILE,
    Resolved,
    config_yaml,
    find_config,
    resolve,
    shown,
)
from streambot.domain.replay_settings import (
    MAX_SPEED,
    BarPath,
    BridgePath,
    Gaps,
    Moment,
    OhlcPath,
    Speed,
    parse_bar_path,
    parse_gaps,
    parse_moment,
    parse_speed,
)
from streambot.domain.setting_table import SETTINGS, Form, Setting, parse_capital, parse_name
from streambot.domain.simulation_config import (
    BrokerChoice,
    Capital,
    OnBreach,
    QuoteSide,
    SimulationConfig,
)

__all__ = [
    "CONFIG_FILE",
    "MAX_SPEED",
    "SETTINGS",
    "BarPath",
    "BridgePath",
    "BrokerChoice",
    "Capital",
    "Form",
    "Gaps",
    "KafkaSecurity",
    "Moment",
    "OhlcPath",
    "OnBreach",
    "QuoteSide",
    "Resolved",
    "SaslMechanism",
    "Secret",
    "SecurityProtocol",
    "Setting",
    "SimulationConfig",
    "Speed",
    "config_yaml",
    "find_config",
    "format_duration",
    "parse_bar_path",
    "parse_bootstrap",
    "parse_capital",
    "parse_duration",
    "parse_gaps",
    "parse_moment",
    "parse_name",
    "parse_speed",
    "parse_timeframe",
    "resolve",
    "shown",
]
