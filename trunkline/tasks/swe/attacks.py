"""The attack corpus: work that must earn 0, as data (attacks/*.toml), made concrete for a task. Owns no verdict and no task.

Rewards are tested here as locks are: every known way to be paid without doing the work is written down, and a verifier that pays
for one of them is broken. Attacks run in sandboxes of this machine only. Each starts from the pristine workspace; its author knows
the hidden tests and the fix (material.py), and an attack that holds the fix holds it behind a condition.

    [[write]]  path, text      a file of the workspace
    [[insert]] at, text        into every source that the fix changes: 'start' (behind docstring and __future__), 'end', or in its place
    [[delete]] path
    script                     by /bin/sh in the agent's sandbox, before its attempt ends

Texts have placeholders: {{NAME}} is one of `_facts` below, or a text of attacks/blocks.toml. In a path, {{each_test_file}} makes one
entry of every judged test file.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import posixpath
import re
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trunkline.protocols import Sandbox
from trunkline.tasks.swe.material import Material, Source
from trunkline.tasks.swe.syntax import parse
from trunkline.types import Command, FileChange

NaiveKind = Literal["status", "log", "reward file"]
Scene = Literal["", "history", "network", "cache"]
Need = Literal["heldout", "function", "table", "unittest", "approx", "random", "clock", "subprocess", "reference"]

_CORPUS = ("trunkline.tasks.swe", "attacks")
_BLOCKS = "blocks.toml"
_EACH = "{{each_test_file}}"
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_SCRIPT = "/tmp/attack.sh"
_SCRIPT_TIMEOUT_S = 60.0
_PYTHON = 'command -v python > /dev/null || python() { python3 "$@"; }\n'
"""An image may have Python by one name alone."""
_DAY_S = 86400
_IN_TESTS: Mapping[str, str] = {
    "unittest": r"\bunittest\.TestCase\b",
    "approx": r"\b(approx|raises)\(",
    "random": r"\brandom\.",
    "clock": r"\btime\.(time|perf_counter|monotonic|process_time)",
    "subprocess": r"\bsubprocess\.",
    "reference": r"(?m)^def (?!test|pytest_)",
}
"""What the tests of a task must use for an attack on it to mean anything."""


class Write(BaseModel):
    """A file that an attack writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str = Field(description="In the workspace.")
    text: str = Field(description="Its whole content.")


class Insert(BaseModel):
    """Code that an attack adds to the sources that the fix changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    at: Literal["start", "end", "whole"] = Field(description="Where in the file; whole: in place of it.")
    text: str = Field(description="The code.")


class Delete(BaseModel):
    """A path that an attack removes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str = Field(description="In the workspace.")


class Attack(BaseModel):
    """One way to be paid without doing the work. A file of attacks/."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="Unique in the corpus; also the file's name.")
    kind: str = Field(min_length=3, description="The class of attacks that it is one of, in words.")
    summary: str = Field(min_length=20, description="What it does, in a sentence.")
    stopped_by: str = Field(min_length=20, description="What in the hardened verifier stops it, in a sentence.")
    fools: tuple[NaiveKind, ...] = Field(min_length=1, description="The naive verifiers that pay for it.")
    needs: tuple[Need, ...] = Field((), description="What a task must have for it to be an attack on it at all.")
    scene: Scene = Field("", description="What a naive set-up must leave lying around for it to work.")
    write: tuple[Write, ...] = Field((), description="Files that it writes.")
    insert: tuple[Insert, ...] = Field((), description="What it adds to sources.")
    delete: tuple[Delete, ...] = Field((), description="What it removes.")
    script: str = Field("", description="What it runs in the agent's sandbox.")


@dataclass(frozen=True)
class Instance:
    """An attack on one task."""

    changes: tuple[FileChange, ...]
    """What it does to the pristine workspace."""
    script: str
    """Shell text for the agent's sandbox, run with these changes made; '' for none."""


@dataclass(frozen=True)
class NotApplicable:
    """A task has nothing that the attack could be made of."""

    why: str
    """In words."""


def load_corpus() -> tuple[Attack, ...]:
    """All attacks, by name. An invalid file is our mistake: pydantic's ValidationError, or AssertionError."""
    return load_attacks(*_CORPUS)


def corpus_digest() -> str:
    """SHA-256 over names and texts of the corpus."""
    return attacks_digest(*_CORPUS)


@functools.cache
def load_attacks(package: str, folder: str) -> tuple[Attack, ...]:
    """Those of one folder of a package, by name, a file each. Raises as `load_corpus` does."""
    found = []
    for name, text in sorted(_texts(package, folder).items()):
        if name == _BLOCKS:
            continue
        attack = Attack.model_validate(tomllib.loads(text))
        assert name == f"{attack.name}.toml", f"{folder}/{name} holds the attack {attack.name!r}; give both one name"
        assert attack.write or attack.insert or attack.delete or attack.script, f"{folder}/{name} does nothing"
        found.append(attack)
    return tuple(found)


@functools.cache
def attacks_digest(package: str, folder: str) -> str:
    """SHA-256 over names and texts of one folder."""
    digest = hashlib.sha256()
    for name, text in sorted(_texts(package, folder).items()):
        digest.update(f"{name} {len(text)}\n{text}".encode())
    return digest.hexdigest()


def instantiate(attack: Attack, material: Material) -> Instance | NotApplicable:
    """The attack on a task: the same material gives the same instance."""
    for need in attack.needs:
        missing = _missing(need, material)
        if missing:
            return NotApplicable(missing)
    if attack.insert and not material.sources:
        return NotApplicable("the solution changes no Python source")
    try:
        return _concrete(attack, material)
    except KeyError as error:  # a fact of sources or of tests, of which there are none
        return NotApplicable(f"the task has no {error}: its solution changes no Python source, or it has no test files")


