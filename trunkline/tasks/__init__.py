"""Tasksets, verifiers, certificates. Owns no agent and no model."""
