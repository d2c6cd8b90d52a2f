"""Makes `gymnasium.make("streambot/Trading-v0")` work."""

from __future__ import annotations

import gymnasium

ENV_ID = "streambot/Trading-v0"


def register() -> None:
    """Tell Gymnasium where the environments are made; they are imported when one is."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=ENV_ID,
            entry_point="streambot.wiring.environments:trading_env",
            vector_entry_point="streambot.wiring.environments:vector_trading_env",
        )
