"""Bars and indicators from ticks: incremental, compiled, without knowledge of the engine."""
