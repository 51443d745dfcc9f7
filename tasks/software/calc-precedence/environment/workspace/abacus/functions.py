"""What can be called in an expression."""

from collections.abc import Callable
from fractions import Fraction
from math import floor

FUNCTIONS: dict[str, tuple[int, Callable[..., Fraction]]] = {
    "abs": (1, abs),
    "floor": (1, lambda value: Fraction(floor(value))),
    "max": (2, max),
    "min": (2, min),
}
"""Number of arguments and body, by name."""
