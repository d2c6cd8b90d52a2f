"""Measurements, each beside its floor or limit and at least one peer, as ratios in one run."""
