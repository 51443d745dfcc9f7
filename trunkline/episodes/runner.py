"""One attempt end to end: session, agent, deadline, verdict, record. Owns no scheduling, no retry and no HTTP.

    spec ─► open session ─► agent works ──────────► close sessions ─► verify ─► + faults, speed ─► Episode ─► log (durable) ─► returned
                              │ out of time, budget      │                ▲
                              │   └─► cancelled, answer ''────────────────┘ status 'deadline': keeps what it earned
                              └ raises, or we do ────────┴─► Failure ─────► status 'failed': no reward, masked

How a task's workspace was left is verified beside the answer, and becomes the episode's patch. A failed rollout is data: it is
recorded in one place (`run`), with the boundary it crossed. Only JournalError and cancellation leave as exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from trunkline.episodes.composite_reward import component_rewards
from trunkline.episodes.config import RewardsConfig
from trunkline.episodes.patch import bounded_patch
from trunkline.errors import (
    AgentError,
    BudgetExceeded,
    DeadlineExceeded,
    JournalError,
    LimitExceeded,
    SandboxError,
    TrunklineError,
    UnknownSession,
    VerifierError,
)
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import OpenSession, SessionBudget
from trunkline.protocols import Agent, Assignment, Attempt, EpisodeSpec, Surroundings, Taskset, Verifier
from trunkline.types import Boundary, Episode, EpisodeStatus, Failure, FileChange, Reward, SandboxAct, Work

_SHORTEST_WAIT_S = 0.02
_CANCEL_GRACE_S = 5.0
_READING_GRACE_S = 60.0
"""The same for an agent that has to hand over how it left a workspace."""

_log = logging.getLogger(__name__)


class EpisodeLog(Protocol):
    """Where finished attempts become durable.

    >>> class Forgets:
    ...     async def record_episode(self, episode): pass
    """

    async def record_episode(self, episode: Episode) -> None:
        """Returns once durable. Raises JournalError."""
        ...


class _Crash(Exception):
    """An exception that nobody named, on its way to the record with the boundary it crossed."""

    def __init__(self, boundary: Boundary, cause: BaseException) -> None:
        super().__init__(boundary, cause)
        self.failure = Failure(boundary, type(cause).__name__, str(cause) or repr(cause))


@dataclass(frozen=True)
class _Outcome:
    """How an attempt ended."""

    status: EpisodeStatus
    rewards: tuple[Reward, ...]
    failure: Failure | None


@dataclass
class _Left:
    """What an attempt leaves for its record, whatever becomes of it."""

    acts: list[SandboxAct] = field(default_factory=list)
    """Done in its sandbox."""
    changes: list[FileChange] = field(default_factory=list)
    """Of its workspace."""
    workspace: Path | None = None
    """What that was before; None: there is none, or the attempt never began."""

    async def patch(self) -> str:
        """The changes as a diff."""
        if self.workspace is None or not self.changes:
            return ""
        return await asyncio.to_thread(bounded_patch, self.workspace, self.changes)


@dataclass(frozen=True)
class _Ending:
    """What the agent left: its answer, and what cut it short, if anything did."""

    answer: str
    cut_by: Failure | None


class AttemptRunner:
    """Implements `trunkline.protocols.EpisodeRunner` over one gateway, taskset and agent.

    Args:
        gateway: opens the session and keeps the record.
        taskset: opens the task's tools and verifier.
        agent: one object for all attempts; `run` is called concurrently.
        log: makes the episode durable before `run` returns it.
        hold: the sampling distribution of every call.
        budget: what one attempt may spend at the gateway.
        deadline_s: seconds on the gateway's clock, which stops while the engine is paused.
        base_url: where the gateway listens, such as http://127.0.0.1:8000.
    """

    def __init__(
        self,
        gateway: Gateway,
        taskset: Taskset,
        agent: Agent,
        log: EpisodeLog,
        *,
        hold: SamplingHold,
        budget: SessionBudget,
        deadline_s: float,
        base_url: str,
    ) -> None:
        self._gateway = gateway
        self._taskset = taskset
        self._agent = agent
        self._log = log
        self._hold = hold
        self._budget = budget
        self._deadline_s = deadline_s
        self._base_url = base_url.rstrip("/")
        self._rewards = RewardsConfig()

    def rewarding(self, rewards: RewardsConfig) -> AttemptRunner:
        """The same runner, whose attempts earn more than their verdict."""
        other = copy.copy(self)
        other._rewards = rewards
        return other

    async def run(self, spec: EpisodeSpec) -> Episode:
        """Never raises for a failed rollout. Raises JournalError if the record cannot be made durable."""
        name = episode_id(spec)
        started_s = self._gateway.active_time()
        left = _Left()
        try:
            try:
                outcome = await self._attempt(spec, name, left)
            except JournalError:
                raise
            except TrunklineError as error:
                outcome = _Outcome("failed", (), error.as_failure())
            except _Crash as crash:
                _log.warning("episode %s: %s crashed", name, crash.failure.boundary, exc_info=crash.__cause__)
                outcome = _Outcome("failed", (), crash.failure)
            except Exception as error:  # noqa: BLE001 - ours, unforeseen: recorded like any failure, with its traceback logged
                _log.exception("episode %s: the runner crashed", name)
                outcome = _Outcome("failed", (), _Crash("infra", error).failure)
            completions, messages = self._gateway.episode_record(name)
            episode = Episode(
                episode_id=name,
                group_id=spec.group_id,
                task_id=spec.task.task_id,
                attempt=spec.attempt,
                status=outcome.status,
                completions=completions,
                messages=messages,
                rewards=outcome.rewards,
                failure=outcome.failure,
                duration_s=self._gateway.active_time() - started_s,
                acts=tuple(left.acts),
                patch=await left.patch(),
            )
            await self._log.record_episode(episode)
            return episode
        finally:
            self._gateway.discard(name)

    async def _attempt(self, spec: EpisodeSpec, name: str, left: _Left) -> _Outcome:
        session = self._gateway.open_session(episode_id=name, seed=spec.seed, hold=self._hold, budget=self._budget)
        try:
            attempt = self._taskset.open(spec.task)
            left.workspace = attempt.workspace
            surroundings = Surroundings() if attempt.surroundings is None else await attempt.surroundings()
            assignment = self._assignment(spec, attempt, session, left, surroundings)
            try:
                work = await self._supervise(assignment)
                if work.cut_by is None and self._has_run_out(name, answer=work.answer):
                    work = _Ending(
                        work.answer, BudgetExceeded("the budget of its session was spent; then the agent ended by itself").as_failure()
                    )
            except (AgentError, _Crash) as error:
                work = self._unless_spent(name, error)
        finally:
            await self._close_sessions(name)
        verdict = await _judge(attempt.verifier, Work(work.answer, tuple(assignment.changes)))
        if work.cut_by is not None:
            verdict = tuple(replace(reward, value=max(0.0, reward.value)) for reward in verdict)
        completions, messages = self._gateway.episode_record(name)
        rewards = (*verdict, *component_rewards(self._rewards, verdict, completions, messages, attempt.tools.specs))
        return _Outcome("finished" if work.cut_by is None else "deadline", rewards, work.cut_by)

    def _assignment(self, spec: EpisodeSpec, attempt: Attempt, session: OpenSession, left: _Left, surroundings: Surroundings) -> Assignment:
        return Assignment(
            spec.task.prompt,
            attempt.tools,
            base_url=f"{self._base_url}/s/{session.secret}/v1",
            api_key=session.secret,
            model=self._gateway.model_name,
            acts=left.acts,
            workspace=attempt.workspace,
            changes=left.changes,
            surroundings=surroundings,
        )

    async def _supervise(self, assignment: Assignment) -> _Ending:
        """Runs the agent until it ends or its time is up; it is not running any more when this returns.

        Raises the agent's own errors; SandboxError if its time was up and nobody knows how it left its workspace.
        """
        clock = self._gateway.active_time
        ends_at_s = clock() + self._deadline_s
        working = asyncio.ensure_future(self._agent.run(assignment))
        try:
            # While the engine is paused the clock stands and `left_s` stays the same: look again, not too often.
            while not working.done() and (left_s := ends_at_s - clock()) > 0:
                await asyncio.wait({working}, timeout=max(left_s, _SHORTEST_WAIT_S))
        finally:
            is_late = not working.done()
            await _stop(working, grace_s=_CANCEL_GRACE_S if assignment.workspace is None else _READING_GRACE_S)
        if not is_late:
            return _work_of(working)
        if assignment.workspace is not None:
            _require_handed_over(working)
        return _Ending("", DeadlineExceeded(f"the agent was not done after {self._deadline_s:g} s").as_failure())

    def _unless_spent(self, name: str, error: AgentError | _Crash) -> _Ending:
        """A program that ends badly because its budget was spent is cut like one that ends well; any other failure is raised."""
        if not self._has_run_out(name, answer=""):
            raise error
        cause = error.as_failure() if isinstance(error, AgentError) else error.failure
        return _Ending("", BudgetExceeded(f"the budget of its session was spent; the agent then failed: {cause.message}").as_failure())

    def _has_run_out(self, name: str, *, answer: str) -> bool:
        """A call was refused because nothing was left; of context, which an agent can win back, only if it has no answer."""
        mine = [session for session in self._gateway.sessions() if session.episode_id == name]
        return any(session.is_spent or (session.has_overflowed and not answer) for session in mine)

    async def _close_sessions(self, name: str) -> None:
        """Also those that sub-agents opened: nothing is sampled for this episode after its verdict."""
        for session in self._gateway.sessions():
            if session.episode_id == name:
                with contextlib.suppress(UnknownSession):  # closed by somebody else meanwhile
                    await self._gateway.close_session(session.session_id)


def episode_id(spec: EpisodeSpec) -> str:
    """`g000012-a03` for attempt 3 of group g000012, `g000012-a03-r1` when it is begun again."""
    retry = f"-r{spec.retry}" if spec.retry else ""
    return f"{spec.group_id}-a{spec.attempt:02d}{retry}"


async def _stop(working: asyncio.Future[str], *, grace_s: float) -> None:
    if working.done():
        return
    working.cancel()
    await asyncio.wait({working}, timeout=grace_s)
    if not working.done():
        _log.warning("an agent ignores its cancellation; its session is closed, so it can spend nothing more")
    elif not working.cancelled():
        working.exception()  # it is over: what it raised while being stopped is nobody's


def _require_handed_over(working: asyncio.Future[str]) -> None:
    """Of a stopped agent with a workspace. Raises SandboxError if it could not say how it left that: no verdict, never a reward of 0."""
    if not working.done():
        raise SandboxError("the agent ignores its cancellation, so nobody knows how it left its workspace")
    error = None if working.cancelled() else working.exception()
    if isinstance(error, SandboxError):
        raise error


def _work_of(working: asyncio.Future[str]) -> _Ending:
    """The agent's answer. Raises its named error, or _Crash; an agent out of time, budget or its sandbox's limits is cut, not failed."""
    if working.cancelled():
        raise AgentError("the agent cancelled itself")
    error = working.exception()
    if error is None:
        if not isinstance(working.result(), str):
            raise AgentError(f"an agent returns its answer as text, got {type(working.result()).__name__}")
        return _Ending(working.result(), None)
    if isinstance(error, (DeadlineExceeded, BudgetExceeded, LimitExceeded)):
        return _Ending("", error.as_failure())
    if isinstance(error, TrunklineError):
        raise error
    raise _Crash("agent", error) from error


async def _judge(verifier: Verifier, work: Work) -> tuple[Reward, ...]:
    """Rewards, at least one, all finite. Raises VerifierError or _Crash."""
    try:
        rewards = await verifier.verify(work)
    except TrunklineError:
        raise
    except Exception as error:
        raise _Crash("verifier", error) from error
    if not rewards or not all(math.isfinite(reward.value) for reward in rewards):
        raise VerifierError(f"a verdict has at least one reward and finite values, got {rewards!r}")
    return rewards
