"""The agent that a recipe names, in the place that it names. Owns the choice; what agents and sandboxes do is their rooms'."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trunkline.agents.adapter import InstalledAdapter, find_adapter
from trunkline.agents.boxed_command import CommandAgent
from trunkline.agents.installation import host_toolchain, installed_folder
from trunkline.agents.launch import Launcher, PlainCommand
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.program import IN_A_SANDBOX
from trunkline.agents.tool_loop import ToolLoop, shared_http
from trunkline.agents.unsafe_command import UnsafeCommandAgent
from trunkline.agents.workspace_loop import WorkspaceLoop
from trunkline.asgi import serve_uds
from trunkline.errors import ConfigError
from trunkline.protocols import Agent, Taskset
from trunkline.run.recipe import Recipe
from trunkline.sandbox.catalog import open_sandboxes
from trunkline.sandbox.host import default_toolchain, without_covered
from trunkline.sandbox.proxy import AllowedHosts
from trunkline.tasks.base import SandboxedTaskset


async def make_agent(recipe: Recipe, gateway_app: Any, sockets: Path, stack: contextlib.AsyncExitStack) -> Agent:
    """The white-box loop in this process, a command on this host, or a command or an adapter in a sandbox; `stack` ends what it needs.

    Raises SandboxUnavailable if the recipe's sandbox cannot be had here, ConfigError if its adapter is wrong or not installed.
    """
    command, kind = _command(recipe), _kind(recipe)
    if kind is None:
        return await _tool_loop(recipe, stack)
    if kind == "unsafe":
        return UnsafeCommandAgent(command)
    launcher, needed = _launcher(recipe, command)
    if recipe.agent.adapter is not None:
        await asyncio.to_thread(importlib.import_module, "trunkline.agents.mcp_wire")  # now: MCP clients give up after five seconds
    door = sockets / "agents.sock"
    serving = await serve_uds(gateway_app, door, mode=0o666)  # sandboxes have another user; the folder above is ours alone
    stack.push_async_callback(serving.stop)
    sandboxes = await stack.enter_async_context(open_sandboxes(recipe.sandbox, toolchain=needed))
    allowed = AllowedHosts.parse(recipe.sandbox.allowed_hosts) if recipe.sandbox.allowed_hosts else None
    agent = CommandAgent(launcher, sandboxes, await sandboxes.prepare(None), gateway=door, allowed_hosts=allowed)
    stack.push_async_callback(agent.discard)
    return agent


async def _tool_loop(recipe: Recipe, stack: contextlib.AsyncExitStack) -> Agent:
    loop = ToolLoop(await stack.enter_async_context(shared_http()), loop_settings(recipe))
    if not recipe.agent.workspace.tools:
        return loop
    agent = WorkspaceLoop(loop, recipe.agent.workspace, await stack.enter_async_context(open_sandboxes(recipe.sandbox)))
    stack.push_async_callback(agent.discard)
    return agent


def check_agent_fits(recipe: Recipe, taskset: Taskset) -> None:
    """Before anything is written. Raises ConfigError if the taskset's workspaces need a sandbox that the recipe's agent is not in, or
    if that sandbox would show solutions or hidden tests."""
    if not isinstance(taskset, SandboxedTaskset):
        return
    kind, has_tools = _kind(recipe), bool(recipe.agent.workspace.tools)
    if kind == "unsafe" or (kind is None and not has_tools):
        who = "our own loop in this process" if kind is None else "a program on this host (sandbox.kind='unsafe')"
        raise ConfigError(
            f"taskset {taskset.name!r} gives directories to work on, which is done in a sandbox alone, and the recipe's agent is {who}; "
            f"{IN_A_SANDBOX}"
        )
    if kind == "container":
        return  # it sees its image, and nothing of this host
    needed = () if has_tools else _launcher(recipe, _command(recipe))[1]
    shown = without_covered([*default_toolchain(), *recipe.sandbox.toolchain, *needed])
    for secret in (folder.resolve() for folder in taskset.secret_folders):
        for path in (path.resolve() for path in shown):
            if secret == path or secret in path.parents or path in secret.parents:
                raise ConfigError(
                    f"agents would see {path}, and in it something of the task in {secret}: its solution or hidden tests; move the task "
                    "out of Python's folders and sandbox.toolchain, and name no file of it in agent.command"
                )


def _kind(recipe: Recipe) -> str | None:
    """Where the recipe's agent is; None: in this process."""
    return recipe.sandbox.kind or ("isolated" if recipe.agent.command or recipe.agent.adapter else None)


def _command(recipe: Recipe) -> tuple[str, ...]:
    return tuple(_as_seen_from_here(part) for part in recipe.agent.command)


def _launcher(recipe: Recipe, command: tuple[str, ...]) -> tuple[Launcher, Sequence[Path]]:
    """What runs in a sandbox, and what that must show of this host."""
    if recipe.agent.adapter is not None:
        adapter = find_adapter(recipe.agent.adapter)
        return InstalledAdapter(adapter, installed_folder(adapter), recipe.agent.max_context), host_toolchain(adapter)
    if command:
        return PlainCommand(command), tuple(_needed_by(command))
    settings = loop_settings(recipe)
    return PlainCommand(loop_command(settings)), loop_sources(settings)


def loop_settings(recipe: Recipe) -> LoopSettings:
    """What the recipe says of the white-box loop."""
    agent = recipe.agent
    context = agent.context.settings(max_context=agent.max_context)
    return LoopSettings(agent.max_turns, context, depth=agent.sub_agents.depth, max_sub_agents=agent.sub_agents.max_sub_agents)


def loop_command(settings: LoopSettings) -> tuple[str, ...]:
    """The white-box loop as a program; without site, which reads every .pth file of the environment."""
    path = "PYTHONPATH=" + ":".join(dict.fromkeys(str(source.parent) for source in loop_sources(settings)))
    return ("env", path, sys.executable, "-S", "-m", "trunkline.agents.loop_program", settings.dump())


def loop_sources(settings: LoopSettings) -> tuple[Path, ...]:
    """What a sandbox must show for the loop: this package, and the module or package of a method that is named by its import path."""
    module, colon, _ = str(settings.context["method"]).partition(":")
    names = dict.fromkeys(["trunkline", *([module.split(".")[0]] if colon else [])])
    files = (Path(str(importlib.import_module(name).__file__)) for name in names)
    return tuple(file.parent if file.name == "__init__.py" else file for file in files)


def _as_seen_from_here(part: str) -> str:
    """A command runs in a directory of its own; a file that it names relative to this one stays that file.

    Links are not followed: a virtual environment's python is one.
    """
    return str(Path(part).absolute()) if Path(part).is_file() else part


def _needed_by(command: Sequence[str]) -> Iterator[Path]:
    """What a sandbox must show for a command: the files that it names, and of a Python its whole environment."""
    for part in filter(lambda part: Path(part).is_absolute() and Path(part).is_file(), command):
        path = Path(part)
        environment = path.parent.parent
        if (environment / "pyvenv.cfg").is_file():
            yield environment
            yield path.resolve().parent.parent
        else:
            yield path
