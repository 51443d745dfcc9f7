"""`trunkline tasks`: software tasks as directories. Owns arguments and printing; the work is tasks/'s and certifying.py's."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from trunkline.errors import ConfigError
from trunkline.run.mine_command import mine

if TYPE_CHECKING:
    from trunkline.run.certifying import Outcome

tasks_app = typer.Typer(no_args_is_help=True, help="Software tasks: list, show, certify, verify, mine, audit, new, import, export.")
tasks_app.command()(mine)
_out = Console()
_err = Console(stderr=True)

Directories = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Task directories, or folders of them.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A task's directory.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write.")]


@tasks_app.callback()
def _tasks() -> None:
    """Software tasks in Harbor directories: their certificates, their verdicts, other formats."""


@tasks_app.command("list")
def list_tasks(directories: Directories) -> None:
    """Each task with its kind, its judge and whether our store holds its certificate."""
    from trunkline.run.certifying import overview
    from trunkline.tasks.swe.taskset import find_tasks

    table = Table(box=None, pad_edge=False)
    for title in ("task", "kind", "judged by", "certificate", "fail to pass", "pass to pass", "held-out", "folder"):
        table.add_column(title, justify="right" if title.endswith("to pass") else "left", no_wrap=True)
    for folder in find_tasks(directories):
        table.add_row(*map(escape, _run(overview(folder))))
    Console(width=1000).print(table, highlight=False)  # nothing is shortened: names and folders are there to be copied


@tasks_app.command()
def show(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as it is stored.")] = False,
) -> None:
    """One task: its statement, what of its format is not honoured, and its certificate with what that does not exclude."""
    from trunkline.run.certifying import certificate_of, describe

    if as_json:
        certificate = _run(certificate_of(directory))
        if certificate is None:
            raise ConfigError(f"{directory} has no certificate in our store; trunkline tasks certify {directory}")
        _print(certificate.model_dump_json(indent=1))
        return
    for line in _run(describe(directory)):
        _print(line)


@tasks_app.command()
def certify(
    directories: Directories,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Tasks at once; each uses about one core.")] = os.cpu_count() or 1,
    repeats: Annotated[int, typer.Option(min=2, help="Verdicts on the solution, which must all agree.")] = 5,
    force: Annotated[bool, typer.Option("--force", help="Certify again what has a certificate.")] = False,
) -> None:
    """Show that each task pays its solution and nothing else, and keep that in our store: about a minute a task.

    A task whose workspace is in its image (environment/Dockerfile, docker_image) needs a container engine; others need none.

    The solution must earn 1 each time, doing nothing and every attack of the corpus 0. What has a certificate is passed over, so an
    interrupted call is taken up again. Exit codes: 0 all certified; 1 some are not, with the reasons; 2 a directory is no task.
    """
    from trunkline.metrics.processes import ProcessMeter
    from trunkline.run.certifying import certify_all
    from trunkline.tasks.swe.taskset import find_tasks

    folders = find_tasks(directories)
    meter = ProcessMeter()
    before = meter.cpu_seconds()
    with _Bars(len(folders)) as bars:
        outcomes = _run(certify_all(folders, jobs=jobs, repeats=repeats, force=force, on_step=bars.advance, on_end=bars.end))
    refused = [outcome for outcome in outcomes if outcome.refusal]
    for outcome in refused:
        _err.print(f"not certified: {outcome.name}: {outcome.refusal}", style="red", markup=False, highlight=False, soft_wrap=True)
    for line in _grouped(outcomes):
        _print(line)
    spent = meter.cpu_seconds() - before
    _print(f"{len(outcomes) - len(refused)} of {len(outcomes)} tasks have a certificate ({spent:.0f} CPU-seconds spent)")
    if refused:
        raise typer.Exit(1)


@tasks_app.command()
def verify(
    directory: Directory,
    patch: Annotated[Path | None, typer.Option(metavar="FILE", help="Judge this unified diff (- is stdin).")] = None,
    workspace: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Judge this folder, as an agent left it.")] = None,
    oracle: Annotated[bool, typer.Option("--oracle", help="Judge the task's own solution.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Judge some work on a task as a run would, and say why. Without an option: the untouched workspace, which must earn 0.

    A task without a certificate is calibrated first. Exit codes: 0 there is a verdict, whatever it is; 1 there is none.
    """
    from trunkline.run.judging_work import WorkSource, verify_work

    if sum(map(bool, (patch, workspace, oracle))) > 1:
        raise ConfigError("choose one of --patch, --workspace and --oracle")
    with _err.status("verifying") as status:
        source = WorkSource(patch=patch, workspace=workspace, is_oracle=oracle)
        judged = _run(verify_work(directory, source, on_step=lambda words: status.update(escape(words))))
    if as_json:
        _print(json.dumps(judged.as_dict(), ensure_ascii=False))
        return
    for line in judged.lines():
        _print(line)


