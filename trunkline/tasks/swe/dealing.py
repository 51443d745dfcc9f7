"""What stands at one place of a test in its copies. Owns which places do and the dealing of values; which of them bite, calibration finds.

    probes that were tried and those that bit ─► settle ─► one probe for a place where any value bites, all that bit for another
    the probes of one function, for each sheet ─► deal ─► one place; a stretch of its ladder, each value as often as another

The true value is at any rank of what is dealt, anew for each sheet: who guesses right once has learned nothing.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from trunkline.tasks.swe.nearby import RUNGS, stretch
from trunkline.tasks.swe.perturb import HOLE, Probe, ladder_of
from trunkline.tasks.swe.sites import Function, find_sites
from trunkline.tasks.swe.syntax import parse_expression

_T = TypeVar("_T")
_MOST = RUNGS
"""Values beside the true one."""
_STEPS = frozenset(range(-RUNGS, RUNGS + 1)) - {0}


def settle(tried: Iterable[Probe], bit: Iterable[Probe]) -> list[Probe]:
    """What verdicts use of the probes that bit, in their order.

    Where the result must equal a constant and each value that was tried bit, any value will: one probe, to be drawn. If one did not,
    as in an approximate comparison, only what bit is known to bite.
    """
    num_tried: dict[tuple[str, int], int] = defaultdict(int)
    for probe in tried:
        num_tried[probe.function, probe.site] += 1
    found: list[Probe] = []
    for (function, site), probes in _by_place(bit).items():
        drawn = _drawn(probes) if len(probes) == num_tried[function, site] else None
        found += [drawn] if drawn else probes
    return found


def usable(probes: Iterable[Probe]) -> list[Probe]:
    """Without those that are never dealt, as the same function has a better place."""
    by_function: dict[str, list[list[Probe]]] = defaultdict(list)
    for (function, _), place in _by_place(probes).items():
        by_function[function].append(place)
    return [probe for places in by_function.values() for place in places if _kind(place) == max(map(_kind, places)) for probe in place]


def hides_answer(probes: Iterable[Probe]) -> bool:
    """Whether copies of this function can be dealt among which nothing but the answer tells the true one."""
    return any(_is_even(place) for place in _by_place(probes).values())


def deal(probes: Sequence[Probe], function: Function | None, copies: int, used: set[int], rng: random.Random) -> list[Probe | None]:
    """Copies of one function: changes of one place, and the true one (None), each as often as another as far as that goes.

    Args:
        probes: Those of the function.
        function: Itself; None if it cannot be copied.
        copies: How many.
        used: Places that other sheets use; one is added.
        rng: Draws.
    """
    if not probes or copies < 2 or function is None:
        return [None]
    values: list[Probe | None] = [None, *_variants(probes, function, min(copies - 1, _MOST), used, rng)]
    rng.shuffle(values)
    dealt = [values[place % len(values)] for place in range(copies)]
    rng.shuffle(dealt)
    return dealt


def _variants(probes: Sequence[Probe], function: Function, most: int, used: set[int], rng: random.Random) -> list[Probe]:
    """Of the best place: one that hides the answer, that every right solution notices, with many values, not used in another sheet."""
    places = {site: place for (_, site), place in _by_place(probes).items()}

    def worth(site: int) -> tuple[tuple[bool, int], int, bool]:
        place = places[site]
        return _kind(place), most if place[0].is_drawn else min(len(place), most), site not in used

    best = max(worth(site) for site in places)
    site = rng.choice([site for site in sorted(places) if worth(site) == best])
    used.add(site)
    place = places[site]
    if place[0].is_drawn:
        return _draw(place[0], function, most, rng)
    by_step = {probe.step: probe for probe in place}
    return _stretch(by_step, most, rng) or rng.sample(place, min(most, len(place)))


def _kind(place: Sequence[Probe]) -> tuple[bool, int]:
    """Of the best kind of a function's places one is dealt."""
    return _is_even(place), {"negation": 0, "raises": 1}.get(place[0].kind, 3 if place[0].is_expected else 2)


def _is_even(place: Sequence[Probe]) -> bool:
    """Whether the true value may be at any rank among the others, and does not stand out."""
    return not any(probe.stands_out for probe in place) and (place[0].is_drawn or {probe.step for probe in place} >= _STEPS)


def _draw(probe: Probe, function: Function, most: int, rng: random.Random) -> list[Probe]:
    sites = find_sites(function)
    if probe.site >= len(sites) or sites[probe.site].kind != "constant":
        raise ValueError(f"{probe.function} has no constant at place {probe.site}; the test has changed, calibrate again")
    by_step = {
        step: probe.model_copy(
            update={"step": step, "replacement": repr(value), "fails": tuple(name.replace(HOLE, str(value)) for name in probe.fails)}
        )
        for step, value in ladder_of(sites[probe.site], rng).rungs
    }
    if not by_step:
        raise ValueError(f"{probe.function} has at place {probe.site} nothing that can be drawn; the test has changed, calibrate again")
    return _stretch(by_step, most, rng) or rng.sample(list(by_step.values()), min(most, len(by_step)))


def _stretch(by_step: Mapping[int, _T], most: int, rng: random.Random) -> list[_T]:
    """Side by side on the ladder; [] if some are missing: what is left would lie to one side of the true value too often."""
    return [by_step[step] for step in stretch(rng, most)] if by_step.keys() >= _STEPS else []


def _drawn(probes: Sequence[Probe]) -> Probe | None:
    """The one that stands for these; None if not any value would do."""
    first = probes[0]
    if not (first.is_exact and first.step):
        return None
    if any(probe.fails != first.fails for probe in probes):
        if (fails := _with_holes(probes)) is None:
            return None
    else:
        fails = first.fails
    return first.model_copy(update={"replacement": "", "step": 0, "fails": fails})


def _with_holes(probes: Sequence[Probe]) -> tuple[str, ...] | None:
    """What fails, if the names of these tests differ in nothing but the value; None if that is not so."""
    if any(len(probe.fails) != 1 for probe in probes):
        return None
    values = [str(ast.literal_eval(parse_expression(probe.replacement))) for probe in probes]
    names = [probe.fails[0] for probe in probes]
    start = -1
    while values[0] and (start := names[0].find(values[0], start + 1)) >= 0:
        name = names[0][:start] + HOLE + names[0][start + len(values[0]) :]
        if all(name.replace(HOLE, value) == own for value, own in zip(values, names, strict=True)):
            return (name,)
    return None


def _by_place(probes: Iterable[Probe]) -> dict[tuple[str, int], list[Probe]]:
    found: dict[tuple[str, int], list[Probe]] = defaultdict(list)
    for probe in probes:
        found[probe.function, probe.site].append(probe)
    return dict(found)
