"""Verdicts on software tasks: CPU-seconds, attacks accepted, flakes; and what usual verifiers accept. Owns what is measured.

each task ─► certificate, made anew ─► verdicts on its solution, again and again ─► one on nothing
some tasks ─► every attack ─► each naive verifier, in the attempt's own sandbox with what a careless set-up leaves there

Nothing else runs meanwhile, so CPU-seconds of a part are those of this process and its children while it lasts.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from trunkline.bench.result import Demand, Result, Row
from trunkline.errors import TrunklineError
from trunkline.evals.statistics import proportion
from trunkline.metrics.processes import ProcessMeter
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.certificate import NO_OP, Certificate
from trunkline.tasks.swe.attacks import Attack, Instance, NaiveKind, Scene, carry_out, instantiate, load_corpus
from trunkline.tasks.swe.certify import calibration_of, certify_task
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.material import Material, gather_material
from trunkline.tasks.swe.naive import judge_naively, staged
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.verifier import CodeVerifier
from trunkline.types import FileChange

Progress = Callable[[str, int, int], None]
_METER = ProcessMeter()
_CERTIFICATE_REPEATS = 5
"""Verdicts on the solution that a usual certificate is made of."""
NAIVE_KINDS: tuple[NaiveKind, ...] = get_args(NaiveKind)


@dataclass(frozen=True)
class VerifierBenchPlan:
    """How much is done."""

    tasks: tuple[CodeTask, ...]
    """Certified and judged."""
    num_repeats: int = 50
    """Verdicts on each task's solution."""
    num_naive: int = 2
    """Of the tasks, those with the least source, on which the naive verifiers judge every attack."""
    attacks: tuple[Attack, ...] | None = None
    """None: the whole corpus."""

    @property
    def corpus(self) -> tuple[Attack, ...]:
        """What is tried."""
        return load_corpus() if self.attacks is None else self.attacks


def quick_plan(tasks: Sequence[CodeTask]) -> VerifierBenchPlan:
    """Every part, but briefly."""
    few = ("conftest-report-hook", "conftest-exit", "git-history")
    return VerifierBenchPlan(tuple(_smallest(tasks, 1)), 2, 1, tuple(attack for attack in load_corpus() if attack.name in few))


@dataclass(frozen=True)
class AttackOutcome:
    """What verifiers paid for one attack."""

    attack: Attack
    """Which."""
    accepted_by: dict[str, int]
    """Naive verifier to the number of tasks on which it paid."""
    num_tried: int
    """Tasks on which the naive verifiers judged it."""
    num_accepted: int
    """Tasks on which ours paid."""
    num_certified: int
    """Tasks on which ours judged it."""


