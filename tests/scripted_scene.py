"""Whole episodes of real agents: real sandbox, real gateway, real HTTP; only the model's words are a script."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.engines import QuietEngine, spoken
from trunkline.agents import mcp_wire  # noqa: F401 - a second of imports, which no client is to wait for
from trunkline.agents.adapter import Adapter, InstalledAdapter, find_adapter
from trunkline.agents.boxed_command import CommandAgent
from trunkline.agents.installation import UNREACHED, host_toolchain, install, installed_folder
from trunkline.asgi import serve_uds
from trunkline.episodes.runner import AttemptRunner
from trunkline.errors import InfraError
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.packaged import PackagedRenderer, load_packaged_renderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.pool.journal import Journal
from trunkline.protocols import Attempt, EpisodeSpec
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.types import Completion, Episode, Message, Reward, Task, ToolCall, ToolSpec

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PIECES = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
WORD = "heliotrope"
PROMPT = f"The word is {WORD}. Write it to note.txt, read the file back, and answer with what it holds."
DEADLINE_S = 240.0

Script = Callable[[str], Message]
"""What the model says after a prompt, given as text."""


@cache
def renderer() -> PackagedRenderer:
    """Qwen3's format, over a vocabulary trained here on some of Python's own library: any text, few tokens."""
    sources = [path.read_text(errors="replace") for path in sorted(Path(tempfile.__file__).parent.glob("*.py"))[:60]]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(sources, trainer)
    backend.add_special_tokens(MARKS)
    backend.add_tokens(PIECES)
    return load_packaged_renderer("qwen3", PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>"))


class ScriptedEngine(QuietEngine):
    """An Engine that says what a script says; the prompts are kept as text."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.prompts: list[str] = []

    async def generate(self, request):
        text = renderer().text(request.token_ids)
        self.prompts.append(text)
        return spoken(renderer(), self._script(text), request, ())


class OneTask:
    """Implements Taskset and its parts: one question, one tool, right if the answer holds the word."""

    name = "word"
    specs = (ToolSpec("colour", "The colour of a word", {"type": "object", "properties": {"word": {"type": "string"}}}),)

    def __init__(self, prompt: str = PROMPT) -> None:
        self._prompt = prompt
        self.num_tool_calls = 0

    def task(self, split, index):
        return Task("word/0", self.name, "only", (Message("user", self._prompt),), {})

    def open(self, task):
        return Attempt(self, self)

    async def call(self, name, arguments):
        self.num_tool_calls += 1
        return "its colour is violet"

    async def verify(self, work):
        return (Reward("outcome", float(WORD in work.answer), f"the answer is {work.answer!r}"),)


class Seen:
    """A finished episode, with what the engine was asked."""

    def __init__(self, episode: Episode, prompts: Sequence[str]) -> None:
        self.episode = episode
        self.prompts = prompts

    @property
    def calls(self) -> tuple[Completion, ...]:
        return self.episode.completions

    @property
    def lineage(self) -> Counter[str]:
        return Counter(one.facts.lineage for one in self.calls)

    @property
    def answer(self) -> str:
        return self.episode.rewards[0].evidence if self.episode.rewards else ""

    def require_success(self) -> None:
        assert self.episode.failure is None, self.episode.failure
        assert (self.episode.status, self.episode.rewards[0].value) == ("finished", 1.0), self.episode.rewards

    def require_exact_tokens(self) -> None:
        """Every prompt is the token extension of an earlier call, or a branch of its own."""
        by_id = {one.completion_id: one for one in self.calls}
        for one in self.calls:
            if one.parent_id is not None:
                parent = by_id[one.parent_id]
                assert (parent.prompt_ids + parent.generation.token_ids)[: one.num_shared] == one.prompt_ids[: one.num_shared]
            if one.facts.lineage == "extension":
                assert one.num_shared == len(parent.prompt_ids) + len(parent.generation.token_ids)
            assert not one.facts.format_error, one.facts.format_error


async def work(
    adapter: Adapter, script: Script, folder: Path, *, task: OneTask | None = None, max_context: int = 200_000, max_calls: int = 60
) -> Seen:
    """One attempt of an installed agent, from the taskset to the journal; `max_context` is what it is told, the gateway takes more."""
    engine, task = ScriptedEngine(script), task or OneTask()
    launcher = InstalledAdapter(adapter, installed_folder(adapter), max_context)
    budget = SessionBudget(max_calls=max_calls, max_tokens=1_000_000, max_context=400_000)
    async with _runner(launcher, engine, task, folder, budget) as runner:
        episode = await runner.run(EpisodeSpec(task.task("heldout", 0), "g000000", 0, seed=1))
    return Seen(episode, engine.prompts)


@asynccontextmanager
async def _runner(
    launcher: InstalledAdapter, engine: ScriptedEngine, task: OneTask, folder: Path, budget: SessionBudget
) -> AsyncIterator[AttemptRunner]:
    async with contextlib.AsyncExitStack() as stack:
        journal = Journal.open(folder / "journal.sqlite")
        stack.push_async_callback(journal.close)
        gateway = Gateway(engine, renderer(), journal, model_name="scripted")
        serving = await serve_uds(build_app(gateway), folder / "agents.sock", mode=0o666)
        stack.push_async_callback(serving.stop)
        sandboxes = await stack.enter_async_context(IsolatedSandboxes.open(SandboxConfig(), toolchain=host_toolchain(launcher.adapter)))
        agent = CommandAgent(launcher, sandboxes, await sandboxes.prepare(None), gateway=folder / "agents.sock")
        hold = SamplingHold(max_tokens=4096)
        yield AttemptRunner(gateway, task, agent, journal, hold=hold, budget=budget, deadline_s=DEADLINE_S, base_url="http://127.0.0.1:1")


def says(content: str = "", *tool_calls: tuple[str, dict]) -> Message:
    """An assistant's turn; calls as (name, arguments)."""
    return Message("assistant", content, tuple(ToolCall("", name, json.dumps(arguments)) for name, arguments in tool_calls))


def in_turn(*turns: Message) -> Script:
    """Says them one after another, the last one for ever, whatever it is asked."""
    left = list(turns)
    return lambda prompt: left.pop(0) if len(left) > 1 else left[0]


def installed_or_skipped(name: str) -> Adapter:
    """A shipped adapter, installed into the user's cache; a test without its registry is skipped."""
    adapter = find_adapter(name)
    try:
        install(adapter, lambda title, log: None)
    except InfraError as error:
        if UNREACHED in str(error):
            pytest.skip(str(error)[:300])
        raise
    return adapter