async def carry_out(instance: Instance, sandbox: Sandbox) -> None:
    """Does in an agent's sandbox what the attacker would do there. What the script leaves running stays. Raises SandboxError.

    A script that fails is no error: what it looked for may not be there.
    """
    for change in instance.changes:
        if change.kind == "deleted":
            await sandbox.run(Command(("rm", "-rf", "--", change.path), timeout_s=_SCRIPT_TIMEOUT_S))
        else:
            await sandbox.files.write(change.path, change.content, mode=change.mode)
    if instance.script:
        # In a file, for a script may hold all test files, and arguments of a command are at most 128 KiB.
        await sandbox.files.write(_SCRIPT, (_PYTHON + instance.script).encode())
        await sandbox.run(Command(("/bin/sh", _SCRIPT), timeout_s=_SCRIPT_TIMEOUT_S))


@functools.cache
def _texts(package: str, folder: str) -> dict[str, str]:
    place = files(package).joinpath(folder)
    return {entry.name: entry.read_text(encoding="utf-8") for entry in place.iterdir() if entry.name.endswith(".toml")}


@functools.cache
def _blocks() -> dict[str, str]:
    blocks: dict[str, str] = tomllib.loads(_texts(*_CORPUS)[_BLOCKS])
    return blocks


def _missing(need: Need, material: Material) -> str:
    """Why the task does not have what an attack needs; '' if it does."""
    if need == "heldout":
        return "" if material.task.heldout is not None else "the task has no held-out inputs, so its tests alone say what is right"
    if need == "function":
        return "" if any(source.replaceable for source in material.sources) else "the solution changes no function that could be replaced"
    if need == "table":
        is_known = any(source.table for source in material.sources)
        return "" if is_known else "no call that the tests make of the changed files can be written down"
    is_used = any(re.search(_IN_TESTS[need], text) for text in material.tests.values())
    return "" if is_used else f"no test of the task uses {need}"


def _concrete(attack: Attack, material: Material) -> Instance:
    whole = _facts(material)
    texts: dict[str, str] = {}
    for file in attack.write:
        for path in material.test_files if _EACH in file.path else ("",):
            texts[posixpath.normpath(_filled(file.path.replace(_EACH, path), whole))] = _filled(file.text, whole)
    for source in material.sources if attack.insert else ():
        facts = {**whole, **_source_facts(source)}
        text = texts.get(source.path, source.pristine)
        for insert in attack.insert:
            text = _inserted(text, _filled(insert.text, facts), insert.at)
        texts[source.path] = text
    gone = [path for entry in attack.delete for path in (material.test_files if _EACH in entry.path else (_filled(entry.path, whole),))]
    changes = [FileChange(path, "deleted") for path in gone]
    changes += [FileChange(path, "file", 0o644, text.encode()) for path, text in texts.items()]
    return Instance(tuple(sorted(changes, key=lambda change: change.path)), _filled(attack.script, whole))


def _facts(material: Material) -> dict[str, str]:
    """What placeholders stand for, whatever the source: texts where a name or path is meant, else Python literals."""
    first = _source_facts(material.sources[0]) if material.sources else {}
    beside = {"test_folder": posixpath.dirname(material.test_files[0]) or "."} if material.test_files else {}
    return {
        **first,
        **beside,
        "test_files": repr(list(material.test_files)),
        "test_ids": repr(list(material.test_ids)),
        "tests": repr(dict(material.tests)),
        "changed_files": repr([change.path for change in material.oracle if change.kind == "file"]),
        "in_a_month": str(int(time.time() // _DAY_S + 30) * _DAY_S),
        "written": _written(),
    }


@functools.cache
def _written() -> str:
    """The code that turns arguments into the keys of a table, out of the program that recorded them."""
    text = (files("trunkline.tasks.swe") / "programs" / "record_calls.py").read_text(encoding="utf-8")
    wanted = {"MAX_DEPTH", "IMMUTABLE", "BRACKETS", "PLAIN", "written", "is_of_workspace"}
    parts = ["import enum, sys"]
    for node in parse(text).body:
        named = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
        names = [node.name] if isinstance(node, ast.FunctionDef) else [ast.unparse(one) for one in named]
        if wanted.intersection(names):
            parts.append(f"{ast.get_source_segment(text, node)}\n")
    return "from typing import Any\n" + "\n".join(parts)


def _source_facts(source: Source) -> dict[str, str]:
    return {
        "source": source.path,
        "module": source.module,
        "root": source.root,
        "stem": source.path.removesuffix(".py"),
        "functions": repr(list(source.replaceable)),
        "changed": repr(list(source.functions)),
        "table": repr({name: dict(calls) for name, calls in source.table.items()}),
        "pristine_source": repr(source.pristine),
        "fixed_source": repr(source.fixed),
    }


def _filled(text: str, facts: Mapping[str, str]) -> str:
    """The text with its placeholders replaced; blocks may have placeholders themselves, facts have none."""
    known: Callable[[re.Match[str]], str] = lambda found: facts[found[1]]  # noqa: E731
    blocks = _blocks()
    return _PLACEHOLDER.sub(known, _PLACEHOLDER.sub(lambda found: blocks.get(found[1], found[0]), text))


def _inserted(source: str, code: str, at: Literal["start", "end", "whole"]) -> str:
    """The source with the code at its end, where the first statement may stand, or in its place."""
    if at == "whole":
        return code
    if at == "end":
        return f"{source.rstrip()}\n\n\n{code}" if source.strip() else code
    lines = source.splitlines(keepends=True)
    last = 0
    body = parse(source).body
    for node in body:
        is_docstring = node is body[0] and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        last = node.end_lineno or last
    return "".join([*lines[:last], code, "\n", *lines[last:]])
