"""How a call's CPU time grows with its context: each part of the work by itself, in this process. Owns no load and no verdict.

body ──► parse ──► match ──► render ──► name ──► engine ──► commit ──► journal ──► answer
         JSON      tree      new text   digest,  JSON out,  tree       rows of     JSON
         messages  of turns  to tokens  seed     answer in             new tokens
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.bench.gateway.material import TextSource
from trunkline.bench.gateway.talk import ChatTalk
from trunkline.engine.client import EngineClient
from trunkline.gateway.base import Renderer
from trunkline.gateway.chat_wire import decode_chat
from trunkline.gateway.recorder import EpisodeRecorder, Sampled
from trunkline.gateway.sampling import call_seed
from trunkline.gateway.wire import Answer
from trunkline.pool.journal import Journal
from trunkline.types import GenerationRequest, SamplingParams

PARTS = ("parse", "match", "render", "name", "engine", "commit", "journal", "answer")
_EPISODE, _SESSION = "growth", "s0123456789abcdef"


@dataclass(frozen=True)
class GrowthPoint:
    """Calls at one length of context."""

    num_tokens: int
    """Of the prompt, at the first of them."""
    num_messages: int
    """In it."""
    num_new_tokens: float
    """Of a prompt beyond its parent's tokens; mean."""
    cpu_ms: dict[str, float]
    """By part; medians over the calls."""
    num_calls: int
    """How many."""


class _TimedRenderer:
    """A Renderer that adds up the CPU time of its bridges."""

    def __init__(self, inner: Renderer) -> None:
        self._inner = inner
        self.bridge_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def bridge(self, prompt_ids: Sequence[int], completion_ids: Sequence[int], new_messages: Any, tools: Any) -> tuple[int, ...] | None:
        began = time.thread_time()
        bridged = self._inner.bridge(prompt_ids, completion_ids, new_messages, tools)
        self.bridge_s += time.thread_time() - began
        return bridged


class _Conversation:
    """One that grows by a call and its result at a time, through the gateway's own parts."""

    def __init__(self, engine: EngineClient, renderer: Renderer, journal: Journal, text: TextSource) -> None:
        self._engine = engine
        self._renderer = _TimedRenderer(renderer)
        self._journal = journal
        self._text = text
        self._recorder = EpisodeRecorder(_EPISODE)
        self._talk = ChatTalk(text.take(150))
        self._num_calls = 0
        self.num_prompt = 0
        self.num_new = 0
        self.num_messages = 0

    async def call(self, result_tokens: int) -> dict[str, float]:
        """CPU-seconds of this thread, by part. (The journal's other thread is not in it.)"""
        body, renderer = self._talk.body(), self._renderer
        renderer.bridge_s = 0.0
        clock = [time.thread_time()]

        def tick() -> None:
            clock.append(time.thread_time())

        request = decode_chat(body)
        tick()
        context = self._recorder.context(_SESSION, request.ask, renderer)
        tick()
        seed = call_seed(1, context.hash.digest(), 0)
        tick()
        name = f"{_SESSION}.{self._num_calls}"
        sampling = SamplingParams(1024, seed=seed, stop_token_ids=renderer.stop_token_ids)
        generation = await self._engine.generate(GenerationRequest(name, context.prompt_ids, sampling))
        tick()
        parsed = renderer.parse(generation.token_ids, request.ask.tools.specs)
        committed = self._recorder.commit(context, Sampled(name, _SESSION, generation, sampling), parsed)
        tick()
        await self._journal.record_completion(_EPISODE, committed.completion, committed.new_nodes)
        tick()
        answer = request.body(Answer((committed,), "bench", 1, renderer.text))
        tick()
        parse, match, named, engine, commit, journal, written = (after - before for before, after in itertools.pairwise(clock))
        self._num_calls += 1
        self.num_prompt, self.num_new = len(context.prompt_ids), len(context.prompt_ids) - context.num_shared
        self.num_messages = len(context.keys)
        self._talk.hear(answer, lambda: self._text.take(result_tokens))
        return dict(zip(PARTS, (parse, match - renderer.bridge_s, renderer.bridge_s, named, engine, commit, journal, written), strict=True))


async def measure_growth(
    engine_socket: Path,
    renderer: Renderer,
    folder: Path,
    text: TextSource,
    *,
    lengths: Sequence[int],
    progress: Callable[[str, int, int], None],
    num_calls: int = 9,
    result_tokens: int = 190,
) -> list[GrowthPoint]:
    """One conversation that grows to each length in turn; at each the medians of `num_calls` calls."""
    engine, journal = EngineClient(engine_socket), Journal.open(folder / "growth.sqlite")
    conversation = _Conversation(engine, renderer, journal, text)
    points = []
    for length in lengths:
        while conversation.num_prompt < length:
            await conversation.call(result_tokens)
            progress(f"a conversation of {lengths[-1]:,} tokens", min(conversation.num_prompt, lengths[-1]), lengths[-1])
        begun, num_messages = conversation.num_prompt, conversation.num_messages
        spent, news = [], []
        for _ in range(num_calls):
            spent.append(await conversation.call(result_tokens))
            news.append(conversation.num_new)
        cpu_ms = {part: 1e3 * statistics.median(one[part] for one in spent) for part in PARTS}
        points.append(GrowthPoint(begun, num_messages, statistics.mean(news), cpu_ms, num_calls))
    await engine.close()
    await journal.close()
    return points
