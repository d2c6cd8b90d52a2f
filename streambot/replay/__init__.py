"""Replay: when ticks are published (`pacing`), in which frames (`framing`), and by whom (`service`)."""
