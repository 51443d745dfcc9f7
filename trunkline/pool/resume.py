"""Reads what is left to do out of the journal, relative to a restored checkpoint. Owns the rule; opens and writes nothing.

    journal ──► who was consumed for which step ──► after the checkpoint: delivered again, in the same order
            └─► who was submitted, which attempts ended ──► finished: kept; missing: run again; killed calls: counted

No group is trained twice in the history that a checkpoint stands for, and no ended episode is run again. The steps of a run
are the same in every incarnation, because a step that was on record once is delivered again exactly so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trunkline.errors import ConfigError
from trunkline.pool.backlog import Backlog, KilledCalls, Redelivery, UnfinishedGroup
from trunkline.pool.config import PoolConfig
from trunkline.pool.journal_reader import AttemptRecord, JournalReader
from trunkline.pool.retries import is_run_again
from trunkline.types import Group


@dataclass(frozen=True)
class _History:
    """Who was consumed, over all incarnations."""

    groups_by_step: Mapping[int, Sequence[str]]
    """Policy step -> the groups trained for it, in order."""
    degenerate_by_step: Mapping[int, Sequence[str]]
    """Policy step that was current -> groups discarded meanwhile."""
    consumed: frozenset[str]
    """All of them."""

    @property
    def last_step(self) -> int:
        """The last step that groups were taken for."""
        return max(self.groups_by_step, default=0)


def read_backlog(record: JournalReader, *, step: int, config: PoolConfig) -> Backlog:
    """What a pool with `config` has to go on with when the weights of policy step `step` are restored.

    Raises ConfigError if the journal cannot have been written by such a run: it lacks records, or the pool's sizes differ.
    """
    history = _read_history(record)
    _check_history(record, history, step, config)
    submitted = _submitted(record)
    attempts: dict[str, dict[int, AttemptRecord]] = defaultdict(dict)
    for attempt in record.attempts():
        attempts[attempt.group_id][attempt.attempt] = attempt
    steps = range(step + 1, history.last_step + 1)
    left = [group_id for group_id in submitted if group_id not in history.consumed]
    finished = [group_id for group_id in left if _is_finished(attempts[group_id], config)]
    unfinished = [group_id for group_id in left if group_id not in finished]
    return Backlog(
        step=step,
        num_submitted=len(submitted),
        redeliveries=tuple(
            Redelivery(
                number, _groups(record, history.groups_by_step[number]), _groups(record, history.degenerate_by_step.get(number - 1, ()))
            )
            for number in steps
        ),
        degenerate=_groups(record, history.degenerate_by_step.get(max(step, history.last_step), ())),
        finished=_groups(record, finished),
        unfinished=tuple(_unfinished(record.read_group(group_id), attempts[group_id], config) for group_id in unfinished),
        counts={**_history_counts(history, step), **_attempt_counts(attempts, frozenset(unfinished), config)},
        killed=sum(record.killed().values(), KilledCalls()),
    )


def _read_history(record: JournalReader) -> _History:
    """A group that is on record more than once was delivered again, for the same step: its first place counts."""
    groups_by_step: dict[int, list[str]] = defaultdict(list)
    degenerate_by_step: dict[int, list[str]] = defaultdict(list)
    seen: dict[str, tuple[int, str]] = {}
    for group_id, policy_step, reason in record.consumed():
        if seen.setdefault(group_id, (policy_step, reason)) != (policy_step, reason):
            raise ConfigError(
                f"{record.path}: group {group_id} is on record as {reason} at step {policy_step} and before as {seen[group_id]}; "
                "the journal is not of one run, so it cannot be resumed"
            )
        by_step = groups_by_step if reason == "trained" else degenerate_by_step
        if group_id not in by_step[policy_step]:
            by_step[policy_step].append(group_id)
    groups_by_step = {number: groups for number, groups in groups_by_step.items() if groups}
    return _History(groups_by_step, degenerate_by_step, frozenset(seen))


def _check_history(record: JournalReader, history: _History, step: int, config: PoolConfig) -> None:
    if history.last_step < step:
        raise ConfigError(
            f"{record.path} knows steps up to {history.last_step}, but the checkpoint is of step {step}: records were lost "
            "(is the -wal file beside it missing or cut?); restore it from a copy, or start a new run from that checkpoint's folder"
        )
    for number in range(step + 1, history.last_step + 1):
        found = len(history.groups_by_step.get(number, ()))
        if found != config.window.groups_per_step:
            raise ConfigError(
                f"{record.path} has {found} groups for step {number}, but a step is made of {config.window.groups_per_step} "
                "(pool.window.groups_per_step); the journal is damaged, or the recipe is another run's"
            )


def _submitted(record: JournalReader) -> list[str]:
    submissions = record.submissions()
    if [index for index, _ in submissions] != list(range(len(submissions))):
        raise ConfigError(f"{record.path} lacks some of the groups 0..{submissions[-1][0]}; it is damaged, so it cannot be resumed")
    return [group_id for _, group_id in submissions]


def _groups(record: JournalReader, group_ids: Sequence[str]) -> tuple[Group, ...]:
    return tuple(record.read_group(group_id) for group_id in group_ids)


def _is_over(attempt: AttemptRecord, config: PoolConfig) -> bool:
    """Ended for good: judged, failed on the agent's side, or out of retries."""
    return not is_run_again(attempt.status, attempt.boundary) or attempt.num_tries > config.infra_retries


def _is_finished(attempts: Mapping[int, AttemptRecord], config: PoolConfig) -> bool:
    return sum(_is_over(attempt, config) for attempt in attempts.values()) == config.group_size


def _unfinished(group: Group, attempts: Mapping[int, AttemptRecord], config: PoolConfig) -> UnfinishedGroup:
    over = {number for number, attempt in attempts.items() if _is_over(attempt, config)}
    kept = tuple(episode for episode in group.episodes if episode.attempt in over)
    num_tries = {number: attempt.num_tries for number, attempt in attempts.items() if number not in over}
    return UnfinishedGroup(replace(group, episodes=kept), config.group_size - len(kept), num_tries)


def _history_counts(history: _History, step: int) -> Mapping[str, int]:
    trained = sum(len(groups) for number, groups in history.groups_by_step.items() if number <= step)
    return {"trained": trained, "degenerate": sum(map(len, history.degenerate_by_step.values()))}


def _attempt_counts(
    attempts: Mapping[str, Mapping[int, AttemptRecord]], unfinished: frozenset[str], config: PoolConfig
) -> Mapping[str, int]:
    """As the pool counts: attempts by status once their group is finished; a retry as soon as it is due."""
    counts: Counter[str] = Counter()
    for group_id, by_number in attempts.items():
        for attempt in by_number.values():
            counts["retried"] += attempt.num_tries - _is_over(attempt, config)
            counts[attempt.status] += group_id not in unfinished
    return counts
