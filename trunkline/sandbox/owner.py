"""Names of processes that own sandboxes: what a killed one has left is told from what a living one uses. Removes nothing."""

from __future__ import annotations

import os
from pathlib import Path


def own_name() -> str:
    """PID-START of this process."""
    return f"{os.getpid()}-{_started_at(os.getpid())}"


def has_ended(owner: str) -> bool:
    """Whether the process of this name, or of one that begins with it and a dash, runs no more; False for other names."""
    pid, _, rest = owner.partition("-")
    return bool(rest) and pid.isdigit() and _started_at(int(pid)) != rest.partition("-")[0]


def _started_at(pid: int) -> str:
    """Tells a process from a later one with its number: ticks from boot on, for clocks are set; '' if there is none. proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""
