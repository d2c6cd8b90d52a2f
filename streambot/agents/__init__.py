"""Policies: experts, the gate over them, and how they learn and adapt. Torch, and nothing else."""