@tasks_app.command()
def new(directory: Directory) -> None:
    """Write a small, complete task to start from; it certifies as it is (docs/11-certified-rewards.md)."""
    from trunkline.tasks.swe.scaffold import write_scaffold

    write_scaffold(directory)
    _print(f"written: {directory}")
    _print(f"next:    trunkline tasks certify {directory}")


@tasks_app.command("import")
def import_instances(
    instances: Annotated[Path, typer.Argument(metavar="FILE", help="SWE-bench instances: JSON or JSON lines.")],
    repositories: Annotated[Path, typer.Option(help="Local clones: REPOSITORIES/owner__name, or owner/name.")],
    out: Out,
) -> None:
    """Write SWE-bench instances as task directories: workspace without history, hidden tests, solution, Dockerfile."""
    from trunkline.run.converting import import_all

    for name, (outcome, *notices) in import_all(instances, repositories, out):
        _print(f"{name}: {outcome}")
        for notice in notices:
            _print(f"  not used: {notice}")


@tasks_app.command()
def export(directories: Directories, out: Out) -> None:
    """Write tasks as SWE-bench instances (JSON lines): patch, test_patch, FAIL_TO_PASS, PASS_TO_PASS."""
    from trunkline.run.converting import export_all
    from trunkline.tasks.swe.taskset import find_tasks

    _print(f"{_run(export_all(find_tasks(directories), out))} instances in {out}")


@tasks_app.command()
def predictions(
    run_dir: Annotated[Path, typer.Argument(help="A run or rollout over software tasks.")],
    out: Out,
) -> None:
    """Write what the attempts of a run changed as SWE-bench predictions (JSON lines): instance_id, model_name_or_path, model_patch."""
    from trunkline.run.predictions import predictions as predictions_of

    found = predictions_of(run_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found), encoding="utf-8")
    _print(f"{len(found)} predictions in {out}")


@tasks_app.command()
def audit(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Runs or rollouts over software tasks.")],
    own_tests: Annotated[bool, typer.Option("--own-tests", help="Also count what would fool the workspace's own tests.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the counts and intervals there.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw rewarded and right over training (PNG).")] = None,
) -> None:
    """Judge what runs were rewarded for again, by each task's own verifier: how much was right, and how much fooled its reward.

    The same work on the same task is judged once, over all runs. Tasks without a certificate are calibrated first.
    """
    from trunkline.run.audit_report import draw_audit, table_lines
    from trunkline.run.auditing import audit as audit_runs

    with _err.status("reading") as status:

        def on_step(done: int, total: int) -> None:
            status.update(f"judging: {done} of {total} distinct works")

        moments = _run(audit_runs(run_dirs, own_tests=own_tests, on_step=on_step))
    for line in table_lines(moments):
        _print(line)
    if json_path is not None:
        json_path.write_text(json.dumps([moment.as_dict() for moment in moments], indent=1) + "\n", encoding="utf-8")
    if picture is not None:
        draw_audit(picture, moments)


def _grouped(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Each notice once, with the tasks that it is of."""
    of: dict[str, list[str]] = {}
    for outcome in outcomes:
        for notice in outcome.notices:
            of.setdefault(notice, []).append(outcome.name)
    for notice, names in of.items():
        yield f"notice: {names[0] if len(names) == 1 else f'{len(names)} tasks'}: {notice}"


class _Bars:
    """A bar for all tasks, and one for each that is under way."""

    def __init__(self, num_tasks: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=_err, transient=True)
        self._all = self._progress.add_task("tasks", total=num_tasks)
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, name: str, step: str, done: int, total: int) -> None:
        """One more step of a task."""
        if name not in self._bars:
            self._bars[name] = self._progress.add_task("", total=total)
        self._progress.update(self._bars[name], description=escape(f"{name}: {step}"[:70]), completed=done, total=total)

    def end(self, name: str, line: str) -> None:
        """A task is done; its line stays on the screen."""
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))
        self._progress.advance(self._all)
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        _err.print("interrupted; what was certified is kept, and the same command takes the rest up")
        raise typer.Exit(130) from None


def _print(line: str) -> None:
    _out.print(line, markup=False, highlight=False, soft_wrap=True)
