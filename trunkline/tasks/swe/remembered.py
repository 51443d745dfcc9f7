"""Verdicts on work that was judged before: the same changes of the same task. Owns the memory; verdicts are judging.py's."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from trunkline.kept import KeptTexts, key_of
from trunkline.protocols import Verifier
from trunkline.types import FileChange, Reward, Work

NOTE = "as judged before: "


@dataclass
class VerdictMemory:
    """Verdicts of a run, or of all runs that share a file. A failure to judge is not remembered: the next attempt is judged anew."""

    kept: KeptTexts = field(default_factory=lambda: KeptTexts.open(None))
    """Under the judge's name and the changes."""
    is_shared: bool = False
    """Whether other runs have the same."""
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Of a file that several runs share; None: of one run. Raises ConfigError."""
        return cls(KeptTexts.open(path), is_shared=path is not None)

    def over(self, verifier: Verifier, judge: str) -> Verifier:
        """The same verifier, asked once for the same work. `judge` names all that its verdicts depend on besides the work."""
        return _Remembering(self, verifier, judge)

    async def verdict(self, key: str, verifier: Verifier, work: Work) -> tuple[Reward, ...]:
        """The remembered one, or a new one; attempts that left the same work at the same time wait for one verdict."""
        async with self._turns.setdefault(key, asyncio.Lock()):
            text = self.kept.get(key)
            if text is not None:
                return tuple(replace(reward, evidence=NOTE + reward.evidence) for reward in map(_reward, json.loads(text)))
            rewards = await verifier.verify(work)
            self.kept.put(key, json.dumps([asdict(reward) for reward in rewards]))
            return rewards


@dataclass(frozen=True)
class _Remembering:
    """Implements `trunkline.protocols.Verifier`."""

    memory: VerdictMemory
    verifier: Verifier
    judge: str

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        return await self.memory.verdict(key_of(self.judge, changes_digest(work.changes)), self.verifier, work)


def _reward(content: dict[str, object]) -> Reward:
    return Reward(**content)  # type: ignore[arg-type]  # as it was written


def changes_digest(changes: Sequence[FileChange]) -> str:
    """SHA-256 over all that a verdict sees of them."""
    digest = hashlib.sha256()
    for change in sorted(changes, key=lambda change: change.path):
        digest.update(repr((change.path, change.kind, change.mode, len(change.content))).encode())
        digest.update(change.content)
    return digest.hexdigest()
