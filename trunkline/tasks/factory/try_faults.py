"""Runs in a sandbox: which calls of a function each version of its file answers as it should. A program of its own, no imports of ours.

    python -I -S -B try_faults.py < {"sources": [text, ...], "calls": [expression, ...], "answers": [literal, ...], "seconds": 2}

Without "answers" it prints what the first source answers: a list of texts (repr), null where it raises. With them, for each source a
list of true and false, or null if it took too long. Each source runs in a process of its own.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Reads the request and prints the answer."""
    asked = json.load(sys.stdin)
    if "answers" not in asked:
        json.dump(_in_child(lambda: _answers(asked["sources"][0], asked["calls"]), asked["seconds"]), sys.stdout)
        return
    expected = [ast.literal_eval(answer) for answer in asked["answers"]]
    holds = [_in_child(lambda s=source: _holds(s, asked["calls"], expected), asked["seconds"]) for source in asked["sources"]]
    json.dump(holds, sys.stdout)


def _namespace(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "tried"}
    exec(compile(source, "tried.py", "exec"), names)
    return names


def _answers(source: str, calls: list[str]) -> list[str | None]:
    names = _namespace(source)
    found: list[str | None] = []
    for call in calls:
        try:
            found.append(repr(eval(call, names)))
        except Exception:  # noqa: BLE001 - any error of the function is an answer that no test asks for
            found.append(None)
    return found


def _holds(source: str, calls: list[str], expected: list[Any]) -> list[bool]:
    try:
        names = _namespace(source)
    except Exception:  # noqa: BLE001 - a file that cannot be loaded answers nothing
        return [False] * len(calls)
    found = []
    for call, answer in zip(calls, expected, strict=True):
        try:
            found.append(bool(eval(call, names) == answer))
        except Exception:  # noqa: BLE001 - as a test would fail
            found.append(False)
    return found


def _in_child(work: Any, seconds: int) -> Any:
    """What `work` returns in a process of its own; None if that takes longer or dies."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        signal.alarm(seconds)
        with open(write_fd, "w") as out:
            out.write(json.dumps(work()))
        os._exit(0)
    os.close(write_fd)
    with open(read_fd) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else None


if __name__ == "__main__":
    main()
