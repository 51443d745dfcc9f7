"""Advantages, losses, the optimiser step, its process. Owns no task and no agent."""
