"""The verdict on one attempt: right, and grounded in what the tools returned to it. Owns no facts."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.tasks.lookup.world import LookupTools, Retrieval
from trunkline.types import Reward, Work

_SHOWN_CHARACTERS = 60


class GroundedVerifier:
    """Earns 1 iff the answer is exactly the expected text, every needed fact was returned to this attempt, within budget."""

    def __init__(self, tools: LookupTools, *, needed: Sequence[Retrieval], expected: str) -> None:
        self._tools = tools
        self._needed = tuple(needed)
        self._expected = expected

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        """One reward, 'outcome'. Outer blanks of the answer do not count; everything else does."""
        given = work.answer.strip()
        returned = self._tools.retrievals
        missing = [fact for fact in self._needed if fact not in returned]
        within_budget = self._tools.num_calls <= self._tools.call_budget
        earned = given == self._expected and not missing and within_budget
        evidence = (
            f"answer {_shown(given)}, expected {_shown(self._expected)}; returned {_listed(returned)}; missing {_listed(missing)}; "
            f"{self._tools.num_calls} of {self._tools.call_budget} calls"
        )
        return (Reward("outcome", float(earned), evidence),)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _listed(facts: Sequence[Retrieval]) -> str:
    return ", ".join(map(str, facts)) or "nothing"
