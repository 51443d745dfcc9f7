"""The command line. Owns arguments, exit codes and what is printed; every command is a thin call into a room.

Exit codes: 0 done; 1 a part failed; 2 the command line, a recipe or a file is wrong; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from trunkline import __version__
from trunkline.errors import ConfigError, TrunklineError
from trunkline.metrics.console import ProgressView
from trunkline.run.recipe import dump_recipe, load_recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Agent-native reinforcement learning.")
_out = Console()
_err = Console(stderr=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        _out.print(f"trunkline {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Agent-native reinforcement learning: any agent as it is, rewards a machine can check."""


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/quickstart.toml.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides: seed=2 stage.steps=10")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Train an agent by a recipe; everything is written under the run directory (run_dir=PATH)."""
    resolved = load_recipe(recipe, overrides or [])
    if dry_run:
        _out.print(dump_recipe(resolved), markup=False, highlight=False, soft_wrap=True)
        return
    from trunkline.run.conductor import train as run_recipe  # a second of imports that --help and --dry-run do without

    summary = _run_async(run_recipe(resolved, ProgressView(_err)))
    _print_summary(summary)


@app.command()
def show(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    episode: Annotated[str | None, typer.Argument(help="An episode id, such as g000012-a03; none shows the summary.")] = None,
) -> None:
    """Show a run's summary, or one of its episodes as text."""
    from trunkline.run.show import show_episode, show_run

    if episode is None:
        show_run(run_dir, _out)
    else:
        show_episode(run_dir, episode, _out)


def _run_async(work: Any) -> Any:
    """Runs on uvloop; SIGTERM ends the run like Ctrl-C, so that no process is left behind."""

    async def cancellable() -> Any:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(cancellable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        _err.print("interrupted; the run directory keeps what was written so far")
        raise typer.Exit(130) from None


def _print_summary(summary: dict[str, Any]) -> None:
    start, end = summary["heldout_success_start"], summary["heldout_success_end"]
    _out.print(
        f"held-out success {start['value']:.3f} [{start['low']:.3f}, {start['high']:.3f}] → "
        f"[bold]{end['value']:.3f}[/bold] [{end['low']:.3f}, {end['high']:.3f}] (n = {end['n']}), "
        f"{summary['cpu_seconds'] / 60:.1f} CPU-minutes",
        highlight=False,
        soft_wrap=True,
    )
    _out.print(
        f"written to {summary['run_dir']}: curve.png, summary.json, metrics.jsonl, episodes/, checkpoints/", highlight=False, soft_wrap=True
    )


def main() -> None:
    """Entry point of the `trunkline` command."""
    try:
        app()
    except TrunklineError as error:
        _err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
