"""The user's folder for what is slow to make again: models, facts, certificates. Owns where it is, not what lies in it."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """$TRUNKLINE_HOME, else ~/.cache/trunkline; it may not exist yet."""
    configured = os.environ.get("TRUNKLINE_HOME")
    return Path(configured) if configured else Path.home() / ".cache" / "trunkline"
