"""Runs the cases against a target and says what came out. Owns the engine's life and the verdicts; cases.py has the cases.

engine (this process) ◄── target ◄── case ──► verdict
        └── draws ─────────► compared ◄── record
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp
from rich.table import Table

from trunkline.asgi import serve_port, serve_uds
from trunkline.bench.conformance.cases import CASES, Case
from trunkline.bench.conformance.engine import StubEngine
from trunkline.bench.conformance.engine_http import build_engine_app
from trunkline.bench.conformance.model import ChatModel, write_model
from trunkline.bench.conformance.scene import CaseFailed, CaseUnsupported, Scene
from trunkline.bench.conformance.targets import BridgeTarget, EngineAddress, Target, TrunklineTarget
from trunkline.bench.result import machine, versions
from trunkline.errors import ConfigError, TrunklineError

Outcome = Literal["pass", "fail", "unsupported"]
_CASE_S = 60.0


@dataclass(frozen=True)
class ConformancePlan:
    """What to test."""

    target: str = "trunkline"
    """trunkline, or the name of a bridge."""
    python: str = sys.executable
    """The interpreter that has the target's project installed; of bridges only."""
    url: str | None = None
    """A bridge that runs already; then `target` is only a name."""
    engine_port: int = 0
    """Where the kit's engine listens; 0 is any free port. A bridge that runs already must know it."""
    cases: tuple[str, ...] = ()
    """Cases whose names hold one of these; none is all."""


@dataclass(frozen=True)
class Verdict:
    """What came of one case."""

    case: str
    """Its name."""
    outcome: Outcome
    """pass, fail, or unsupported: the target says that it does not do this."""
    reason: str
    """What was demanded and what came; empty for a pass."""
    sentence: str
    """What must hold."""


@dataclass(frozen=True)
class ConformanceReport:
    """All verdicts on one target."""

    target: str
    """Its name."""
    version: str
    """Its version."""
    verdicts: tuple[Verdict, ...]
    """In the order of the cases."""

    def count(self, outcome: Outcome) -> int:
        """How many cases came out so."""
        return sum(verdict.outcome == outcome for verdict in self.verdicts)

    @property
    def summary(self) -> str:
        """One line."""
        counts = ", ".join(f"{self.count(outcome)} {outcome}" for outcome in get_args(Outcome))
        return f"{self.target} {self.version}: {counts}"

    def table(self) -> Table:
        """For the terminal."""
        table = Table(box=None, padding=(0, 1))
        for column in ("case", "", "reason"):
            table.add_column(column, overflow="fold")
        styles = {"pass": "green", "fail": "red", "unsupported": "yellow"}
        for verdict in self.verdicts:
            table.add_row(verdict.case, f"[{styles[verdict.outcome]}]{verdict.outcome}[/]", verdict.reason.replace("[", "\\["))
        return table

    def write_json(self, path: Path) -> None:
        """With the machine, versions and the command line of this process."""
        content: dict[str, Any] = {
            "machine": machine(),
            "versions": versions(),
            "command": shlex.join(["trunkline", *sys.argv[1:]]),
            "target": self.target,
            "version": self.version,
            "cases": [asdict(verdict) for verdict in self.verdicts],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


async def run_conformance(plan: ConformancePlan, advance: Callable[[str, int, int], None]) -> ConformanceReport:
    """All chosen cases, one after another, each in a session of its own.

    A target that renders prompts itself can splice sampled tokens, so its model samples in every case tokens that no encoder
    writes. Where the engine renders, that would fail one case after another for one reason; there only the case of drift does so.

    Raises ConfigError for a case or target that is not known, InfraError if a bridge does not start.
    """
    chosen = _choose(plan.cases)
    with tempfile.TemporaryDirectory(prefix="trunkline-conformance-") as folder:
        async with serving_engine(Path(folder), plan.engine_port) as (engine, address), _target(plan, address, engine.model) as target:
            engine.is_drifting = "rendering" not in target.unsupported
            verdicts = []
            for number, case in enumerate(chosen):
                advance(case.name, number, len(chosen))
                verdicts.append(await judge(case, target, engine))
            return ConformanceReport(target.name, target.version, tuple(verdicts))


def _choose(names: Sequence[str]) -> list[Case]:
    chosen = [case for case in CASES if not names or any(name in case.name for name in names)]
    if not chosen:
        raise ConfigError(f"no case's name holds one of {list(names)}; the cases are {[case.name for case in CASES]}")
    return chosen


@asynccontextmanager
async def serving_engine(folder: Path, port: int) -> AsyncIterator[tuple[StubEngine, EngineAddress]]:
    """The kit's engine on a port (0 is any) and on a Unix socket in `folder`, as long as the context lasts."""
    write_model(folder / "model")
    engine = StubEngine(ChatModel.load(folder / "model"))
    app = build_engine_app(engine)
    serving, local = await serve_port(app, port=port), await serve_uds(app, folder / "engine.sock")
    try:
        yield engine, EngineAddress(f"http://127.0.0.1:{serving.port}", folder / "engine.sock", folder / "model")
    finally:
        await serving.stop()
        await local.stop()


@asynccontextmanager
async def _target(plan: ConformancePlan, address: EngineAddress, model: ChatModel) -> AsyncIterator[Target]:
    if plan.url is not None:
        async with BridgeTarget.at(plan.url.rstrip("/")) as target:
            yield target
    elif plan.target == "trunkline":
        async with TrunklineTarget.serving(address, model) as ours:
            yield ours
    else:
        async with BridgeTarget.started(plan.target, plan.python, address) as peer:
            yield peer


async def judge(case: Case, target: Target, engine: StubEngine) -> Verdict:
    """Runs one case in a fresh session."""
    try:
        # A connection for each call: a server that fails may close the one it failed on, and that is no fault of the next call.
        connector = aiohttp.TCPConnector(force_close=True)
        async with asyncio.timeout(_CASE_S), aiohttp.ClientSession(connector=connector) as http:
            await case.act(Scene(target, await target.open(), engine, http))
    except CaseUnsupported as reason:
        return Verdict(case.name, "unsupported", str(reason), case.sentence)
    except CaseFailed as reason:
        return Verdict(case.name, "fail", str(reason), case.sentence)
    except TimeoutError:
        return Verdict(case.name, "fail", f"no end after {_CASE_S:g} s", case.sentence)
    except (TrunklineError, ValueError, aiohttp.ClientError) as error:
        return Verdict(case.name, "fail", str(error), case.sentence)
    return Verdict(case.name, "pass", "", case.sentence)
