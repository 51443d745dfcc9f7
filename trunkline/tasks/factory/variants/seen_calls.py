"""Runs pytest on a solved workspace and writes with which arguments functions are called on the way to the change. Judges nothing.

    argv[1]: {"packages": [...], "roots": [...], "functions": {PATH: [NAME, ...]}, "changed": {PATH: [NAME, ...]}, "arguments": [...]}

What runs here is trusted: a project's solution under its own tests. Sources call `record` at their end. It has to run under Python 3.8.
"""

import copy
import functools
import itertools
import json
import os
import sys
from types import FunctionType
from typing import Any

MOST_CALLS = 60
"""Of one function."""
MOST_CHARACTERS = 1500
MOST_ITEMS = 300
MOST_DEPTH = 8
PLAIN = (type(None), bool, int, float, str, bytes)
ITERATORS = ("list_iterator", "tuple_iterator", "str_iterator", "str_ascii_iterator", "range_iterator", "list_reverseiterator")
"""They can be looked at by a copy."""
SETTINGS: "dict[str, Any]" = {}
CALLS: "dict[str, dict[str, dict[str, None]]]" = {}
RUNNING: "list[list[bool]]" = []
"""Of each call that is running, whether it has come to a changed function."""


class NotPlain(Exception):
    """A value that cannot be written down."""


def record(path: str) -> None:
    """Wraps the functions of the source that calls this."""
    module = sys._getframe(1).f_globals
    changed = SETTINGS["changed"].get(path, ())
    for name in SETTINGS["functions"][path]:
        *owners, last = name.split(".")
        owner: Any = None
        for part in owners:
            owner = module.get(part) if owner is None else vars(owner).get(part)
        found = (vars(owner) if isinstance(owner, type) else module if not owners else {}).get(last)
        if isinstance(found, FunctionType):
            wrapped = recording(found, path=path, name=name, is_changed=name in changed)
            if owner is None:
                module[last] = wrapped
            else:
                setattr(owner, last, wrapped)


def recording(function: Any, *, path: str, name: str, is_changed: bool) -> Any:
    """The function, with its calls kept if anyone may call it and they come to the change."""
    is_open = "." not in name and not name.startswith("_")

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        table = CALLS.setdefault(path, {}).setdefault(name, {})
        before = told(args, kwargs) if is_open and len(table) < MOST_CALLS else ""
        for one in RUNNING if is_changed else ():
            one[0] = True
        RUNNING.append([is_changed])
        try:
            return function(*args, **kwargs)
        finally:
            if RUNNING.pop()[0] and before:
                table[before] = None

    return call


def told(args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> str:
    """A call as a literal; '' if it cannot be written down."""
    try:
        text = repr((plain(args), {key: plain(value) for key, value in sorted(kwargs.items())}))
    except NotPlain:
        return ""
    return text if len(text) <= MOST_CHARACTERS else ""


def plain(value: Any, depth: int = 0) -> Any:
    """A value of plain data. What is known by a name, and what can only be gone through, is a tuple that says so."""
    kind = type(value)
    if depth > MOST_DEPTH or (kind is float and value - value != 0):
        raise NotPlain
    if kind in PLAIN:
        return value
    if kind in (list, tuple):
        return kind(plain(item, depth + 1) for item in value)
    if kind is dict:
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    if kind in (set, frozenset) and value and kind is set:
        return {plain(item, depth + 1) for item in value}
    if kind is range:
        return ("\0range", value.start, value.stop, value.step)
    if kind.__name__ in ITERATORS:
        return ("\0iter", [plain(item, depth + 1) for item in itertools.islice(copy.copy(value), MOST_ITEMS)])
    if callable(value) and is_known(value):
        return ("\0name", value.__module__, value.__qualname__)
    raise NotPlain


def is_known(value: Any) -> bool:
    """Whether it is found under its name, in a module that is no test's."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    found = sys.modules.get(module or "")
    file = str(getattr(found, "__file__", "") or "")
    is_test = any(part in ("test", "tests", "conftest.py") or part.startswith("test_") for part in file.split("/"))
    return found is not None and module != "__main__" and not is_test and getattr(found, name, None) is value


def main() -> int:
    """Tells all at the end."""
    SETTINGS.update(json.loads(sys.argv[1]))
    sys.path[:0] = SETTINGS["packages"]
    import pytest

    sys.path[:0] = [os.path.join("/workspace", root) for root in SETTINGS["roots"]]
    status = pytest.main(["-p", "no:cacheprovider", "-q", "--rootdir=/workspace", "--tb=no", *SETTINGS["arguments"]])
    found = {path: {name: list(calls) for name, calls in table.items() if calls} for path, table in CALLS.items()}
    with open(int(os.environ["TRUNKLINE_REPORT_FD"]), "w") as report:
        json.dump(found, report)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
