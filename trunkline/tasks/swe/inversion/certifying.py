"""What a trial of a task that asks for tests is made of: the change's own tests as its solution, attacks of its own. Owns no trial.

Its attacks are in attacks/*.toml, as attacks.py of the room above reads them; `{{pristine_source}}` is the code before the change, which
every agent sees, and `{{fixed_source}}` the code after it, which the strongest one has guessed.
"""

from __future__ import annotations

from trunkline.errors import TaskError
from trunkline.tasks.swe.attacks import Attack, attacks_digest, load_attacks
from trunkline.tasks.swe.inversion.parts import NUM_BEFORE, NUM_RIGHT
from trunkline.tasks.swe.inversion.verifier import InversionVerifier, submitted_tests
from trunkline.tasks.swe.material import Material, changed_sources
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.trial import Prepared

_FOLDER = ("trunkline.tasks.swe.inversion", "attacks")

NOT_EXCLUDED = (
    "tests that find out by the code, not by what it does, which tree they are on: they know the old code, and have to tell it and its "
    "wrong versions in any words from the right one in any words",
    "tests that notice the fault and assert nothing else of what the change is for",
    "tests that end by chance: right of every tree once in {odds} times, where the project's own tests use what chance is drawn from",
    "an attempt that hangs or spends its limits: it gets no verdict, and so escapes its 0",
    "a fault of the kernel, of bubblewrap, of the container engine or of Python that lets judged code out of its sandbox",
    "attacks that are not in the corpus",
)


async def prepare_inversion(task: CodeTask, place: VerdictPlace) -> Prepared:
    """The verifier with what attacks on it are made of. Raises TaskError, VerifierError, SandboxError."""
    verifier = InversionVerifier.load(task, place)
    oracle = await oracle_changes(task, place)
    submitted = submitted_tests(task, oracle)
    if submitted.fault or submitted.dropped:
        words = submitted.fault or f"it changes {', '.join(submitted.dropped[:3])}"
        raise TaskError(f"{task.solution / 'solve.sh'} has to write tests and nothing else; {words}")
    if faults := list(verifier.screen.faults(submitted.tests)):
        raise TaskError(
            f"{task.folder}: what the solution's tests use is refused: {faults[0]}; list it in modules or features of "
            "tests/inversion.toml, and tell the agent"
        )
    tests = dict(sorted(submitted.tests.items()))
    material = Material(task, oracle, changed_sources(task, verifier.parts.fix), tuple(tests), (), tests)
    odds = 2 ** (NUM_BEFORE + NUM_RIGHT + 1)
    return Prepared(verifier, material, None, tuple(words.format(odds=odds) for words in NOT_EXCLUDED))


def load_inversion_attacks() -> tuple[Attack, ...]:
    """All of them, by name."""
    return load_attacks(*_FOLDER)


def inversion_attacks_digest() -> str:
    """SHA-256 over names and texts."""
    return attacks_digest(*_FOLDER)
