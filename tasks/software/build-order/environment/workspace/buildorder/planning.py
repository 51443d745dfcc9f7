"""Orders targets so that each comes after all that it needs."""

from collections.abc import Iterable

from buildorder.errors import CycleError
from buildorder.graph import Graph


def order(graph: Graph, goals: Iterable[str] | None = None) -> list[str]:
    """The targets that `goals` need (all targets if None), in an order in which they can be built.

    Of the targets that could come next, the alphabetically first does. Raises CycleError if there is no such order.
    """
    part = graph if goals is None else graph.closure(goals)
    waiting = {target: set(part.needs(target)) for target in part.targets}
    done: list[str] = []
    while waiting:
        ready = [target for target in waiting if not waiting[target]]
        if not ready:
            raise CycleError
        target = min(ready)
        del waiting[target]
        for needed in waiting.values():
            needed.discard(target)
        done.append(target)
    return done
