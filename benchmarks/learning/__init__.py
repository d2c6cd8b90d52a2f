"""Proof of learning: claims about the agents, each tested on synthetic markets against controls."""
