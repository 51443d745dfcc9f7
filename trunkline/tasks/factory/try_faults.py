"""Runs in a sandbox: which calls of a function each version of its file answers as it should. A program of its own, no imports of ours.

    python -I -S -B try_faults.py < {"mode": "hold", "sources": [text, ...], "calls": [expression, ...], "answers": [literal, ...],
                                     "seconds": 2}

mode      prints
answer    what the first source answers: a list of texts (repr), null where it raises
hold      for each source a list of true and false: which calls it answers so
differ    for each source a list of true and false: which calls it does otherwise than the first, where an exception counts by its type

Null stands for a source that took too long. Each source runs in a process of its own.
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
    sources, calls, seconds = asked["sources"], asked["calls"], asked["seconds"]
    if asked["mode"] == "answer":
        printed = _in_child(lambda: _answers(sources[0], calls), seconds)
    elif asked["mode"] == "hold":
        expected = [ast.literal_eval(answer) for answer in asked["answers"]]
        printed = [_in_child(lambda s=source: _holds(s, calls, expected), seconds) for source in sources]
    else:
        does = [_in_child(lambda s=source: _outcomes(s, calls), seconds) for source in sources]
        printed = [one and does[0] and [mine != right for mine, right in zip(one, does[0], strict=True)] for one in does]
    json.dump(printed, sys.stdout)


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


def _outcomes(source: str, calls: list[str]) -> list[str]:
    try:
        names = _namespace(source)
    except Exception as error:  # noqa: BLE001 - a file that cannot be loaded does the same with all calls
        return [f"raises {type(error).__name__}"] * len(calls)
    found = []
    for call in calls:
        try:
            found.append(f"gives {eval(call, names)!r}")
        except Exception as error:  # noqa: BLE001 - an outcome like any other
            found.append(f"raises {type(error).__name__}")
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
