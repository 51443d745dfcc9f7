"""Trunkline: agent-native reinforcement learning. Owns the version number and nothing else."""

__version__ = "0.1.0"
