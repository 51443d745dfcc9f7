"""Brings the parts of a run up and down. Owns which process talks to which; what they do together is the conductor's.

conductor process: gateway (loopback port), pool, journal, agents, verifiers
    ├── Unix socket ──► trainer process
    └── Unix socket ──► engine process ◄── weights by file, with a version
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trunkline.asgi import serve_port, serve_uds
from trunkline.engine.client import EngineClient
from trunkline.episodes.runner import AttemptRunner
from trunkline.errors import ConfigError, EngineError, TrainerError
from trunkline.gateway.app import build_app
from trunkline.gateway.base import Renderer
from trunkline.gateway.control import build_control_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import CHATML, TINY, MarkupRenderer
from trunkline.gateway.packaged import load_packaged_renderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.models.tokenizer import Tokenizer
from trunkline.pool.journal import Journal
from trunkline.protocols import Taskset
from trunkline.run.agent_side import make_agent
from trunkline.run.directory import RunDirectory
from trunkline.run.processes import Child, child_environment, child_process
from trunkline.run.recipe import AgentConfig, Recipe
from trunkline.run.scratch import prepare_folder
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.base import SandboxedTaskset, SpelledTaskset
from trunkline.tasks.catalog import load_taskset
from trunkline.trainer.client import TrainerClient
from trunkline.types import PolicyVersion

_READY_TIMEOUT_S = 120.0
_CAUSE_GRACE_S = 1.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainerSide:
    """The trainer's process and the way to it."""

    client: TrainerClient
    """Its verbs."""
    child: Child
    """The process, for watching."""


@dataclass(frozen=True)
class EngineSide:
    """The engine's process and the way to it."""

    client: EngineClient
    """Its verbs."""
    child: Child
    """The process, for watching."""


@dataclass(frozen=True)
class RolloutSide:
    """Everything that samples: engine process, gateway, journal, and a runner of attempts."""

    engine: EngineClient
    """The engine."""
    child: Child
    """Its process, for watching."""
    gateway: Gateway
    """The wire that agents see."""
    journal: Journal
    """The durable record."""
    runner: AttemptRunner
    """Runs training attempts and evaluations at the recipe's temperature."""
    greedy_runner: AttemptRunner
    """Runs evaluation attempts at temperature 0."""

    async def watch(self) -> None:
        """Ends only by raising: the engine died, or the journal could not be written."""
        watching = asyncio.create_task(self.child.watch())
        try:
            await asyncio.wait({watching, self.journal.failed}, return_when=asyncio.FIRST_COMPLETED)
            if self.journal.failed.done():
                self.journal.failed.result()
            await watching
        finally:
            watching.cancel()


