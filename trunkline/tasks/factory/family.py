"""Families of tiny tasks: one function a file, one fault of one line a task, few tests. Owns their choice and writing, no kind of fault.

function ─► constants by running it ─► faults that a test shows and drawn calls notice ─► training | held out ─► task directories
                                                                             └── all of training's ─► practice.json, what demonstrations
                                                                                                      are made of
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trunkline.protocols import SealedSandboxes
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.single_function import Example, SingleFunction
from trunkline.tasks.factory.slips import find_slips
from trunkline.tasks.factory.variants.mutations import find_mutations
from trunkline.tasks.formats.harbor import write_harbor
from trunkline.tasks.formats.harbor_config import HarborConfig
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.practice import FILE, Fault, Practice, with_line
from trunkline.types import Command, SealedRun

_PROGRAM = "/factory/try_faults.py"
_SECONDS = 2
_TIMEOUT_S = 120.0
_NUM_DRAWN = 2
"""Tests with drawn arguments, beside the docstring's examples."""
_MOST_EXAMPLES = 3
_TRIES = 40
_NUM_CALLS = 40
"""Held-out calls of a verdict."""
_SEEDS = (1, 2, 3, 4, 5)
_LEAST_NOTICED = 0.25
"""Of the drawn calls, those that do otherwise with a fault; with fewer a verdict's own draw may miss it."""
_LONGEST_ANSWER = 60
_SAY_LITTLE = frozenset({"True", "False", "None", "0", "1", "[]", "{}", repr("")})
_FEWEST_FAULTS = 8


@dataclass(frozen=True)
class Subject:
    """A function, and how it is called. `Subject(function, "(rng.randrange(5), 'abcdefg')", "{}", "toolz 0.12.1")`."""

    function: SingleFunction
    """The file."""
    draw: str
    """An expression of `rng` that gives the arguments, as a tuple of plain data."""
    wrap: str
    """What makes plain data of a call's result, such as 'list({})'; '{}' if it is."""
    origin: str
    """Package and version, for the record."""

    def call(self, arguments: str) -> str:
        """An expression."""
        return self.wrap.format(f"{self.function.name}({arguments})")


@dataclass(frozen=True)
class Sizes:
    """How many tasks a function gives at most."""

    train: int = 6
    """For training."""
    heldout: int = 3
    """Held out."""
    heldout_share: float = 0.25
    """Of all faults; the others may be practised, tasks or not."""


@dataclass(frozen=True)
class Faults:
    """What became of a function's faults."""

    tests: tuple[Example, ...]
    """All hold without a fault."""
    train: tuple[Fault, ...]
    """Shown by a test, and noticed by enough drawn calls; for training and practice."""
    heldout: tuple[Fault, ...]
    """Likewise, for nothing but held-out tasks."""


async def find_faults(subject: Subject, sandboxes: SealedSandboxes, *, sizes: Sizes) -> Faults:
    """Faults of single lines that some test shows, a quarter of drawn calls notice and none makes hang.

    Raises Rejection (run) if tests or faults are too few.
    """
    tests = await _tests(subject, sandboxes)
    faults = _all_faults(subject.function)
    sources = [_with(subject.function.source, fault) for fault in faults]
    asked = {"sources": sources, "calls": [test.call for test in tests], "answers": [test.answer for test in tests]}
    held = await _try(sandboxes, "hold", asked)
    shown = [fault for fault, holds in zip(faults, held, strict=True) if holds is not None and not all(holds)]
    noticed = await _noticed(subject, sandboxes, shown)
    if len(noticed) < _FEWEST_FAULTS:
        found = f"{len(shown)} of {len(faults)} faults are shown by a test, {len(noticed)} of these are noticed by drawn calls"
        raise Rejection("run", "no test turns", f"{found}, {_FEWEST_FAULTS} are needed")
    heldout = set(sorted(shown, key=_place)[: max(1, round(len(shown) * sizes.heldout_share))])
    return Faults(tests, tuple(one for one in noticed if one not in heldout), tuple(one for one in noticed if one in heldout))


async def _noticed(subject: Subject, sandboxes: SealedSandboxes, faults: Sequence[Fault]) -> list[Fault]:
    """Those that enough calls notice, drawn as for verdicts of several seeds."""
    draws = [rng for seed in _SEEDS for rng in [random.Random(seed)] * _NUM_CALLS]
    sources = [subject.function.source, *(_with(subject.function.source, fault) for fault in faults)]
    asked = {"sources": sources, "calls": [_drawn_call(subject, rng) for rng in draws]}
    _, *differing = await _try(sandboxes, "differ", asked)
    return [fault for fault, differs in zip(faults, differing, strict=True) if differs and sum(differs) >= _LEAST_NOTICED * len(differs)]


def _drawn_call(subject: Subject, rng: random.Random) -> str:
    return subject.call(", ".join(map(repr, eval(subject.draw, {"rng": rng}))))


def _all_faults(function: SingleFunction) -> list[Fault]:
    """Mutations and slips of single lines, each once."""
    lines = function.source.split("\n")
    pairs = [(one.line, one.before, one.after) for one in find_mutations(function.source, path="")]
    pairs += [(slip.line, slip.right, slip.wrong) for slip in find_slips(function.source, function.name)]
    whole = dict.fromkeys(pair for pair in pairs if pair[2].strip() and lines[pair[0] - 1] == pair[1] and "\n" not in pair[2])
    return [Fault(line=line, right=right, wrong=wrong) for line, right, wrong in whole]


def _with(source: str, fault: Fault) -> str:
    return with_line(source, fault.line, fault.wrong)


