"""What blind tests call instead of asserting: it sends what they see, as plain data. Owns no expectation: none is in this process.

    see(place, value)          one line {"seen": test, "place": place, "value": plain(value)} of the report
    with raising(place): ...   the same of the exception that the block ends with

Runs inside, beside the code under test; `plain` is also what the host makes of the literals of a test.
"""

import hashlib
import math
import re

_MOST_LETTERS = 2000
_MOST_DEPTH = 12
_MOST_ITEMS = 2000
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


def plain(value, depth=0):
    """JSON that is equal for equal values and tells no identities: numbers that are equal are one, order counts where it does for ==."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**53) <= value <= 2**53 else ["int", _short(hex(value))]
    if isinstance(value, float):
        return _of_float(value)
    if isinstance(value, str):
        return _short(str(value))
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", _short(bytes(value).hex())]
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return _of_collection(value, depth)
    return ["other", type(value).__name__]


def _of_float(value):
    if math.isnan(value) or math.isinf(value):
        return ["float", repr(value)]
    if value.is_integer() and abs(value) <= 2**53:
        return int(value)
    return ["float", f"{value:.9g}"]


def _of_collection(value, depth):
    if depth == _MOST_DEPTH or len(value) > _MOST_ITEMS:
        return ["large", type(value).__name__, len(value)]
    if isinstance(value, dict):
        return ["dict", sorted(([plain(key, depth + 1), plain(item, depth + 1)] for key, item in value.items()), key=repr)]
    items = [plain(item, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted(items, key=repr)]
    return ["tuple" if isinstance(value, tuple) else "list", items]


def _short(text):
    """Whole, or as much as is sent of a long one and the digest of the rest."""
    text = _ADDRESS.sub("0x", text).encode("utf-8", "backslashreplace").decode()
    if len(text) <= _MOST_LETTERS:
        return text
    return text[:_MOST_LETTERS] + hashlib.sha256(text.encode()).hexdigest()


def raised(kind):
    """An exception by the nearest of its kinds that every program knows: a solution may define its own."""
    return ["raised", next((one.__name__ for one in kind.__mro__ if one.__module__ == "builtins"), "object")]


class Raising:
    """Stands in for pytest.raises: any exception ends the block, and is seen."""

    def __init__(self, see, place):
        self.see = see
        self.place = place
        self.value = self.exception = self.type = None

    def __enter__(self):
        """What `as` names."""
        return self

    def __exit__(self, kind, error, traceback):
        """Swallows what a test may expect; that nothing was raised is seen, too, and ends the test."""
        if kind is None:
            self.see(self.place, ["nothing raised"])
            raise AssertionError("nothing was raised")
        if issubclass(kind, (KeyboardInterrupt, GeneratorExit)) or kind.__module__.startswith("_pytest"):
            return False
        self.value = self.exception = error
        self.type = kind
        self.see(self.place, raised(kind))
        return True

    def match(self, pattern):
        """What is expected of its words is not known here."""
        return True


def make(send, current):
    """The names that blind tests import; `current` tells which test runs."""

    def see(place, value):
        send({"seen": current(), "place": place, "value": plain(value) if not _is_sent(value) else value})

    return {"see": see, "raising": lambda place: Raising(see, place)}


def _is_sent(value):
    return type(value) is list and bool(value) and value[0] in ("raised", "nothing raised")