@dataclass
class Measured:
    """What was found, as it comes in."""

    certificates: dict[str, Certificate] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    num_verdicts: int = 0
    num_flakes: int = 0
    naive: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """(attack, naive verifier) to the rewards."""
    naive_honest: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Naive verifier to its rewards for the solution."""

    def outcomes(self, corpus: Sequence[Attack]) -> list[AttackOutcome]:
        """One an attack, in its order."""
        checks = [check for certificate in self.certificates.values() for check in certificate.checks if check.earns == 0]
        found = []
        for attack in corpus:
            ours = [check for check in checks if check.conduct == attack.name]
            paid: dict[str, int] = {kind: sum(value > 0 for value in self.naive[attack.name, kind]) for kind in NAIVE_KINDS}
            num_tried = max(len(self.naive[attack.name, kind]) for kind in NAIVE_KINDS)
            found.append(AttackOutcome(attack, paid, num_tried, sum(check.num_wrong for check in ours), len(ours)))
        return found


async def bench_verifier(plan: VerifierBenchPlan, progress: Progress) -> tuple[Result, list[AttackOutcome]]:
    """Runs it. Raises CertificateError that names each attack that was paid on a task, SandboxUnavailable."""
    measured = Measured()
    environment = await asyncio.to_thread(verdict_environment)
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        place = VerdictPlace(sandboxes, environment)
        for number, task in enumerate(plan.tasks):
            progress("certificates", number, len(plan.tasks))
            await _certify(task, plan, place, sandboxes, measured)
        progress("certificates", len(plan.tasks), len(plan.tasks))
        await _verdicts(plan, place, measured, progress)
        await _naively(plan, place, sandboxes, measured, progress)
    outcomes = measured.outcomes(plan.corpus)
    return Result("Verdicts on software tasks", tuple(_rows(plan, measured, outcomes)), dict(measured.samples), "CPU-seconds"), outcomes


async def _certify(task: CodeTask, plan: VerifierBenchPlan, place: VerdictPlace, sandboxes: IsolatedSandboxes, measured: Measured) -> None:
    before = _METER.cpu_seconds()
    repeats = min(_CERTIFICATE_REPEATS, plan.num_repeats)
    certificate = await certify_task(task, place, sandboxes=sandboxes, repeats=repeats, attacks=plan.attacks)
    measured.certificates[task.task_id] = certificate
    measured.samples["a certificate"].append(_METER.cpu_seconds() - before)


async def _verdicts(plan: VerifierBenchPlan, place: VerdictPlace, measured: Measured, progress: Progress) -> None:
    certified = plan.tasks
    for number, task in enumerate(certified):
        calibration = calibration_of(measured.certificates[task.task_id])
        if calibration is None:
            continue
        oracle = await oracle_changes(task, place)
        verifier = CodeVerifier(task, calibration, place, oracle=oracle)
        for repeat in range(plan.num_repeats):
            value = await _timed(verifier, oracle, measured.samples["a verdict on the solution"])
            measured.num_verdicts += 1
            measured.num_flakes += value != 1.0
            progress("verdicts on solutions", number * plan.num_repeats + repeat + 1, len(certified) * plan.num_repeats)
        measured.num_verdicts += 1
        measured.num_flakes += await _timed(verifier, (), measured.samples["a verdict on nothing"]) != 0.0


async def _timed(verifier: CodeVerifier, changes: Sequence[FileChange], seconds: list[float]) -> float | None:
    """The value; None for no verdict, which counts as a flake."""
    before = _METER.cpu_seconds()
    try:
        return (await verifier.judge(changes)).value
    except TrunklineError:
        return None
    finally:
        seconds.append(_METER.cpu_seconds() - before)


async def _naively(
    plan: VerifierBenchPlan, place: VerdictPlace, sandboxes: IsolatedSandboxes, measured: Measured, progress: Progress
) -> None:
    tasks = _smallest(plan.tasks, plan.num_naive)
    total, done = len(tasks) * len(plan.corpus) * len(NAIVE_KINDS), 0
    for task in tasks:
        oracle = await oracle_changes(task, place)
        material = await gather_material(task, place, oracle)
        for kind in NAIVE_KINDS:
            solved = Instance(oracle, "")
            before = _METER.cpu_seconds()
            measured.naive_honest[kind].append(await _naive_reward(kind, solved, "", sandboxes, material))
            measured.samples[f"a naive verdict ({kind})"].append(_METER.cpu_seconds() - before)
            for attack in plan.corpus:
                instance = instantiate(attack, material)
                if isinstance(instance, Instance):
                    reward = await _naive_reward(kind, instance, attack.scene, sandboxes, material)
                    measured.naive[attack.name, kind].append(reward)
                done += 1
                progress("attacks on naive verifiers", done, total)


async def _naive_reward(kind: NaiveKind, instance: Instance, scene: Scene, sandboxes: IsolatedSandboxes, material: Material) -> float:
    async with staged(scene, sandboxes, material) as sandbox:
        await carry_out(instance, sandbox)
        return await judge_naively(kind, sandbox, material.task, material.test_ids)


def _smallest(tasks: Sequence[CodeTask], num: int) -> list[CodeTask]:
    """Where an attack has the least to go wrong for reasons of its own."""
    return sorted(tasks, key=lambda task: sum(path.stat().st_size for path in task.workspace.rglob("*.py")))[:num]


def _rows(plan: VerifierBenchPlan, measured: Measured, outcomes: Sequence[AttackOutcome]) -> list[Row]:
    rows = []
    for name, seconds in measured.samples.items():
        rows.append(Row(name, "median", statistics.median(seconds), "CPU-s"))
        rows.append(Row(name, "maximum", max(seconds), "CPU-s"))
    tried = sum(outcome.num_certified for outcome in outcomes)
    rows.append(Row("tasks", "certified", len(measured.certificates), "tasks"))
    rows.append(Row("attacks on ours", "tried", tried, "verdicts"))
    rows.append(Row("attacks on ours", "accepted", sum(outcome.num_accepted for outcome in outcomes), "verdicts", Demand("<=", 0)))
    no_op = [check for certificate in measured.certificates.values() for check in certificate.checks if check.conduct == NO_OP]
    rows.append(Row("doing nothing", "accepted", sum(check.num_wrong for check in no_op), "verdicts", Demand("<=", 0)))
    rows.append(Row("repeated verdicts", "made", measured.num_verdicts, "verdicts"))
    rows.append(Row("repeated verdicts", "flakes", measured.num_flakes, "verdicts", Demand("<=", 0)))
    if measured.num_verdicts:
        upper = proportion(measured.num_flakes, measured.num_verdicts).high
        rows.append(Row("repeated verdicts", "flake rate, upper end of its 95% interval", upper, ""))
    for kind in NAIVE_KINDS:
        num_tried = sum(outcome.num_tried for outcome in outcomes)
        if num_tried:
            accepted = sum(outcome.accepted_by[kind] for outcome in outcomes)
            rows.append(Row(f"attacks on the naive verifier by {kind}", "accepted", accepted, f"of {num_tried}"))
    fooled = sum(any(outcome.accepted_by.values()) for outcome in outcomes)
    rows.append(Row("attacks that fool a naive verifier", "attacks", fooled, f"of {sum(outcome.num_tried > 0 for outcome in outcomes)}"))
    return rows


def attack_table(outcomes: Sequence[AttackOutcome]) -> str:
    """Markdown: attack, kind, what it does, what each verifier paid, what stops it."""
    head = ["attack", "kind", "what it does", *(f"naive: {kind}" for kind in NAIVE_KINDS), "ours", "what stops it"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.attack.kind, outcome.attack.name)):
        naive = [f"{outcome.accepted_by[kind]} of {outcome.num_tried}" if outcome.num_tried else "" for kind in NAIVE_KINDS]
        ours = f"{outcome.num_accepted} of {outcome.num_certified}" if outcome.num_certified else "not tried"
        cells = [outcome.attack.name, outcome.attack.kind, outcome.attack.summary, *naive, ours, outcome.attack.stopped_by]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
