"""`trunkline agent`: published agents by their adapters. Owns arguments and printing; the work is agents/'s."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trunkline.agents.adapter import Adapter, find_adapter, shipped_adapters

agent_app = typer.Typer(no_args_is_help=True, help="Published agents, unmodified: list, show, install.")
_out = Console()
_err = Console(stderr=True)

Named = Annotated[str, typer.Argument(metavar="NAME|FILE.toml", help="A shipped adapter, or the file of any other.")]


@agent_app.callback()
def _agent() -> None:
    """Published agents, unmodified: list, show, install."""


@agent_app.command("list")
def list_adapters() -> None:
    """The adapters that come with Trunkline."""
    from trunkline.agents.installation import is_installed

    table = Table(box=None, pad_edge=False)
    for title in ("name", "version", "wire", "by", "installed", "what it is"):
        table.add_column(title, no_wrap=title != "what it is")
    for adapter in shipped_adapters():
        file = adapter.file
        version, installer = (file.install.version, file.install.installer) if file.install else ("", "")
        table.add_row(file.name, version, file.wire, installer, "yes" if is_installed(adapter) else "no", file.description)
    _out.print(table, highlight=False)


@agent_app.command()
def show(name: Named) -> None:
    """One adapter: its file as it is, and where its installation is."""
    from trunkline.agents.installation import installation_folder, is_installed

    adapter = find_adapter(name)
    _print(f"# {adapter.path}")
    _print(adapter.path.read_text(encoding="utf-8").rstrip())
    folder = installation_folder(adapter)
    _print("")
    where = "installed in" if is_installed(adapter) else "not installed; goes to"
    _print("# needs no installation" if folder is None else f"# {where} {folder}")


@agent_app.command()
def install(
    name: Named,
    force: Annotated[bool, typer.Option("--force", help="Install it again even if it is there.")] = False,
) -> None:
    """Install an agent's pinned version into $TRUNKLINE_HOME/agents (or ~/.cache/trunkline/agents), and say how to use it.

    Exit codes: 0 also if it was there already; 1 if the installer failed; 2 if the adapter is wrong, or pip or npm is missing.
    """
    from trunkline.agents.installation import install as install_adapter

    adapter = find_adapter(name)
    with _Steps() as steps:
        folder = install_adapter(adapter, steps.show, replace=force)
    for line in usage(adapter, name, folder):
        _print(line)


def usage(adapter: Adapter, name: str, folder: Path | None) -> list[str]:
    """What to do with it now."""
    file = adapter.file
    return [
        f"{file.name} {file.install.version} is installed in {folder}" if file.install else f"{file.name} needs no installation",
        *([f"its licence: {file.licence}"] if file.licence else []),
        f'in a recipe:        [agent]  adapter = "{name}"',
        f"on a command line:  trunkline rollout RECIPE agent.adapter={name}",
    ]


class _Steps:
    """The step that is under way, with the last line of what it says; each step that begins stays on the screen."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=_err, transient=True)
        self._title = ""

    def __enter__(self) -> _Steps:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, title: str, log: Path) -> None:
        """An OnStep."""
        if title != self._title:
            for task in self._progress.task_ids:
                self._progress.remove_task(task)
            _err.print(title, markup=False, highlight=False, soft_wrap=True)
            self._title = title
            self._progress.add_task("")
        self._progress.update(self._progress.task_ids[-1], description=_last_line(log))


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:80].replace("[", r"\[") if lines else ""


def _print(line: str) -> None:
    _out.print(line, markup=False, highlight=False, soft_wrap=True)
