"""Attacks on tasks that a script judges, beside the corpus: they go for the reward file. Owns where they lie; attacks.py says what one is.

Those of the corpus go for pytest, and look for the reward file of a usual set-up; these, in attacks/scripts/, look for Harbor's, and wait
for no test runner. A task that is judged by its tests has no reward file, so there they mean nothing.
"""

from __future__ import annotations

from trunkline.tasks.swe.attacks import Attack, attacks_digest, load_attacks

_FOLDER = ("trunkline.tasks.swe", "attacks/scripts")


def load_script_attacks() -> tuple[Attack, ...]:
    """All of them, by name."""
    return load_attacks(*_FOLDER)


def script_attacks_digest() -> str:
    """SHA-256 over names and texts."""
    return attacks_digest(*_FOLDER)
