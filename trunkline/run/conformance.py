"""`trunkline conformance`: capture proxies through hard cases. Owns the command line; cases and targets are bench/conformance's."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

_out = Console()
_err = Console(stderr=True)


def conformance(
    url: Annotated[str | None, typer.Argument(help="A bridge that runs already; default: the target is started.")] = None,
    target: Annotated[str, typer.Option(help="trunkline, agentlightning, openenv, rllm or verifiers.")] = "trunkline",
    python: Annotated[str, typer.Option(help="The interpreter of the environment in which that project is installed.")] = sys.executable,
    case: Annotated[list[str] | None, typer.Option("--case", help="Only cases whose name holds this; may be given more than once.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write machine, versions, command and verdicts to this file.")] = None,
    engine_port: Annotated[int, typer.Option(min=0, max=65535, help="Where the kit's engine listens, for a bridge that runs already.")] = 0,
) -> None:
    """Drive a capture proxy through hard cases and compare its record with what was sampled; pass, fail or unsupported per case.

    The kit is the agent in front of the proxy and the engine behind it. Exit codes: 0 if no case failed, 1 if one did, 2 if an
    argument is wrong.
    """
    from trunkline.bench.conformance.kit import ConformancePlan, run_conformance

    plan = ConformancePlan(target=target, python=python, url=url, engine_port=engine_port, cases=tuple(case or ()))
    with Progress(console=_err, transient=True) as bars:
        bar = bars.add_task("starting", total=None)

        def advance(name: str, done: int, total: int) -> None:
            bars.update(bar, description=name, completed=done, total=total)

        report = asyncio.run(run_conformance(plan, advance))
    if json_path is not None:
        report.write_json(json_path)
    _out.print(report.table())
    _out.print(report.summary, markup=False, highlight=False, soft_wrap=True)
    if report.count("fail"):
        raise typer.Exit(1)
