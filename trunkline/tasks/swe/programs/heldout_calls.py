"""Observes held-out calls of the code in /workspace and reports what came of each. Owns no comparison: the host has the answers.

    oracle    draws the calls from the task's heldout.py, observes them, reports both
    work      reads the calls from stdin, observes them, reports what came of them

The first half of the calls runs by the real clock, the second half by a later one. What the code under test prints goes nowhere. In
the process of the work nothing that is reported can be believed, nor need it be: only right outcomes are equal to the solution's.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import random
import sys
import time
from types import ModuleType
from typing import Any, cast

_MAX_DEPTH = 40
_MAX_SIZE = 100_000
_CLOCK_TOLERANCE_S = 60.0


class NotPlain(Exception):
    """A value that is no plain data, or too much of it."""


def encode(value: Any) -> Any:
    """Plain data as JSON that keeps exact types, the order of dicts and every bit of floats. Raises NotPlain; subclasses are not plain."""
    return _Encoder().encode(value, 0)


class _Encoder:
    def __init__(self) -> None:
        self.size = 0

    def encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        self.size += 1 + (len(value) if kind in (str, bytes) else value.bit_length() // 8 if kind is int else 0)
        if depth > _MAX_DEPTH or self.size > _MAX_SIZE:
            raise NotPlain(f"deeper than {_MAX_DEPTH} or larger than {_MAX_SIZE:,}")
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return {"int": hex(value)}
        if kind is float:
            return {"float": value.hex()}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is list or kind is tuple:
            return {kind.__name__: [self.encode(item, depth + 1) for item in value]}
        if kind is set or kind is frozenset:
            return {kind.__name__: sorted((self.encode(item, depth + 1) for item in value), key=json.dumps)}
        if kind is dict:
            return {"dict": [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in value.items()]}
        raise NotPlain(f"not plain data: {kind.__name__}")


def decode(told: Any) -> Any:
    """The inverse of encode()."""
    if not isinstance(told, dict):
        return told
    ((kind, content),) = told.items()
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return float.fromhex(content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {decode(key): decode(item) for key, item in content}
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](decode(item) for item in content)


def observe(heldout: ModuleType, told: Any) -> str:
    """What came of one call, as a line of JSON: a value, the type of an exception, or a fault of what was returned."""
    try:
        value = heldout.observe(decode(told))
    except BaseException as error:  # noqa: BLE001 the code under test may raise anything, also to leave
        return json.dumps(["raises", f"{type(error).__module__}.{type(error).__qualname__}"])
    try:
        return json.dumps(["value", encode(value)])
    except NotPlain as error:
        return json.dumps(["fault", str(error)])


def draw_calls(heldout: ModuleType, seed: int, most: int) -> list[Any]:
    """The calls of a seed, encoded, in random order: whatever kinds there are, some of each run by the later clock."""
    rng = random.Random(seed)
    calls = []
    for call in heldout.calls(rng):
        calls.append(encode(call))
        if len(calls) > most:
            raise NotPlain(f"more than {most} calls")
    rng.shuffle(calls)
    return calls


def load(path: str) -> ModuleType:
    """The task's heldout.py."""
    spec = importlib.util.spec_from_file_location("heldout", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["heldout"] = module
    spec.loader.exec_module(module)
    return module


def load_clock(packages: list[str]) -> Any:
    """time_machine.travel. Its compiled part looks the module up by its name, so that the code under test could, too."""
    sys.path += packages
    sys.modules["pytest"] = cast(ModuleType, None)  # time_machine has a plugin for it, which would take longer than all the rest
    import time_machine

    del sys.modules["pytest"], sys.path[-len(packages) :]
    return time_machine.travel


def observe_all(settings: dict[str, Any], calls: list[Any] | None) -> dict[str, Any]:
    """The report: calls (if they were drawn here) and outcomes; or a complaint."""
    try:
        travel = load_clock(settings["packages"])
    except ImportError:
        return {"complaint": "held-out calls need time-machine, which the task's environment does not have"}
    sys.path += settings["roots"]
    try:
        heldout = load(settings["heldout"])
        drawn = draw_calls(heldout, settings["seed"], settings["most"]) if calls is None else calls
    except BaseException as error:  # noqa: BLE001 the same
        words = f": {error}" if calls is None else ""
        return {"complaint": f"heldout.py cannot be used: {type(error).__name__}{words}"[:300]}
    half = len(drawn) // 2
    outcomes = [observe(heldout, told) for told in drawn[:half]]
    later = datetime.datetime.fromisoformat(settings["later"])
    with travel(later, tick=True):
        if abs(time.time() - later.timestamp()) > _CLOCK_TOLERANCE_S:
            return {"complaint": "the clock could not be moved"}
        outcomes += [observe(heldout, told) for told in drawn[half:]]
    return {"outcomes": outcomes} if calls is not None else {"calls": drawn, "outcomes": outcomes}


def main() -> None:
    """Reads, observes, reports, and ends at once: threads and exit hooks of the code under test have no say."""
    settings = json.loads(sys.argv[1])
    report = int(os.environ.pop("TRUNKLINE_REPORT_FD"))
    calls = None if settings["mode"] == "oracle" else json.load(sys.stdin)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(nowhere, fd)
    content = json.dumps(observe_all(settings, calls)).encode()
    with os.fdopen(report, "wb") as file:
        file.write(content)
    os._exit(0)


if __name__ == "__main__":
    main()
