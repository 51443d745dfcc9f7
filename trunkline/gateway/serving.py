"""A gateway for anyone with its one key, for as long as it runs. Owns what a served call is; sampling and HTTP are as in training.

key ──► a session of one call ──► sampled as the client asks ──► log ──► answer ──► forgotten

Every call is an episode of its own, so nothing grows with the number of calls. A conversation comes back whole in its next
request and is rendered anew; the engine's prefix cache, not the record, is what spares computing it again.
"""

from __future__ import annotations

import asyncio
import secrets

from trunkline.errors import BudgetExceeded, EngineUnavailable, MalformedRequest, UnknownSession
from trunkline.gateway.base import Renderer
from trunkline.gateway.call import Call, Samples, mark_retrieved
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.recorder import EpisodeRecorder
from trunkline.gateway.sampling import ClientSampling
from trunkline.gateway.sessions import OpenSession, Session, SessionBudget
from trunkline.gateway.wire import MAX_SAMPLES, Ask
from trunkline.protocols import CompletionLog, Engine

_STOPPING = "the server is stopping"


class ServingGateway(Gateway):
    """Between clients with one lasting key and one engine.

    Args:
        engine: where tokens are sampled.
        renderer: the model's chat format.
        log: gets each call, an episode of its own, before it is answered.
        model_name: what answers call the model.
        key: what clients send as their API key.
        sampling: what stands in for what a client does not ask.
        max_context: most tokens of one prompt and its completion.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        log: CompletionLog,
        *,
        model_name: str,
        key: str,
        sampling: ClientSampling,
        max_context: int,
    ) -> None:
        super().__init__(engine, renderer, log, model_name=model_name)
        self._key = key
        self._sampling = sampling
        self._budget = SessionBudget(max_calls=MAX_SAMPLES, max_tokens=MAX_SAMPLES * max_context, max_context=max_context)
        self._answering: set[asyncio.Task[Samples]] = set()
        self._is_stopping = False

    def session(self, secret: str) -> Session:
        """A session for one call, kept by nobody but its caller. Raises UnknownSession for another key."""
        if not secrets.compare_digest(secret.encode(), self._key.encode()):
            raise UnknownSession("this is not the API key that the server printed at its start")
        opened = OpenSession(session_id=f"s{secrets.token_hex(8)}", secret=secret)
        recorder = EpisodeRecorder(f"served-{opened.session_id}")
        return Session(opened, recorder, seed=secrets.randbits(63), hold=self._sampling, budget=self._budget)

    def start(self, session: Session, ask: Ask) -> Call:
        """As in training, but a client's seed is honoured: it repeats the answer to the same messages.

        Raises, here or as the call's result:
            MalformedRequest: the prompt does not fit the context, the sampler's knobs are out of range, or the client asks
                for what would change its answer and cannot be done.
            EngineUnavailable: the server is stopping.
        """
        if self._is_stopping:
            raise EngineUnavailable(_STOPPING)
        # Agents on the other wires always send hints, such as how hard to think; the answer's header says what was not done.
        if ask.not_honoured and ask.wire == "chat":
            raise MalformedRequest(f"not supported, and it would change the result: {'; '.join(ask.not_honoured)}; leave it out")
        if ask.asked.seed is not None:
            session.seed = ask.asked.seed
        call = super().start(session, ask)
        answering = asyncio.create_task(self._served(call))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)
        answering.add_done_callback(mark_retrieved)
        return Call(session, ask, answering)

    async def _served(self, call: Call) -> Samples:
        try:
            await call.wait()
            return call.result()
        except BudgetExceeded as error:
            raise MalformedRequest(str(error)) from error
        except asyncio.CancelledError:
            if self._is_stopping:
                raise EngineUnavailable(_STOPPING) from None
            raise

    async def stop(self, *, grace_s: float) -> None:
        """Refuses new calls, lets those in flight end for `grace_s`, and answers the rest that the server is stopping."""
        self._is_stopping = True
        if self._answering:
            await asyncio.wait(self._answering, timeout=grace_s)
        for answering in self._answering:
            answering.cancel()
