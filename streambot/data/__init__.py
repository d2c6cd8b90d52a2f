"""Bars from files: read, checked, put on the tick grid, and turned into the ticks of a run."""
