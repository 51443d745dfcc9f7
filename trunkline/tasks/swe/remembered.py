"""Verdicts of one run on work that was judged before: the same changes of the same task. Owns the memory; verdicts are judging.py's."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from trunkline.protocols import Verifier
from trunkline.types import FileChange, Reward, Work

NOTE = "as judged before: "
_MOST = 50_000


@dataclass
class VerdictMemory:
    """The newest verdicts of a run. A failure to judge is not remembered: the next attempt is judged anew."""

    most: int = _MOST
    """Verdicts kept."""
    _kept: OrderedDict[str, tuple[Reward, ...]] = field(default_factory=OrderedDict)
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    def over(self, verifier: Verifier, task_id: str) -> Verifier:
        """The same verifier, asked once for the same work."""
        return _Remembering(self, verifier, task_id)

    async def verdict(self, key: str, verifier: Verifier, work: Work) -> tuple[Reward, ...]:
        """The remembered one, or a new one; attempts that left the same work at the same time wait for one verdict."""
        async with self._turns.setdefault(key, asyncio.Lock()):
            if key in self._kept:
                self._kept.move_to_end(key)
                return tuple(replace(reward, evidence=NOTE + reward.evidence) for reward in self._kept[key])
            rewards = self._kept[key] = await verifier.verify(work)
            while len(self._kept) > self.most:
                oldest, _ = self._kept.popitem(last=False)
                self._turns.pop(oldest, None)
            return rewards


@dataclass(frozen=True)
class _Remembering:
    """Implements `trunkline.protocols.Verifier`."""

    memory: VerdictMemory
    verifier: Verifier
    task_id: str

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        return await self.memory.verdict(f"{self.task_id} {changes_digest(work.changes)}", self.verifier, work)


def changes_digest(changes: Sequence[FileChange]) -> str:
    """SHA-256 over all that a verdict sees of them."""
    digest = hashlib.sha256()
    for change in sorted(changes, key=lambda change: change.path):
        digest.update(repr((change.path, change.kind, change.mode, len(change.content))).encode())
        digest.update(change.content)
    return digest.hexdigest()
