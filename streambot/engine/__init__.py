"""The rules of the market as compiled state machines over slots (`docs/market-rules.md`).

`kernel` holds the rules of one tick and one barrier; `drive` runs it over ticks or bars;
`slots` is the state, whose bytes are the snapshot; `backtesting` is the engine that a person uses.
"""