async def guarded(work: Coroutine[Any, Any, Result], *watchers: Coroutine[Any, Any, None]) -> Result:
    """Runs `work`; the first watcher that raises ends it. If both fail, the watcher's error is the cause and is raised."""
    working = asyncio.create_task(work)
    watching = [asyncio.create_task(watcher) for watcher in watchers]
    try:
        await asyncio.wait({working, *watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and not working.cancelled() and working.exception() is not None:
            await asyncio.wait(watching, timeout=_CAUSE_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        for watcher in watching:
            if watcher.done():
                watcher.result()
        return await working
    finally:
        for task in (working, *watching):
            task.cancel()
        await asyncio.gather(working, *watching, return_exceptions=True)


async def make_policy_folder(recipe: Recipe, folder: Path) -> None:
    """Fills `folder` with a randomly initialised policy of the recipe's sizes and the taskset's tokenizer.

    Raises ConfigError for a taskset that has no vocabulary.
    """
    taskset = load_taskset(recipe.taskset.name, recipe.taskset.options)
    if not isinstance(taskset, SpelledTaskset):
        raise ConfigError(f"a model from scratch needs a taskset with a vocabulary, {taskset.name!r} has none; set model.path")
    prepare_folder(folder, recipe.model.scratch, pieces=taskset.pieces, characters=taskset.characters)
    arguments = ["-m", "trunkline.run.scratch", str(folder), "--seed", str(recipe.seed)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=child_environment(folder), stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    _, stderr = await process.communicate()
    if process.returncode:
        raise TrainerError(f"making the initial policy in {folder} failed:\n{stderr.decode(errors='replace')[-2000:]}")


def make_renderer(recipe: Recipe, tokenizer: Tokenizer, folder: Path) -> Renderer:
    """The renderer that the recipe names. Raises ConfigError on unknown names and on models without its special tokens."""
    return named_renderer(recipe.model.renderer, tokenizer, folder)


def named_renderer(name: str, tokenizer: Tokenizer, folder: Path) -> Renderer:
    """A renderer for the model in `folder`. Raises ConfigError on unknown names and on models without its special tokens."""
    match name:
        case "tiny":
            return MarkupRenderer(tokenizer, TINY)
        case "chatml":
            return MarkupRenderer(tokenizer, CHATML)
        case _:
            from transformers import AutoTokenizer  # seconds of imports that the other renderers do without

            try:
                tokenizer_of_family = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"renderer {name!r} needs a folder whose tokenizer transformers loads, {folder} is none: {error}"
                ) from error
            return load_packaged_renderer(name, tokenizer_of_family)


@asynccontextmanager
async def trainer_side(recipe: Recipe, directory: RunDirectory, sockets: Path, *, model: Path) -> AsyncIterator[TrainerSide]:
    """The trainer's process, ready, for the length of the block."""
    socket = sockets / "trainer.sock"
    arguments = ["--socket", str(socket), "--model", str(model), "--parent", str(os.getpid())]
    arguments += ["--config", recipe.trainer.model_dump_json()]
    async with child_process(
        "trainer", "trunkline.trainer.server", arguments, model=model, log_path=directory.log("trainer"), failure=TrainerError
    ) as child:
        client = TrainerClient(socket)
        try:
            max_context = await guarded(client.wait_ready(_READY_TIMEOUT_S), child.watch())
            _check_context(recipe, max_context)  # before a cold start, not after it
            yield TrainerSide(client, child)
        finally:
            await client.close()


@asynccontextmanager
async def engine_side(
    sockets: Path,
    *,
    model: Path,
    version: PolicyVersion,
    max_batch: int,
    max_cached_tokens: int | None,
    log_path: Path,
    return_routes: str = "none",
) -> AsyncIterator[EngineSide]:
    """The engine's process, ready, for the length of the block; `max_cached_tokens` None takes what 512 MB hold."""
    socket = sockets / "engine.sock"
    arguments = ["--socket", str(socket), "--model", str(model), "--parent", str(os.getpid()), "--version", str(version)]
    arguments += ["--max-batch", str(max_batch), "--return-routes", return_routes]
    if max_cached_tokens is not None:
        arguments += ["--max-cached-tokens", str(max_cached_tokens)]
    async with child_process("engine", "trunkline.engine.server", arguments, model=model, log_path=log_path, failure=EngineError) as child:
        client = EngineClient(socket)
        try:
            await guarded(client.wait_ready(_READY_TIMEOUT_S), child.watch())
            yield EngineSide(client, child)
        finally:
            await client.close()


@asynccontextmanager
async def rollout_side(
    recipe: Recipe, directory: RunDirectory, sockets: Path, *, model: Path, taskset: Taskset, renderer: Renderer
) -> AsyncIterator[RolloutSide]:
    """Engine, gateway, journal and runners, ready, for the length of the block."""
    journal = Journal.open(directory.path / "journal.sqlite")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        engine = await stack.enter_async_context(
            engine_side(
                sockets,
                model=model,
                version=PolicyVersion(journal.incarnation, 0),
                max_batch=recipe.engine.max_batch,
                max_cached_tokens=recipe.engine.max_cached_tokens,
                log_path=directory.log("engine"),
                return_routes="none" if recipe.trainer.replay == "off" else recipe.trainer.replay,
            )
        )
        _check_context(recipe, (await engine.client.health()).max_context)
        gateway = Gateway(engine.client, renderer, journal, model_name=recipe.name)
        app = build_app(gateway)
        wire = await serve_port(app, port=recipe.gateway.port)
        stack.push_async_callback(wire.stop)
        control = await serve_uds(build_control_app(gateway), sockets / "control.sock")
        stack.push_async_callback(control.stop)
        agent = await make_agent(recipe, app, sockets, stack)
        if isinstance(taskset, SandboxedTaskset):
            # Their own backend: nothing of the agents' toolchain is near a verdict, and the agents may be in containers.
            verdicts = IsolatedSandboxes.open(SandboxConfig(directory=recipe.sandbox.directory))
            taskset = taskset.using(await stack.enter_async_context(verdicts))

        def attempt_runner(temperature: float) -> AttemptRunner:
            return AttemptRunner(
                gateway,
                taskset,
                agent,
                journal,
                hold=SamplingHold(temperature=temperature, max_tokens=recipe.agent.max_tokens),
                budget=_session_budget(recipe.agent),
                deadline_s=recipe.agent.deadline_s,
                base_url=f"http://127.0.0.1:{wire.port}",
            ).rewarding(recipe.rewards)

        runner, greedy_runner = attempt_runner(recipe.agent.temperature), attempt_runner(0.0)
        yield RolloutSide(engine.client, engine.child, gateway, journal, runner, greedy_runner)


def _check_context(recipe: Recipe, most: int) -> None:
    if recipe.agent.max_context > most:
        raise ConfigError(
            f"agent.max_context is {recipe.agent.max_context}, but the model computes contexts of up to {most} tokens exactly "
            "(its sliding windows count); lower agent.max_context"
        )


def _session_budget(agent: AgentConfig) -> SessionBudget:
    max_calls = agent.max_turns * (1 + agent.sub_agents.max_sub_agents)
    return SessionBudget(max_calls=max_calls, max_tokens=max_calls * agent.max_tokens, max_context=agent.max_context)
