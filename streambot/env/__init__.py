"""Gymnasium environments that consume the streams: the engine of the stream task, one step a bar.

Importing this package tells Gymnasium of them, which is how Gymnasium finds environments:

    import gymnasium
    import streambot.env

    env = gymnasium.make("streambot/Trading-v0", data="bars.parquet")
"""

from streambot.env.registration import ENV_ID, register

register()

__all__ = ["ENV_ID"]
