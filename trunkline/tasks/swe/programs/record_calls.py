"""Runs pytest on a solved workspace and writes which tests passed and what the changed functions answered. Judges nothing.

    argv[1]: {"packages": [...], "roots": [...], "functions": {PATH: [NAME, ...]}, "changed": {PATH: [NAME, ...]}, "arguments": [...]}

What runs here is trusted: the task's own solution under the task's own tests. Sources call `record` at their end. Of calls out of the
tests those are kept that come to a changed function, with arguments and answer if both can be written down and the arguments are left as
they were.
"""

from __future__ import annotations

import enum
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

MAX_CALLS = 2000
RUNNING: list[bool] = []
"""Of the call out of a test that is running, if one is: whether it has come to a changed function."""
SETTINGS: dict[str, Any] = {}
CALLS: dict[str, dict[str, dict[str, str]]] = {}
MAX_DEPTH = 12
IMMUTABLE = ("decimal", "fractions", "datetime", "pathlib", "uuid")
BRACKETS: dict[type, str] = {tuple: "({})", list: "[{}]", set: "{{{}}}", frozenset: "<frozenset {}>"}
PLAIN = (type(None), bool, int, float, complex, str, bytes)


def record(path: str) -> None:
    """Wraps the functions of the source that calls this."""
    module = sys._getframe(1).f_globals
    changed = SETTINGS["changed"]
    for name in SETTINGS["functions"][path]:
        *owners, last = name.split(".")
        owner = None
        for part in owners:
            owner = vars(owner)[part] if owner is not None else module[part]
        found: Any = module.get(last) if owner is None else vars(owner).get(last)
        wrapped: Any
        is_changed = not changed or name in changed.get(path, ())
        recorded = functools.partial(recording, path=path, name=name, is_changed=is_changed)
        if isinstance(found, (staticmethod, classmethod)):
            wrapped = type(found)(recorded(found.__func__))
        elif isinstance(found, property) and found.fget is not None:
            wrapped = property(recorded(found.fget), found.fset, found.fdel)
        elif callable(found):
            wrapped = recorded(found)
        else:
            continue
        if owner is None:
            module[last] = wrapped
        else:
            setattr(owner, last, wrapped)


def recording(function: Callable[..., Any], *, path: str, name: str, is_changed: bool) -> Callable[..., Any]:
    """The function, with its calls kept."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if RUNNING:
            RUNNING[0] |= is_changed
            return function(*args, **kwargs)
        before = written((args, sorted(kwargs.items())))
        RUNNING.append(is_changed)
        answer: str | None = None
        try:
            value = function(*args, **kwargs)
            answer = expression(("returns", value))
            return value
        except Exception as error:
            answer = expression(("raises", error))
            raise
        finally:
            if RUNNING.pop():
                is_whole = answer is not None and before == written((args, sorted(kwargs.items())))
                keep(before if is_whole else None, answer or "")

    def keep(arguments: str | None, answer: str) -> None:
        table = CALLS.setdefault(path, {}).setdefault(name, {})
        if arguments is not None and len(table) < MAX_CALLS:
            table.setdefault(arguments, answer)

    return call


def written(value: Any, depth: int = 0) -> str | None:
    """A value as text that says its exact types; an object of the workspace by its class and fields; None if it can't be written."""
    if type(value) in PLAIN:
        return repr(value)
    if depth > MAX_DEPTH:
        return None
    if type(value) is dict:
        value = list(value.items())
        pairs = [(written(key, depth + 1), written(item, depth + 1)) for key, item in value]
        return None if any(None in pair for pair in pairs) else "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
    if type(value) in BRACKETS:
        parts = [written(item, depth + 1) for item in value]
        is_set = type(value) in (set, frozenset)
        if None in parts or (is_set and not parts):
            return None
        text = ", ".join(sorted(map(str, parts)) if is_set else map(str, parts))
        return BRACKETS[type(value)].format(f"{text}," if type(value) is tuple and len(parts) == 1 else text)
    if isinstance(value, enum.Enum) or type(value).__module__ in IMMUTABLE:
        return f"<{value!r}>"
    if is_of_workspace(type(value)):
        names: Any = getattr(value, "__dataclass_fields__", None) or getattr(value, "__dict__", ())
        fields = written([(name, getattr(value, name, None)) for name in sorted(names)], depth + 1)
        return None if fields is None else f"<{type(value).__qualname__} {fields}>"
    return None


def is_of_workspace(kind: type) -> bool:
    """Whether a class is the project's own."""
    return str(getattr(sys.modules.get(kind.__module__), "__file__", "")).startswith("/workspace/")


def expression(value: Any, depth: int = 0) -> str | None:
    """A value as an expression for it, in which named(module, qualname) is a class and built(class, args, fields) an object of it."""
    kind = type(value)
    if depth > MAX_DEPTH or (kind in (float, complex) and value - value != 0):
        return None
    if kind in PLAIN:
        return repr(value)
    if kind is dict:
        pairs = expression(list(value.items()), depth + 1)
        return None if pairs is None else f"dict({pairs})"
    if kind in BRACKETS:
        parts = [expression(item, depth + 1) for item in value]
        return None if None in parts else f"{kind.__name__}([{', '.join(map(str, parts))}])"
    if kind.__module__ in IMMUTABLE:
        return f"__import__({kind.__module__!r}).{without_prefix(repr(value), f'{kind.__module__}.')}"
    if isinstance(value, enum.Enum):
        return f"named({kind.__module__!r}, {kind.__qualname__!r})[{value.name!r}]"
    if isinstance(value, Exception) or is_of_workspace(kind):
        names: Any = getattr(value, "__dataclass_fields__", None) or getattr(value, "__dict__", ())
        fields = expression({name: getattr(value, name, None) for name in names}, depth + 1)
        args = expression(value.args if isinstance(value, Exception) else (), depth + 1)
        return None if fields is None or args is None else f"built(named({kind.__module__!r}, {kind.__qualname__!r}), {args}, {fields})"
    return None


def without_prefix(text: str, prefix: str) -> str:
    """str.removeprefix, which 3.8 does not have."""
    return text[len(prefix) :] if text.startswith(prefix) else text


class Passed:
    """A plugin that keeps which tests passed in all phases."""

    def __init__(self) -> None:
        self.outcomes: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One phase of one test."""
        is_good = report.outcome == "passed" and not hasattr(report, "wasxfail")
        self.outcomes[report.nodeid] = self.outcomes.get(report.nodeid, True) and is_good


def main() -> int:
    """Tells all at the end."""
    SETTINGS.update(json.loads(sys.argv[1]))
    sys.path[:0] = SETTINGS["packages"]
    import pytest

    sys.path[:0] = [os.path.join("/workspace", root) for root in SETTINGS["roots"]]
    passed = Passed()
    options = ["-p", "no:cacheprovider", "-q", "--rootdir=/workspace", "--tb=short"]
    status = pytest.main([*options, *SETTINGS["arguments"]], plugins=[passed])
    said = {"passed": [test for test, is_good in passed.outcomes.items() if is_good], "calls": CALLS}
    with open(int(os.environ["TRUNKLINE_REPORT_FD"]), "w") as report:
        json.dump(said, report)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
