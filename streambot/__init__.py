"""streambot: an event-driven streaming simulator for trading.

Bars become ticks, ticks become fills and P&L, exactly, at any speed. `docs/concepts.md` is the
way in; the rules of the market are in `docs/market-rules.md`.
"""

__version__ = "0.1.0"
