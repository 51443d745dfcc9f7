"""Rounds of self-improvement. Nothing is built here yet."""
