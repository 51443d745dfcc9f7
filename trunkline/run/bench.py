"""`trunkline bench`: the project's benchmarks, each a table, a plot and JSON. Owns the command line; what is measured is bench/'s."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from trunkline.bench.result import Result

bench_app = typer.Typer(no_args_is_help=True, help="Measure Trunkline on this machine; exit code 1 if a demand does not hold.")
_out = Console()
_err = Console(stderr=True)

Json = Annotated[Path | None, typer.Option("--json", help="Write machine, versions, command and rows to this file.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the distributions to this file (PNG, SVG or PDF).")]


@bench_app.callback()
def _bench() -> None:
    """Measure Trunkline on this machine."""


@bench_app.command()
def sandbox(
    json_path: Json = None,
    plot: Plot = None,
    image: Annotated[str | None, typer.Option(help="Compare with the container backend on this image of a Docker engine.")] = None,
    commands: Annotated[int, typer.Option(min=10, help="Commands in a running sandbox.")] = 200,
    starts: Annotated[int, typer.Option(min=4, help="Creations and forks.")] = 40,
    cycles: Annotated[int, typer.Option(min=1, help="Create-run-destroy cycles.")] = 200,
) -> None:
    """Isolated sandboxes: commands, starts, forks, disk, and what is left; about a minute."""
    from trunkline.bench.sandbox import SandboxBenchPlan, bench_sandbox

    plan = SandboxBenchPlan(num_commands=commands, num_starts=starts, num_cycles=cycles, image=image)
    _finish(_watched(lambda folder, advance: bench_sandbox(plan, folder, advance)), json_path, plot)


@bench_app.command()
def gateway(
    json_path: Json = None,
    plot: Plot = None,
    quick: Annotated[bool, typer.Option("--quick", help="Every phase, but briefly: whether it works; its numbers say nothing.")] = False,
) -> None:
    """What a call costs between agent and engine: CPU, latency, throughput, memory, long contexts; about a quarter of an hour."""
    from trunkline.bench.gateway.bench import QUICK, GatewayBenchPlan, bench_gateway

    plan = QUICK if quick else GatewayBenchPlan()
    _finish(_watched(lambda folder, advance: bench_gateway(plan, folder, advance)), json_path, plot)


@bench_app.command()
def tree(
    json_path: Json = None,
    plot: Plot = None,
    workload: Annotated[
        list[str] | None, typer.Option("--workload", help="Only this one, such as A or 'B sparse'; may come again.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved runs of each contender.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, or cuda (larger models, and more workloads).")] = "cpu",
    dtype: Annotated[str, typer.Option(help="What is computed in, over fp32 weights: float32 or bfloat16.")] = "float32",
    memory: Annotated[bool, typer.Option(help="Also peak memory.")] = True,
) -> None:
    """Forest training against the best flat micro-batches and whole trajectories: speed, gradients, memory; about an hour."""
    from trunkline.bench.tree.bench import TreeBenchPlan, bench_tree

    plan = TreeBenchPlan(tuple(workload or ()), num_rounds=rounds, device=device, compute_dtype=dtype, with_memory=memory)
    with _Bars() as advance:
        result = bench_tree(plan, advance)
    _finish(result, json_path, plot)


@bench_app.command()
def trainer(
    json_path: Json = None,
    plot: Plot = None,
    turns: Annotated[int, typer.Option(min=1, help="Processes of each trainer, by turns.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of a process.")] = 5,
) -> None:
    """One RL step here and in TRL's GRPOTrainer, on the same data (needs the extra `bench`); a few minutes."""
    from trunkline.bench.trainer.bench import TrainerBenchPlan, bench_trainer

    with _Bars() as advance, tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        result = bench_trainer(TrainerBenchPlan(turns, steps), Path(folder), advance)
    _finish(result, json_path, plot)


@bench_app.command()
def overlap(
    run_dir: Annotated[Path, typer.Argument(help="A run that trained by RL, finished or not, such as runs/quickstart-seed1.")],
    json_path: Json = None,
    plot: Plot = None,
    timed: Annotated[int, typer.Option(min=0, help="Steps whose forward and backward are timed; 0: count only, in seconds.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved runs of each form of a timed step.")] = 5,
) -> None:
    """How much the samples of a run shared, per step, task and kind: tokens, FLOPs, measured; minutes for a small model."""
    from trunkline.bench.overlap.bench import OverlapBenchPlan, bench_overlap

    with _Bars() as advance:
        result = bench_overlap(OverlapBenchPlan(run_dir, num_timed=timed, num_rounds=rounds), advance)
    _finish(result, json_path, plot)


@bench_app.command()
def engine(
    json_path: Json = None,
    plot: Plot = None,
    model: Annotated[str, typer.Option(help="Name of a fetched model, or a model folder.")] = "smollm2",
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each batch size with each engine.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tiny random model, briefly: whether it works; its numbers say nothing.")
    ] = False,
) -> None:
    """Decoding of the local engine against transformers' static and continuous batching, on one thread; about half an hour."""
    from trunkline.bench.engine.bench import QUICK, EngineBenchPlan, bench_engine

    plan = QUICK if quick else EngineBenchPlan(model, num_rounds=rounds)
    with _Bars() as advance, tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        result = bench_engine(plan, Path(folder), advance)
    _finish(result, json_path, plot)


@bench_app.command()
def verifier(
    json_path: Json = None,
    plot: Plot = None,
    tasks: Annotated[list[Path] | None, typer.Option("--tasks", help="Task directories, or folders of them; may come again.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Verdicts on the solution of each task.")] = 50,
    naive: Annotated[int, typer.Option(min=0, help="Of the tasks, how many the naive verifiers judge every attack on.")] = 2,
    table: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what each attack was paid, as Markdown.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One task, three attacks, briefly: whether it works; its numbers say nothing.")
    ] = False,
) -> None:
    """Verdicts and certificates of software tasks: CPU, attacks accepted, flakes, usual verifiers beside; about an hour for all."""
    from trunkline.bench.verifier.bench import VerifierBenchPlan, attack_table, bench_verifier, quick_plan
    from trunkline.tasks.swe.task import load_code_task
    from trunkline.tasks.swe.taskset import find_tasks

    found = tuple(load_code_task(folder) for folder in find_tasks(tasks or [Path("tasks/software")]))
    with _Bars() as advance:
        plan = quick_plan(found) if quick else VerifierBenchPlan(found, repeats, naive)
        result, outcomes = asyncio.run(bench_verifier(plan, advance))
    if table is not None:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(attack_table(outcomes), encoding="utf-8")
    _finish(result, json_path, plot)


def _watched(bench: Callable[[Path, Callable[[str, int, int], None]], Coroutine[Any, Any, Result]]) -> Result:
    """Runs a benchmark in a scratch folder, with a bar for each of its parts."""
    with _Bars() as advance, tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        return asyncio.run(bench(Path(folder), advance))


class _Bars:
    """Within a `with`: a function (name, done, total) that keeps a bar for each name."""

    def __init__(self) -> None:
        self._progress = Progress(console=_err, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done)


def _finish(result: Result, json_path: Path | None, plot: Path | None) -> None:
    _out.print(result.table())
    if json_path is not None:
        result.write_json(json_path)
    if plot is not None:
        result.draw(plot)
    if result.failed:
        names = "; ".join(f"{row.row}, {row.metric}: {row.value:.4g} {row.unit}, demanded {row.demand}" for row in result.failed)
        _err.print(f"{len(result.failed)} of the demands fail: {names}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
