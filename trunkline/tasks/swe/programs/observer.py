"""What blind tests call instead of asserting: it sends what they see, as plain data. Owns no expectation: none is in this process.

    see(place, value)          one line {"seen": test, "place": place, "value": plain(value)} of the report
    with raising(place): ...   the same of the exception that the block ends with
    with warning(place): ...   the same of the warnings that it gives

Runs inside, beside the code under test; `plain` is also what the host makes of the literals of a test.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

_MOST_LETTERS = 2000
_MOST_DEPTH = 12
_MOST_ITEMS = 2000
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


def plain(value: object, depth: int = 0) -> Any:
    """JSON that is equal for equal values and tells no identities: numbers that are equal are one, order counts where it does for ==."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**53) <= value <= 2**53 else ["int", _short(f"{value:x}")]
    if isinstance(value, float):
        return _of_float(value)
    if isinstance(value, str):
        return _short(str(value))
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", _short(bytes(value).hex())]
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return _of_collection(value, depth)
    return ["other", type(value).__name__]


def _of_float(value: float) -> Any:
    if math.isnan(value) or math.isinf(value):
        return ["float", repr(value)]
    if value.is_integer() and abs(value) <= 2**53:
        return int(value)
    return ["float", f"{value:.9g}"]


def _of_collection(value: list[Any] | tuple[Any, ...] | dict[Any, Any] | set[Any] | frozenset[Any], depth: int) -> Any:
    if depth == _MOST_DEPTH or len(value) > _MOST_ITEMS:
        return ["large", type(value).__name__, len(value)]
    if isinstance(value, dict):
        return ["dict", sorted(([plain(key, depth + 1), plain(item, depth + 1)] for key, item in value.items()), key=repr)]
    items = [plain(item, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted(items, key=repr)]
    return ["tuple" if isinstance(value, tuple) else "list", items]


def _short(text: str) -> str:
    """Whole, or as much as is sent of a long one and the digest of the rest."""
    text = _ADDRESS.sub("0x", text).encode("utf-8", "backslashreplace").decode()
    if len(text) <= _MOST_LETTERS:
        return text
    return text[:_MOST_LETTERS] + hashlib.sha256(text.encode()).hexdigest()


def raised(error: BaseException) -> list[str]:
    """An exception by the nearest of its kinds that every program knows, since a solution may define its own; and what it says."""
    return ["raised", _builtin(type(error)), _short(str(error))]


def _builtin(kind: type) -> str:
    return next((one.__name__ for one in kind.__mro__ if one.__module__ == "builtins"), "object")


class Raising:
    """Stands in for pytest.raises: any exception ends the block, and is seen."""

    def __init__(self, send: Callable[[int, Any], None], place: int) -> None:
        self.send = send
        self.place = place
        self.value: BaseException | None = None
        self.exception: BaseException | None = None
        self.type: type[BaseException] | None = None

    def __enter__(self) -> Raising:
        """What `as` names."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        """Swallows what a test may expect; that nothing was raised is seen, too, and ends the test."""
        if kind is None or error is None:
            self.send(self.place, ["nothing raised"])
            raise AssertionError("nothing was raised")
        if issubclass(kind, (KeyboardInterrupt, GeneratorExit)) or kind.__module__.startswith("_pytest"):
            return False
        self.value = self.exception = error
        self.type = kind
        self.send(self.place, raised(error))
        return True

    def match(self, pattern: str) -> bool:
        """What is expected of its words is not known here."""
        return True


class Warned(warnings.catch_warnings):
    """Stands in for pytest.warns: all warnings of the block are seen."""

    def __init__(self, send: Callable[[int, Any], None], place: int) -> None:
        super().__init__(record=True)
        self.send = send
        self.place = place
        self.told: list[warnings.WarningMessage] = []

    def __enter__(self) -> Any:
        """What `as` names: the warnings, as they come."""
        self.told = super().__enter__() or []
        warnings.simplefilter("always")
        return self.told

    def __exit__(self, *ended: Any) -> None:
        """An exception goes on its way."""
        super().__exit__(*ended)
        if ended[0] is None:
            found = sorted({(_builtin(one.category), _short(str(one.message))) for one in self.told})
            self.send(self.place, ["warned", [list(one) for one in found]])


def make(send: Callable[[dict[str, Any]], None], current: Callable[[], str]) -> dict[str, Any]:
    """The names that blind tests import; `current` tells which test runs."""

    def send_plain(place: int, value: Any) -> None:
        send({"seen": current(), "place": place, "value": value})

    return {
        "see": lambda place, value: send_plain(place, plain(value)),
        "raising": lambda place: Raising(send_plain, place),
        "warning": lambda place: Warned(send_plain, place),
    }
