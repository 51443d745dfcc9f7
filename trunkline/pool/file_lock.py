"""One process at a time, by a locked file. Owns the waiting; the kernel frees the lock when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_POLL_S = 0.1


def lock_file(path: Path, *, wait_s: float) -> int:
    """Makes and locks `path`; closing the returned descriptor frees it. A holder that is just dying is waited for.

    Raises BlockingIOError if another process still holds it after `wait_s`, any other OSError if it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    ends_at_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > ends_at_s:
                os.close(descriptor)
                raise
            time.sleep(_POLL_S)
