"""Reads rules from text."""

from buildorder.errors import BuildError
from buildorder.graph import Graph


def read_rules(text: str) -> Graph:
    """The graph of rules such as "app: core ui", one a line; text after "#" doesn't count.

    Raises BuildError for a line that is no rule and for a second rule of the same target.
    """
    needs: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        target, colon, needed = line.partition(":")
        target = target.strip()
        if not colon or not target or len(target.split()) > 1:
            raise BuildError(f"line {number} is no rule: {line}")
        if target in needs:
            raise BuildError(f"line {number}: {target} has two rules")
        needs[target] = needed.split()
    return Graph(needs)
