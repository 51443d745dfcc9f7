"""The tests of a variant, run several times before and after its change: what turns, what holds, what nobody can judge. Owns no change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.tasks.factory.draft import Tested
from trunkline.tasks.factory.language import Environment, Language, Results

REPEATS = 2


@dataclass(frozen=True)
class Bench:
    """Where the tests of one project run."""

    language: Language
    """Runs them."""
    environment: Environment
    """In this."""
    files: tuple[str, ...]
    """These."""
    timeout_s: float
    """Of one run."""

    async def run(self, *trees: Path, files: Sequence[str] = ()) -> Results:
        """Over trees that lie over each other, later ones on top. Raises SandboxError."""
        return await self.language.run(self.environment, trees, files or self.files, timeout_s=self.timeout_s)

    async def several(self, *trees: Path, first: Sequence[Results] = (), repeats: int = REPEATS) -> tuple[Results, ...]:
        """As many runs as it takes, those that there are already included; fewer if one says nothing."""
        runs = list(first)
        while len(runs) < repeats and not any(run.complaint for run in runs):
            runs.append(await self.run(*trees))
        return tuple(runs)


def compare(before: Sequence[Results], after: Sequence[Results]) -> Tested:
    """What several runs of each say. A test that is not there before, though its file can be loaded, is a new one."""
    turning, holding, new, quarantined = [], [], [], {}
    faults = {file for run in before for file in run.faults}
    for name in sorted({name for run in (*before, *after) for name in run.outcomes}):
        was, becomes = ({run.outcomes.get(name, "missing") for run in runs} for runs in (before, after))
        if becomes != {"passed"}:
            if "passed" in becomes or len(becomes) > 1:
                quarantined[name] = f"{' or '.join(sorted(becomes))} after the change"
        elif "passed" in was and len(was) > 1:
            quarantined[name] = f"{' or '.join(sorted(was))} before the change"
        elif was == {"passed"}:
            holding.append(name)
        else:
            turning.append(name)
            if was == {"missing"} and name.partition("::")[0] not in faults:
                new.append(name)
    return Tested(tuple(turning), tuple(holding), tuple(new), quarantined)
