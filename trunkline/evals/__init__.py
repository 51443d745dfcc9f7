"""Held-out evaluation, statistics, reports. Owns no training."""