def write_tasks(subject: Subject, faults: Faults, folders: Mapping[str, Path], *, sizes: Sizes) -> list[Path]:
    """Task directories in `folders["train"]` and `folders["heldout"]`; raises TaskError if one is there already."""
    chosen = {"train": faults.train, "heldout": faults.heldout}
    limits = {"train": sizes.train, "heldout": sizes.heldout}
    practice = Practice(
        path=f"{subject.function.name}.py",
        text=subject.function.source,
        faults=faults.train,
    )
    written = []
    for split, folder in folders.items():
        for number, fault in enumerate(sorted(chosen[split], key=_place)[: limits[split]], 1):
            target = folder / f"{folder.name}-{number}-{subject.function.name.replace('_', '-')}"
            written.append(target)
            _write(target, subject, faults.tests, fault, practice if split == "train" else None)
    return written


def _place(fault: Fault) -> str:
    """Where a fault stands among the others: by chance, and always there."""
    return hashlib.sha256(f"{fault.line} {fault.right}\n{fault.wrong}".encode()).hexdigest()


async def _tests(subject: Subject, sandboxes: SealedSandboxes) -> tuple[Example, ...]:
    """The docstring's examples that hold, and calls with drawn arguments; no answer twice among those."""
    examples = subject.function.examples
    rng = random.Random(f"trunkline/family/{subject.function.name}")
    calls = [*(example.call for example in examples), *(_drawn_call(subject, rng) for _ in range(_TRIES))]
    answers = await _try(sandboxes, "answer", {"sources": [subject.function.source], "calls": calls})
    if answers is None:
        raise Rejection("run", "out of time", f"{subject.function.name} does not answer {len(calls)} calls within {_SECONDS} s")
    found = [Example(call, answer) for call, answer in zip(calls, answers, strict=True) if answer is not None]
    kept = [test for test in found[: len(examples)] if test in examples][:_MOST_EXAMPLES]
    said = {test.answer for test in kept}
    for test in found[len(examples) :]:
        if test.answer not in said | _SAY_LITTLE and len(test.answer) <= _LONGEST_ANSWER and len(kept) < _MOST_EXAMPLES + _NUM_DRAWN:
            kept.append(test)
            said.add(test.answer)
    return tuple(kept)


async def _try(sandboxes: SealedSandboxes, mode: Literal["answer", "hold", "differ"], asked: Mapping[str, Any]) -> Any:
    """What try_faults.py prints."""
    environment = verdict_environment()
    program = Path(__file__).with_name("try_faults.py")
    request = json.dumps({**asked, "mode": mode, "seconds": _SECONDS}).encode()
    command = Command((environment.python, "-I", "-S", "-B", _PROGRAM), stdin=request, timeout_s=_TIMEOUT_S)
    ran = await sandboxes.run_sealed(SealedRun(command, shown=((program, _PROGRAM),)))
    if ran.command.status:
        raise Rejection("run", "tests do not run", ran.command.stderr.decode(errors="replace")[-300:])
    return json.loads(ran.command.stdout)


def _write(target: Path, subject: Subject, tests: Sequence[Example], fault: Fault, practice: Practice | None) -> None:
    name = subject.function.name
    shown = _test_file(name, tests)
    facts = {"project": subject.origin, "function": name, "variant": "injected"}
    config = HarborConfig.model_validate(
        {
            "task": {"name": f"tiny/{target.name}", "keywords": ["injected"]},
            "metadata": {"trunkline": {"workspace": "workspace", "kind": "bug", "timeout_s": 20.0}, "factory": facts},
            "environment": {"network_mode": "no-network"},
            "verifier": {"environment_mode": "separate"},
        }
    )
    files = {
        f"environment/workspace/{name}.py": _with(subject.function.source, fault),
        f"environment/workspace/tests/test_{name}.py": shown,
        "environment/Dockerfile": _DOCKERFILE,
        f"solution/files/{name}.py": subject.function.source,
        "solution/solve.sh": "#!/bin/sh\ncp -r /solution/files/. /workspace/\n",
        f"tests/tree/tests/test_{name}.py": shown,
        "tests/heldout.py": _HELDOUT.format(num_calls=_NUM_CALLS, draw=subject.draw, name=name, call=subject.call("*call")),
        "tests/test.sh": _TEST,
    }
    if practice is not None:
        files[f"solution/{FILE}"] = practice.model_dump_json(indent=1) + "\n"
    write_harbor(target, instruction=f"Some tests of `{name}` fail. Mend {name}.py.", config=config, files=files)


def _test_file(name: str, tests: Sequence[Example]) -> str:
    functions = [f"def test_{number}():\n    assert {test.call} == {test.answer}\n" for number, test in enumerate(tests, 1)]
    return "\n\n".join([f"from {name} import {name}\n", *functions])


_DOCKERFILE = """\
FROM python:3.11-slim
RUN pip install --no-cache-dir pytest==9.2.0
COPY workspace /workspace
WORKDIR /workspace
"""
_TEST = """\
#!/bin/sh
cp -r /tests/tree/. /workspace/
cd /workspace && python -m pytest -q && reward=1 || reward=0
mkdir -p /logs/verifier && echo "$reward" > /logs/verifier/reward.txt
"""
_HELDOUT = '''\
"""Held-out inputs: drawn anew for each verdict, run on the reference solution and on the work, and compared."""


def calls(rng):
    """Plain data, one item a call."""
    for _ in range({num_calls}):
        yield {draw}


def observe(call):
    """What the code does with it, as plain data; an exception counts by its type."""
    from {name} import {name}

    return {call}
'''
