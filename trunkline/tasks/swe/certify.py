"""Certifying one software task that runs on this host: its key, what its trial is made of, what it leaves open. Owns no trial (trial.py).

    solution ─► calibration ─► material of attacks, verifier ─► trial ─► Certificate, or CertificateError with the evidence

What a verdict is, verifier.py and script_verifier.py say. Tasks whose files are in an image: container_certify.py.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from trunkline.errors import CertificateError, TaskError
from trunkline.protocols import Sandboxes, Verifier
from trunkline.tasks.base import Subject
from trunkline.tasks.certificates.certificate import Certificate
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.environments.javascript.environment import RECORD
from trunkline.tasks.swe.attacks import Attack, corpus_digest, load_corpus
from trunkline.tasks.swe.calibration import Calibration, calibrate
from trunkline.tasks.swe.environment import environment_key
from trunkline.tasks.swe.inversion.certifying import inversion_attacks_digest, load_inversion_attacks, prepare_inversion
from trunkline.tasks.swe.material import Material, changed_sources, gather_material
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.script_attacks import load_script_attacks, script_attacks_digest
from trunkline.tasks.swe.script_verifier import ScriptVerifier
from trunkline.tasks.swe.sheets import function_of
from trunkline.tasks.swe.task import CodeTask, Judging, task_digest
from trunkline.tasks.swe.trial import NUM_NO_OP, Prepared, Steps, Trial
from trunkline.tasks.swe.verifier import CodeVerifier
from trunkline.types import FileChange

_SOURCES = (
    "tasks/swe/**/*.py", "tasks/certificates/*.py", "tasks/formats/harbor*.py",
    "tasks/environments/identity.py", "tasks/environments/install.py", "tasks/environments/landing.py", "tasks/environments/lock.py",
)  # fmt: skip
"""Not tasks/environments/javascript: a task that uses it has no certificate (require_corpus)."""
_NO_PART = frozenset(
    {"demonstrations", "naive", "own_tests", "practice", "remembered", "scaffold", "surroundings", "taskset", "vocabulary"}
)
"""Modules of this room that verdicts use nothing of: what agents see and are shown, comparisons, and who asks for verdicts."""
_SANDBOX = ("sealed", "host", "layers", "layer_copy", "seccomp", "cgroups")
_MOST_NAMED = 5

NOT_EXCLUDED = (
    "an agent that knows the hidden tests and breaks behaviour that neither they nor held-out inputs touch",
    "code that reads the clock by other ways than Python's, and does right only until some date",
    "an attempt that hangs or spends its limits: it gets no verdict, and so escapes its 0",
    "a fault of the kernel, of bubblewrap, of the container engine or of Python that lets judged code out of its sandbox",
    "attacks that are not in the corpus",
)


def task_key(task: CodeTask, attacks: Sequence[Attack] | None = None) -> str:
    """SHA-256 of the task's files, the code that judges, Python and its packages, and the attacks. Raises TaskError, ConfigError."""
    parts = [task_digest(task.folder), code_digest(), environment_key(task.folder), corpus_version(task.settings.verifier, attacks)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def task_subject(task: CodeTask) -> Subject:
    """What the store knows it by. Raises TaskError, ConfigError."""
    return Subject(task.task_id, task_key(task), task.folder)


def stored_certificate(task: CodeTask) -> Certificate | None:
    """Out of our store; None also for one that was edited: it counts as none. Raises TaskError, ConfigError."""
    with contextlib.suppress(CertificateError):
        return CertificateStore.default().get(task_subject(task))
    return None


def calibration_of(certificate: Certificate) -> Calibration | None:
    """What a verdict by tests needs; None if the task is judged by its script. Raises CertificateError for another kind's certificate."""
    if certificate.calibration is None:
        return None
    try:
        return Calibration.model_validate(certificate.calibration)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise CertificateError(
            f"the certificate of {certificate.subject!r} is none of a software task ({places}); certify it again"
        ) from None


async def certify_task(
    task: CodeTask,
    place: VerdictPlace,
    *,
    sandboxes: Sandboxes,
    repeats: int = 5,
    attacks: Sequence[Attack] | None = None,
    on_step: Callable[[str, int, int], None] = lambda words, done, total: None,
) -> Certificate:
    """Puts the task to the proof: `repeats` verdicts on its solution, and the corpus, or for tests only these `attacks`.

    A certificate over a part of the corpus has a key of its own, which no run asks for. `on_step` is told what is done next, how many
    verdicts are done and how many there are.

    Raises:
        CertificateError: the task is at fault, or its verdicts are; names every check that failed, with evidence.
        SandboxError: this host is.
    """
    corpus = corpus_of(task.settings.verifier, attacks)
    steps = Steps(on_step, repeats + NUM_NO_OP + len(corpus))
    trial = Trial(task, sandboxes, lambda: task_key(task, attacks), corpus, corpus_version(task.settings.verifier, attacks), steps)

    async def prepare() -> Prepared:
        require_corpus(task)
        if task.settings.verifier == "inversion":
            return await prepare_inversion(task, place)
        oracle = await oracle_changes(task, place)
        calibration = await _calibrate(task, place, steps)
        material = await _material(task, place, oracle)
        verifier = _verifier(task, place, calibration, oracle)
        open_ = (*NOT_EXCLUDED, *residual(task, calibration))
        return Prepared(verifier, material, calibration, open_, is_guessable(calibration))

    return await trial.certificate(prepare, repeats=repeats)


def require_corpus(task: CodeTask) -> None:
    """Raises TaskError where attacks that could be paid are not among ours, so that a certificate would say nothing."""
    if (task.folder / RECORD).is_file():
        raise TaskError(
            f"{task.folder / RECORD}: its tests are JavaScript's and our attacks are Python's, so that none could be paid, whatever "
            "judges; train on it without a certificate only where you may trust the agent"
        )


async def _calibrate(task: CodeTask, place: VerdictPlace, steps: Steps) -> Calibration | None:
    if task.settings.verifier == "script":
        return None
    return await calibrate(task, place, on_step=lambda words: steps.begin(f"calibration: {words}"))


def is_guessable(calibration: Calibration | None) -> bool:
    """Whether nothing but the forger's ignorance of what usual tests expect stands between forged reports and the reward."""
    if calibration is None or calibration.num_heldout_differing:
        return False
    return {function_of(test) for test in calibration.fail_to_pass} <= set(calibration.unprobed) - set(calibration.blind)


async def _material(task: CodeTask, place: VerdictPlace, oracle: tuple[FileChange, ...]) -> Material:
    """Of a task that is judged by a script as much as there is: its tests may be no pytest tests."""
    try:
        return await gather_material(task, place, oracle)
    except TaskError:
        if task.settings.verifier != "script":
            raise
        return Material(task, oracle, changed_sources(task, oracle), (), (), {})


def _verifier(task: CodeTask, place: VerdictPlace, calibration: Calibration | None, oracle: tuple[FileChange, ...]) -> Verifier:
    if calibration is not None:
        return CodeVerifier(task, calibration, place, oracle)
    paths = frozenset(change.path for change in oracle)
    return ScriptVerifier.load(task.folder, place.sandboxes, workspace=task.workspace, oracle_paths=paths, environment=place.environment)


def residual(task: CodeTask, calibration: Calibration | None) -> Iterable[str]:
    """What the verdicts on this very task leave open, in words."""
    if task.heldout is None:
        yield "hard-coded answers to the hidden tests, as the task has no held-out inputs"
    if calibration is None:
        yield "forged reward files: what judges is a script, with the agent's code running beside it"
        yield "answers that are taken out of /tests, which the agent's code may read when the script runs it"
        return
    if calibration.num_heldout and not calibration.num_heldout_differing:
        yield "hard-coded answers to the hidden tests, as no held-out call tells the pristine workspace from the solution"
    num_bite, num_tests = len(calibration.probes), len({probe.function for probe in calibration.probes})
    yield (
        f"a forgery that tells right from changed copies of a test ({num_bite} of {calibration.num_candidates} changes tried make "
        f"the solution fail, in {num_tests} tests)"
    )
    if is_guessable(calibration):
        yield "a forger who guesses what its tests expect: they compare nothing that is hidden from the code under test"
    if unprotected := sorted(set(calibration.unprobed) - set(calibration.blind)):
        yield f"forged passes of tests whose changed copies do not hide which is true: {_named(unprotected)}"
    if calibration.quarantined:
        yield f"behaviour that only quarantined tests touch: {_named(sorted(calibration.quarantined))}"


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def corpus_of(verifier: Judging, attacks: Sequence[Attack] | None) -> tuple[Attack, ...]:
    """What is tried on a task, unless for tests only these `attacks`."""
    if attacks is not None:
        return tuple(attacks)
    if verifier == "inversion":
        return load_inversion_attacks()
    return load_corpus() + (load_script_attacks() if verifier == "script" else ())


def corpus_version(verifier: Judging, attacks: Sequence[Attack] | None) -> str:
    """Tells one such collection from another."""
    version = inversion_attacks_digest() if verifier == "inversion" else corpus_digest()
    if verifier == "script":
        version = hashlib.sha256(f"{version} {script_attacks_digest()}".encode()).hexdigest()
    return version if attacks is None else f"{version} only {sorted(attack.name for attack in attacks)}"


@functools.cache
def code_digest(sandbox: tuple[str, ...] = _SANDBOX) -> str:
    """Of all that decides a verdict besides Python and the kernel; `sandbox` are the modules of the sandboxes that it runs in."""
    package = Path(__file__).parents[2]
    paths = judging_sources() + [package / "sandbox" / f"{name}.py" for name in sandbox]
    sources = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


def judging_sources() -> list[Path]:
    """The files of the package's tasks that decide verdicts."""
    package, room = Path(__file__).parents[2], Path(__file__).parent
    paths = [path for pattern in _SOURCES for path in package.glob(pattern)]
    return [path for path in paths if not (path.parent == room and path.stem in _NO_PART)]
