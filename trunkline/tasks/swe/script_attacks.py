"""Attacks on tasks that a script judges, beside the corpus: they go for the reward file. Owns where they lie; attacks.py says what one is.

Those of the corpus go for pytest, and look for the reward file of a usual set-up; these, in attacks/scripts/, look for Harbor's, and wait
for no test runner. A task that is judged by its tests has no reward file, so there they mean nothing.
"""

from __future__ import annotations

import functools
import hashlib
import tomllib
from importlib.resources import files

from trunkline.tasks.swe.attacks import Attack


@functools.cache
def load_script_attacks() -> tuple[Attack, ...]:
    """All of them, by name. An invalid file is our mistake: pydantic's ValidationError."""
    return tuple(Attack.model_validate(tomllib.loads(text)) for _, text in sorted(_texts().items()))


def script_attacks_digest() -> str:
    """SHA-256 over names and texts."""
    digest = hashlib.sha256()
    for name, text in sorted(_texts().items()):
        digest.update(f"{name} {len(text)}\n{text}".encode())
    return digest.hexdigest()


@functools.cache
def _texts() -> dict[str, str]:
    folder = files("trunkline.tasks.swe") / "attacks" / "scripts"
    return {entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".toml")}
