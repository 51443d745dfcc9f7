"""Answers calls: messages in, recorded completions out. Owns sessions, commit-before-answer and the pause clock; no HTTP.

start ──► admit ──► context (splice or branch) ──► engine ──► commit in memory ──► log (durable) ──► answer
           │401/429        │400                      │503, no trace                   │503
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from trunkline.errors import EngineError, EngineUnavailable, GatewayError, UnknownSession
from trunkline.gateway.base import Renderer
from trunkline.gateway.call import Call, Samples, mark_retrieved, take_unread
from trunkline.gateway.recorder import Context, EpisodeRecorder, Sampled
from trunkline.gateway.sampling import SamplingHold, call_seed
from trunkline.gateway.sessions import OpenSession, Session, SessionBudget
from trunkline.gateway.stopping import stop_at, without_stop
from trunkline.gateway.wire import Ask, Committed
from trunkline.protocols import CompletionLog, Engine
from trunkline.types import Completion, Generation, GenerationRequest, Message, MessageNode

_ABORT_AGAIN_S = 0.5


class EpisodeRecord(NamedTuple):
    """What the gateway knows of an episode, over all its sessions."""

    completions: tuple[Completion, ...]
    """In order of commit."""
    messages: tuple[MessageNode, ...]
    """Each once."""


@dataclass(frozen=True)
class SessionSummary:
    """A session without its secret."""

    session_id: str
    """Its name."""
    episode_id: str
    """Its episode."""
    num_calls: int
    """Calls admitted."""
    num_sampled: int
    """Tokens sampled."""
    num_in_flight: int
    """Calls not answered yet."""
    is_spent: bool
    """A call was refused because the budget was spent."""
    has_overflowed: bool
    """A prompt was refused because it was longer than the context."""


class Gateway:
    """Between agents and one engine.

    Args:
        engine: where tokens are sampled.
        renderer: the model's chat format.
        log: the durable record; awaited before any answer leaves.
        model_name: what answers call the model.
    """

    def __init__(self, engine: Engine, renderer: Renderer, log: CompletionLog, *, model_name: str) -> None:
        self.model_name = model_name
        self._engine = engine
        self._renderer = renderer
        self._log = log
        self._by_secret: dict[str, Session] = {}
        self._by_id: dict[str, Session] = {}
        self._episodes: dict[str, EpisodeRecorder] = {}
        self._counts: Counter[str] = Counter()
        self._paused_s = 0.0
        self._paused_at: float | None = None

    # --- sessions and records -------------------------------------------------------------------------------------

    def open_session(self, *, episode_id: str, seed: int, hold: SamplingHold, budget: SessionBudget) -> OpenSession:
        """A new session of an episode; the first one starts the episode's record."""
        opened = OpenSession(session_id=f"s{secrets.token_hex(8)}", secret=secrets.token_urlsafe(32))
        recorder = self._episodes.setdefault(episode_id, EpisodeRecorder(episode_id))
        session = Session(opened, recorder, seed=seed, hold=hold, budget=budget)
        self._by_secret[opened.secret] = self._by_id[opened.session_id] = session
        return opened

    async def close_session(self, session_id: str) -> None:
        """Revokes the secret, aborts what is in flight and returns once that is recorded. Raises UnknownSession."""
        session = self._by_id.pop(session_id, None)
        if session is None:
            raise UnknownSession(f"no open session {session_id!r}")
        del self._by_secret[session.secret]
        session.is_open = False
        self._counts["unread"] += len(session.unread)
        while session.tasks:
            # An abort may overtake its request on the way to the engine, so it is sent until the calls have ended.
            # An engine that cannot be told is one whose calls fail by themselves.
            with contextlib.suppress(EngineError):
                await self._engine.abort(tuple(session.running))
            if session.tasks:
                await asyncio.wait(tuple(session.tasks), timeout=_ABORT_AGAIN_S)

    def session(self, secret: str) -> Session:
        """The open session with this secret. Raises UnknownSession."""
        found = self._by_secret.get(secret)
        if found is None:
            raise UnknownSession("no open session has this key or path; it may have been closed")
        return found

    def sessions(self) -> tuple[SessionSummary, ...]:
        """All open sessions, without secrets."""
        return tuple(
            SessionSummary(
                one.session_id, one.recorder.episode_id, one.num_calls, one.num_sampled, len(one.tasks), one.is_spent, one.has_overflowed
            )
            for one in self._by_id.values()
        )

    def episode_record(self, episode_id: str) -> EpisodeRecord:
        """Everything recorded of an episode so far. Raises GatewayError for an episode without a session."""
        recorder = self._recorder(episode_id)
        return EpisodeRecord(tuple(recorder.completions), tuple(recorder.nodes))

    def past(self, session: Session, completion_id: str) -> tuple[Message, ...] | None:
        """The conversation behind an earlier answer of the session's episode; None if it has no such answer."""
        return session.recorder.conversation(completion_id)

    def text(self, token_ids: Sequence[int]) -> str:
        """What token ids read as."""
        return self._renderer.text(token_ids)

    def counts(self) -> Mapping[str, int]:
        """Since the start, what no completion tells: `num_redelivered` (answers given to a client that asked again after it
        had left) and `num_unread` (recorded answers that nobody got)."""
        return {f"num_{name}": self._counts[name] for name in ("redelivered", "unread")}

    def discard(self, episode_id: str) -> None:
        """Forgets an episode whose sessions are closed. Raises GatewayError while one is open."""
        still_open = [one.session_id for one in self._by_id.values() if one.recorder.episode_id == episode_id]
        if still_open:
            raise GatewayError(f"episode {episode_id!r} has open sessions {still_open}; close them before discarding it")
        self._episodes.pop(episode_id, None)

    # --- the pause clock ------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Stops the clock, then the engine. A second pause changes nothing."""
        if self._paused_at is None:
            self._paused_at = time.monotonic()
        await self._engine.pause()

    async def resume(self) -> None:
        """Starts the engine, then the clock."""
        await self._engine.resume()
        if self._paused_at is not None:
            self._paused_s += time.monotonic() - self._paused_at
            self._paused_at = None

    def active_time(self) -> float:
        """Monotonic seconds that leave out all pauses: what episodes' deadlines are measured by."""
        now = time.monotonic() if self._paused_at is None else self._paused_at
        return now - self._paused_s

    # --- calls ----------------------------------------------------------------------------------------------------

    def start(self, session: Session, ask: Ask) -> Call:
        """Starts to sample and to record one call, or finds the one that asked exactly this and whose client left.

        A caller that goes away does not end the call: what was sampled is recorded all the same.

        Raises, here or as the call's result:
            UnknownSession: the session was closed.
            BudgetExceeded: its budget is spent.
            MalformedRequest, ConfigError: the messages or tools cannot be rendered.
            EngineUnavailable, EngineError: nothing was sampled, or it was cut from outside; retrying is safe.
            JournalError: the answer is not durable and therefore withheld.
        """
        session.check_open()
        task = take_unread(session, ask)
        if task is not None:
            self._counts["redelivered"] += 1
            return Call(session, ask, task)
        session.admit(ask.num_samples)
        task = asyncio.create_task(self._answer(session, ask))
        session.tasks.add(task)
        task.add_done_callback(session.tasks.discard)
        task.add_done_callback(mark_retrieved)
        return Call(session, ask, task)

    async def complete(self, session: Session, ask: Ask) -> Samples:
        """As `start`, waited for: one recorded completion for each sample asked."""
        call = self.start(session, ask)
        await call.wait()
        return call.result()

    def count_tokens(self, session: Session, ask: Ask) -> int:
        """Tokens of the context that a request would be answered from; samples nothing and counts as no call.

        Raises UnknownSession, MalformedRequest and ConfigError as `start` does.
        """
        session.check_open()
        return len(session.recorder.context(session.session_id, ask, self._renderer).prompt_ids)

    async def _answer(self, session: Session, ask: Ask) -> Samples:
        num_admitted = ask.num_samples
        try:
            context = session.recorder.context(session.session_id, ask, self._renderer)
            sampling = [self._sample(session, context) for _ in range(ask.num_samples)]
            sampled = await asyncio.gather(*sampling, return_exceptions=True)
            committed = [self._commit(session, context, one) for one in sampled if isinstance(one, Sampled)]
            num_admitted -= len(committed)
        finally:
            for _ in range(num_admitted):
                session.release()
        record = (self._log.record_completion(session.recorder.episode_id, one.completion, one.new_nodes) for one in committed)
        await asyncio.gather(*record)
        for one in sampled:
            if isinstance(one, BaseException):  # of n samples: the others are recorded, the client asks for all again
                raise one
        if any(one.completion.generation.finish_reason == "abort" for one in committed):
            if not session.is_open:
                raise UnknownSession("the session was closed while this call was in flight")
            raise EngineUnavailable("the engine cut this call; ask again")
        return tuple(committed)

    def _commit(self, session: Session, context: Context, sampled: Sampled) -> Committed:
        session.num_sampled += len(sampled.generation.token_ids) + sampled.num_discarded
        callable_specs = context.ask.tools.specs if context.ask.may_call else ()
        parsed = self._renderer.parse(sampled.generation.token_ids, callable_specs)
        if sampled.stop_string is not None:
            parsed = parsed._replace(message=without_stop(parsed.message, sampled.stop_string))
        return session.recorder.commit(context, sampled, parsed)

    async def _sample(self, session: Session, context: Context) -> Sampled:
        digest, asked = context.hash.digest(), context.ask.asked
        sampling = session.sampling(asked, num_prompt=len(context.prompt_ids), stop_token_ids=self._renderer.stop_token_ids)
        repeat = session.recorder.take_repeat(digest)
        sampling = replace(sampling, seed=call_seed(session.seed, digest, repeat))
        completion_id = session.next_completion_id()
        try:
            generation = await self._generate(session, GenerationRequest(completion_id, context.prompt_ids, sampling))
        except BaseException:
            session.recorder.free_repeat(digest, repeat)
            raise
        stopped = stop_at(generation, asked.stop, self._renderer.text)
        return Sampled(completion_id, session.session_id, stopped.generation, sampling, stopped.num_discarded, stopped.stop_string)

    async def _generate(self, session: Session, request: GenerationRequest) -> Generation:
        if not session.is_open:  # closed between admission and here: the engine never hears of the call
            raise UnknownSession("the session was closed before this call started")
        session.running.add(request.request_id)
        try:
            return await self._engine.generate(request)
        finally:
            session.running.discard(request.request_id)

    def _recorder(self, episode_id: str) -> EpisodeRecorder:
        found = self._episodes.get(episode_id)
        if found is None:
            raise GatewayError(f"no record of episode {episode_id!r}; open a session for it first")
        return found
