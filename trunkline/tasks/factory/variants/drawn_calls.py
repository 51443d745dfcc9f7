"""Held-out calls of functions: arguments like those that the project's own tests pass, drawn anew. Owns no answer; the solution gives them.

A task has this file as its tests/heldout.py, with what its tests were seen to pass in SEEN. It has to run under Python 3.8.
"""

import collections.abc
import enum
import importlib
import itertools
from typing import Any

SEEN: "dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]" = {}
"""'module:function' to the calls of it."""
NUM_CALLS = 240
MOST_ITEMS = 300
MOST_DEPTH = 8
EDGE = 2
"""How far a number or a length may be beyond what was seen."""
DIGITS = 12
"""Of floats that count: the same sum in another order is the same answer."""


def calls(rng: Any) -> Any:
    """Calls that the code answers with a value, none twice: what it refuses, another right solution may refuse otherwise."""
    drawn = set()
    for name in sorted(SEEN):
        seen = SEEN[name]
        for _ in range(NUM_CALLS // len(SEEN)):
            args, kwargs = rng.choice(seen)
            alike = [other for other in seen if len(other[0]) == len(args) and set(other[1]) == set(kwargs)]
            call = (
                name,
                tuple(like(rng, [other[0][place] for other in alike]) for place in range(len(args))),
                {key: like(rng, [other[1][key] for other in alike]) for key in sorted(kwargs)},
            )
            if repr(call) in drawn:
                continue
            drawn.add(repr(call))
            try:
                observe(call)
            except Exception:  # noqa: BLE001 whatever it is
                continue
            yield call


def observe(call: Any) -> Any:
    """What the function answers, as plain data."""
    name, args, kwargs = call
    module, _, function = name.partition(":")
    wanted = getattr(importlib.import_module(module), function)
    return plain(wanted(*real(args), **real(kwargs)))


def real(value: Any) -> Any:
    """With functions in place of their names, and with iterators."""
    if is_sign(value):
        sign, *rest = value
        if sign == "\0range":
            return range(*rest)
        if sign == "\0iter":
            return iter(real(rest[0]))
        found: Any = importlib.import_module(rest[0])
        for part in rest[1].split("."):
            found = getattr(found, part)
        return found
    if type(value) in (list, tuple):
        return type(value)(real(item) for item in value)
    return {key: real(item) for key, item in value.items()} if type(value) is dict else value


def is_sign(value: Any) -> bool:
    """Whether this tuple stands for something that is no plain data."""
    return type(value) is tuple and len(value) > 1 and type(value[0]) is str and value[0].startswith("\0")


def like(rng: Any, values: "list[Any]") -> Any:
    """A value such as these: of a type that is among them, as large and as long."""
    base = rng.choice(values)
    alike = [value for value in values if type(value) is type(base)]
    if rng.random() < 0.2 or base is None or type(base) is bool:
        return base
    if is_sign(base):
        lists = [value[1] for value in alike if value[0] == "\0iter"]
        return ("\0iter", like(rng, lists)) if base[0] == "\0iter" else base
    if type(base) is int:
        return rng.randint(min(alike) - (EDGE if min(alike) < 0 else 0), max(alike) + EDGE)
    if type(base) is float:
        return round(rng.uniform(min(alike), max(alike)), 3)
    if type(base) in (str, bytes):
        return text_like(rng, base, alike)
    if type(base) in (list, tuple, set, frozenset):
        return items_like(rng, base, alike)
    if type(base) is dict:
        return dict_like(rng, base, alike)
    return base


def length_like(rng: Any, alike: "list[Any]") -> int:
    """As long as these, or a little longer; empty only if one of them is."""
    lengths = [len(value) for value in alike]
    return int(rng.randint(min(lengths), max(lengths) + EDGE))


def text_like(rng: Any, base: Any, alike: "list[Any]") -> Any:
    """Of the same letters."""
    letters = [base[place : place + 1] for base in alike for place in range(len(base))]
    if rng.random() < 0.5 and base:
        place = rng.randrange(len(base))
        return base[:place] + rng.choice(letters) + base[place + rng.randint(0, 1) :]
    return type(base)().join(rng.choice(letters) for _ in range(length_like(rng, alike) if letters else 0))


def items_like(rng: Any, base: Any, alike: "list[Any]") -> Any:
    """Of such items; of tuples that are all equally long each item of such as stand in its place."""
    alike = [value for value in alike if not is_sign(value)]
    lengths = {len(value) for value in alike}
    if type(base) is tuple and len(lengths) == 1 and len(alike) > 1:
        return tuple(like(rng, [value[place] for value in alike]) for place in range(len(base)))
    items = [item for value in alike for item in (sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value)]
    made = [like(rng, items) for _ in range(length_like(rng, alike) if items else 0)]
    if rng.random() < 0.3:
        try:
            made.sort()
        except TypeError:
            pass
    return type(base)(made)


def dict_like(rng: Any, base: Any, alike: "list[Any]") -> Any:
    """With such keys and such values; where all have the same keys each with values of such as stand there."""
    if len({frozenset(value) for value in alike}) == 1 and len(alike) > 1:
        return {key: like(rng, [value[key] for value in alike]) for key in base}
    pairs = [pair for value in alike for pair in value.items()]
    found = {}
    for _ in range(length_like(rng, alike) if pairs else 0):
        key = rng.choice(pairs)[0]
        found[key] = like(rng, [other for known, other in pairs if known == key])
    return found


def plain(value: Any, depth: int = 0) -> Any:
    """Any value as plain data: what is no plain data by the name of its type and what it holds."""
    kind = type(value)
    if depth > MOST_DEPTH:
        return "..."
    if kind is float:
        return float(format(value, f".{DIGITS}g"))
    if value is None or kind in (bool, int, str, bytes):
        return value
    if kind in (list, tuple):
        return kind(plain(item, depth + 1) for item in value)
    if kind is dict:
        return {
            plain(key, depth + 1) if not isinstance(key, (tuple, frozenset)) else key: plain(item, depth + 1) for key, item in value.items()
        }
    if kind in (set, frozenset):
        return (kind.__name__, sorted(repr(plain(item, depth + 1)) for item in value))
    return (kind.__name__, held(value, depth))


def held(value: Any, depth: int) -> Any:
    """What an object holds."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (int, float, str, bytes)):
        return str(value)
    if isinstance(value, collections.abc.Mapping):
        return [(plain(key, depth + 1), plain(item, depth + 1)) for key, item in itertools.islice(value.items(), MOST_ITEMS)]
    if isinstance(value, (set, frozenset, collections.abc.Set)):
        return sorted(repr(plain(item, depth + 1)) for item in value)
    if isinstance(value, collections.abc.Iterable):
        return [plain(item, depth + 1) for item in itertools.islice(value, MOST_ITEMS)]
    if tells_itself(value):
        return repr(value)
    fields = getattr(value, "__dict__", {})
    return [(name, plain(fields[name], depth + 1)) for name in sorted(fields)]


def tells_itself(value: Any) -> bool:
    """Whether its repr says what it is, and not where it lies."""
    return " at 0x" not in repr(value)
