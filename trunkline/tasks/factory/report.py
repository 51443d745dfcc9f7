"""The yield of a mining: counts a stage, rejections by cause, what it cost. Owns the counting; the lines are the ledger's."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest

from trunkline.tasks.factory.candidate import STAGES, Rejected
from trunkline.tasks.factory.ledger import Entry, Made


@dataclass(frozen=True)
class Yield:
    """What came of some candidates."""

    num_seen: int
    """Changes that the source named, candidates or not."""
    num_candidates: int
    """Of these, candidates: changes of source and tests."""
    num_pairs: int
    """Pairs of valid candidates that were tried, to merge them."""
    num_valid: int
    """Candidates that became tasks: built, run, told and written."""
    num_certified: int
    """Of the valid, those with a certificate."""
    num_guessable: int
    """Of the certified, those whose tests can be guessed: no run trains on them unasked."""
    num_tried: int
    """Of the valid, those that certifying was tried on."""
    rejected: Mapping[str, int]
    """'stage: cause' to how many, the most frequent first; of candidates, their variants and pairs, and of changes that are none."""
    variants: Mapping[str, tuple[int, int, int]]
    """Of tasks made of valid ones: name to written, tried, certified."""
    kinds: Mapping[str, int]
    """Kinds of the valid."""
    cpu_s: Mapping[str, float]
    """CPU-seconds by stage, in all."""
    validation_cpu_s: tuple[float, ...]
    """Of each candidate, all stages but certify, ascending."""
    pairs_cpu_s: tuple[float, ...]
    """Of each pair, all stages but certify, ascending."""
    certify_cpu_s: tuple[float, ...]
    """Of each candidate and pair whose tasks were certified, ascending."""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Yield:
        """Counts."""
        entries = tuple(entries)
        pairs = [entry for entry in entries if entry.merges]
        changes = [entry for entry in entries if not entry.merges]
        candidates = [entry for entry in changes if not _is_no_candidate(entry)]
        own = [made for entry in entries for made in entry.made if made.variant == "mined"]
        spent = {stage: sum(entry.cpu_s.get(stage, 0.0) for entry in entries) for stage in STAGES}
        certify = [entry.cpu_s["certify"] for entry in (*candidates, *pairs) if entry.cpu_s.get("certify")]
        return cls(
            num_seen=len(changes),
            num_candidates=len(candidates),
            num_pairs=len(pairs),
            num_valid=sum(entry.is_valid for entry in candidates),
            num_certified=sum(made.certified is True for made in own),
            num_guessable=sum(made.guessable for made in own),
            num_tried=sum(made.certified is not None for made in own),
            rejected=dict(Counter(_words(one) for entry in entries for one in entry.rejected).most_common()),
            variants=_by_variant(entries),
            kinds=dict(Counter(made.kind for made in own).most_common()),
            cpu_s={stage: seconds for stage, seconds in spent.items() if seconds},
            validation_cpu_s=tuple(sorted(_validation(entry) for entry in candidates)),
            pairs_cpu_s=tuple(sorted(map(_validation, pairs))),
            certify_cpu_s=tuple(sorted(certify)),
        )

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"changes seen     {self.num_seen:6,}"
        yield f"candidates       {self.num_candidates:6,}"
        yield f"valid            {self.num_valid:6,}  {_share(self.num_valid, self.num_candidates)} of the candidates"
        if self.num_tried:
            share = _share(self.num_certified, self.num_tried)
            yield f"certified        {self.num_certified:6,}  {share} of the valid; {self.num_guessable} can be guessed"
        for name, (written, tried, certified) in self.variants.items():
            words = f", {certified} of {tried} certified" if tried else ""
            yield f"variants         {written:6,}  {name}{words}"
        if self.num_pairs:
            yield f"pairs tried      {self.num_pairs:6,}"
        if self.kinds:
            yield "kinds            " + ", ".join(f"{number} {kind}" for kind, number in self.kinds.items())
        measured = (
            ("validation", "a candidate", self.validation_cpu_s),
            ("merging", "a pair", self.pairs_cpu_s),
            ("certifying", "a candidate" if not self.num_pairs else "a candidate or pair", self.certify_cpu_s),
        )
        for name, unit, spent in measured:
            if spent:
                yield f"CPU-s, {name} {statistics.median(spent):.1f} {unit} (median), {sum(spent):.0f} in all"
        for words, number in self.rejected.items():
            yield f"rejected         {number:6,}  {words}"

    def as_dict(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "seen": self.num_seen,
            "candidates": self.num_candidates,
            "valid": self.num_valid,
            "valid_interval": _interval(self.num_valid, self.num_candidates),
            "certified": self.num_certified,
            "guessable": self.num_guessable,
            "certifying_tried": self.num_tried,
            "certified_interval": _interval(self.num_certified, self.num_tried),
            "kinds": dict(self.kinds),
            "variants": {name: dict(zip(("written", "tried", "certified"), counts, strict=True)) for name, counts in self.variants.items()},
            "pairs_tried": self.num_pairs,
            "rejected": dict(self.rejected),
            "cpu_s": {stage: round(seconds, 1) for stage, seconds in self.cpu_s.items()},
            "validation_cpu_s_median": _median(self.validation_cpu_s),
            "validation_cpu_s": [round(seconds, 1) for seconds in self.validation_cpu_s],
            "pairs_cpu_s_median": _median(self.pairs_cpu_s),
            "certify_cpu_s_median": _median(self.certify_cpu_s),
        }


def _is_no_candidate(entry: Entry) -> bool:
    return not entry.made and bool(entry.rejected) and all(one.stage == "select" for one in entry.rejected)


def _validation(entry: Entry) -> float:
    return sum(seconds for stage, seconds in entry.cpu_s.items() if stage != "certify")


def _words(rejected: Rejected) -> str:
    return f"{rejected.stage}: {rejected.cause}"


def _by_variant(entries: Sequence[Entry]) -> dict[str, tuple[int, int, int]]:
    made: dict[str, list[Made]] = {}
    for one in (one for entry in entries for one in entry.made if one.variant != "mined"):
        made.setdefault(one.variant, []).append(one)
    tried = {name: [one for one in all_of if one.certified is not None] for name, all_of in made.items()}
    return {name: (len(all_of), len(tried[name]), sum(one.certified is True for one in tried[name])) for name, all_of in made.items()}


def _share(part: int, whole: int) -> str:
    if not whole:
        return "—"
    low, high = _interval(part, whole) or (0.0, 1.0)
    return f"{part / whole:.0%} [{low:.0%}, {high:.0%}]"


def _interval(part: int, whole: int) -> tuple[float, float] | None:
    """Wilson's, 95%."""
    if not whole:
        return None
    found = binomtest(part, whole).proportion_ci(method="wilson")
    return round(float(found.low), 4), round(float(found.high), 4)


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 1) if values else None
