"""The command line. Owns arguments, exit codes and what is printed; every command is a thin call into a room.

Exit codes: 0 done; 1 a part failed; 2 the command line, a recipe or a file is wrong; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
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
from trunkline.run.agent import agent_app
from trunkline.run.bench import bench_app
from trunkline.run.cache import cache_app
from trunkline.run.conformance import conformance
from trunkline.run.model import model_app
from trunkline.run.recipe import dump_recipe, load_recipe
from trunkline.run.tasks import tasks_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Agent-native reinforcement learning.")
app.add_typer(model_app, name="model")
app.add_typer(bench_app, name="bench")
app.add_typer(agent_app, name="agent")
app.add_typer(tasks_app, name="tasks")
app.add_typer(cache_app, name="cache")
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
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|resume=RUN_DIR", help="A recipe, such as recipes/quickstart.toml, or a run that ended early.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides: seed=2 stage.steps=10")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
) -> None:
    """Train an agent by a recipe; everything is written under the run directory (run_dir=PATH).

    With resume=RUN_DIR a run that was interrupted or crashed goes on from its newest checkpoint, under its own recipe.
    """
    from trunkline.run.resume import TrainArguments, load_resumption

    arguments = TrainArguments.parse([recipe, *(overrides or [])])
    resumption = load_resumption(arguments.resume, arguments.recipe, arguments.overrides) if arguments.resume else None
    resolved = resumption.recipe if resumption else load_recipe(Path(recipe), arguments.overrides)
    if dry_run:
        _out.print(dump_recipe(resolved), markup=False, highlight=False, soft_wrap=True)
        return
    from trunkline.run import conductor  # a second of imports that --help and --dry-run do without

    view = ProgressView(_err)
    summary = _run_async(conductor.resume(resumption, view) if resumption else conductor.train(resolved, view))
    _print_summary(summary)


@app.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="RUN_DIR|FILE", help="A run directory, or an ATIF trajectory (JSON).")],
    episode: Annotated[str | None, typer.Argument(help="An episode id, such as g000012-a03; none shows the run.")] = None,
    atif: Annotated[
        str | None,
        typer.Option(metavar="FILE|FOLDER", help="Write the episode to FILE (- is stdout), or all to FOLDER, as ATIF-v1.8 trajectories."),
    ] = None,
) -> None:
    """Show a run (finished, going on or crashed), or one of its episodes with the tokens that were trained; or a trajectory file."""
    from trunkline.run.show import show_episode, show_run
    from trunkline.run.show_atif import export_episode, export_run, show_trajectory

    if path.is_file():
        if episode is not None or atif is not None:
            raise ConfigError(f"{path} is a file, one trajectory that is shown as it is; give a run directory with an episode id or --atif")
        show_trajectory(path, _out)
    elif atif is not None:
        export_run(path, atif, _out) if episode is None else export_episode(path, episode, atif)
    elif episode is None:
        show_run(path, _out)
    else:
        show_episode(path, episode, _out)


@app.command()
def doctor(
    run_dir: Annotated[Path, typer.Argument(help="A run directory, finished, going on or crashed.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say why a run does not learn: each check with its number, its threshold and what to do.

    Exit codes: 0 also if there are faults (they are the answer), 1 if the run could not be read.
    """
    from trunkline.run.doctor import examine

    examine(run_dir, _out, as_json=as_json)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A Hugging Face folder, a .gguf file, or a fetched model's name such as smollm2.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8000,
    host: Annotated[str, typer.Option(help="Interface to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    is_open: Annotated[bool, typer.Option("--open", help="The key is 'trunkline' instead of a fresh one; loopback only.")] = False,
    renderer: Annotated[str, typer.Option(help="Chat format: auto, tiny, chatml, or a name of the renderers package.")] = "auto",
    max_cached_tokens: Annotated[
        int | None, typer.Option(min=16, help="Tokens whose keys and values are kept; default: what 512 MB hold.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Sampled tokens of a call whose client names no limit.")] = 1024,
    record: Annotated[Path | None, typer.Option(help="Write every call to this journal (sqlite); default: nothing is written.")] = None,
) -> None:
    """Serve a model to anyone with curl or OpenAI's SDK: Chat Completions on a local port, until Ctrl-C.

    What clients ask of the sampler (temperature, top_p, seed, max_tokens, stop) is honoured. Exit codes: 0 when stopped by
    Ctrl-C or SIGTERM, 1 if the engine dies, 2 if an argument is wrong.
    """
    from trunkline.models.fetch import resolve_model
    from trunkline.run.serve import Served, ServeOptions
    from trunkline.run.serve import serve as run_server

    def announce(served: Served) -> None:
        for line in served.lines():
            _print_plain(line)

    folder = resolve_model(model)
    _err.print(f"loading {folder} ...", markup=False, highlight=False, soft_wrap=True)
    options = ServeOptions(
        model=folder,
        model_name=Path(model).resolve().name,
        host=host,
        port=port,
        is_open=is_open,
        renderer=renderer,
        max_cached_tokens=max_cached_tokens,
        max_tokens=max_tokens,
        record=record,
    )
    _run_async(run_server(options, announce))
    _err.print("stopped")


@app.command()
def rollout(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/quickstart.toml.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides: agent.max_turns=4")] = None,
    split: Annotated[str, typer.Option(help="Which tasks: heldout, train, or another split of the taskset.")] = "heldout",
    episodes: Annotated[
        int | None, typer.Option(min=1, help="One attempt at each of that many tasks; default: the recipe's evaluation.episodes.")
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Temperature 0 instead of the recipe's agent.temperature.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write; default: runs/NAME-rollout-seedSEED, or the next free name.")] = None,
    model: Annotated[str | None, typer.Option(help="A Hugging Face folder, or a fetched model's name, instead of the recipe's.")] = None,
) -> None:
    """Run a recipe's agent and verifier on its tasks, without training: success with a 95% Wilson interval, tokens, seconds."""
    from trunkline.models.fetch import resolve_model
    from trunkline.run.rollout import RolloutPlan, report
    from trunkline.run.rollout import rollout as run_plan

    chosen = [] if model is None else [f"model.path={json.dumps(str(resolve_model(model)))}"]
    resolved = load_recipe(recipe, [*(overrides or []), *chosen])
    named = resolved.model_copy(update={"name": f"{resolved.name}-rollout", "run_dir": out or resolved.run_dir})
    plan = RolloutPlan(split, episodes or resolved.evaluation.episodes, is_greedy=greedy)
    for line in report(_run_async(run_plan(named, plan, ProgressView(_err)))):
        _print_plain(line)


@app.command()
def grid(
    path: Annotated[Path, typer.Argument(metavar="GRID", help="Arms by seeds, such as recipes/grids/smollm2.toml.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run directories; the same one takes the grid up again.")],
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at once; each uses about one core.")] = 1,
) -> None:
    """Run a grid of trainings, skipping what is done and resuming what was cut, and print its table."""
    from trunkline.run.grid import grid as run_the_grid

    try:
        run_the_grid(path, out, jobs=jobs, console=_out)
    except KeyboardInterrupt:
        _err.print("interrupted; the same command takes the grid up again")
        raise typer.Exit(130) from None


app.command()(conformance)


def _print_plain(line: str) -> None:
    """As it is: nothing wrapped or coloured, so that it can be copied."""
    _out.print(line, markup=False, highlight=False, soft_wrap=True)


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
    before = f"{start['value']:.3f} [{start['low']:.3f}, {start['high']:.3f}] → " if start else ""
    _out.print(
        f"held-out success {before}[bold]{end['value']:.3f}[/bold] [{end['low']:.3f}, {end['high']:.3f}] (n = {end['n']}), "
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
