"""Agents of our own and the launcher of others. Owns no model and no verdict."""
