"""Whether an instruction says all that hidden tests rely on and nobody could guess. Owns the gaps and their filling, no other text.

Asked about are names, keywords, exceptions and messages that tests which fail before the change use and that exist only after it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from trunkline.tasks.factory.asked import Expected, Uses, uses_of
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.changed import WORD, Change, Texts, failing, read_change
from trunkline.tasks.factory.definitions import Definition, bound_names, definitions_of, new_definitions
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.literals import literals_of

UNKNOWABLE = "tests ask for what nobody could know"
"""The cause of a Rejection."""

_READS_SOURCE = frozenset({"getsource", "getsourcelines", "getsourcefile", "co_code", "co_firstlineno", "co_consts"})
_MOST_GAPS = 40
_MOST_CHARACTERS = 4000
_FEWEST_LETTERS = 4
_SUFFIXES = (".py", ".pyi")


@dataclass(frozen=True)
class Gap:
    """Something that tests rely on."""

    kind: Literal["module", "definition", "keyword", "name", "exception", "text"]
    """text: exact words."""
    name: str
    """What an instruction must have: a word, or exact words."""
    line: str
    """What says it, in Markdown."""


def check(draft: Draft, instruction: str) -> list[Gap]:
    """What the instruction does not say, [] if nothing is missing. Raises Rejection (statement): what no words can tell."""
    change = read_change(draft)
    return [gap for gap in needs(change, failing(draft)) if not is_said(gap, instruction)]


def interface(gaps: Sequence[Gap]) -> str:
    """The section that says them; '' for none."""
    if not gaps:
        return ""
    names = [gap.line for gap in gaps if gap.kind not in ("exception", "text")]
    words = [gap.line for gap in gaps if gap.kind in ("exception", "text")]
    parts = []
    if names:
        parts.append("## Interface\n\nTests use these names as they stand here:\n\n" + "\n".join(names))
    if words:
        parts.append("## Exact words\n\nTests expect these exceptions and texts:\n\n" + "\n".join(words))
    return "\n\n".join(parts)


def is_said(gap: Gap, instruction: str) -> bool:
    """Whether the instruction has the gap's name: as a word, or as exact words whatever the space between them."""
    if WORD.fullmatch(gap.name):
        return gap.name in WORD.findall(instruction)
    return " ".join(gap.name.split()) in " ".join(instruction.split())


def needs(change: Change, tests: dict[str, list[str]]) -> list[Gap]:
    """All that the failing tests of a change rely on, whatever the instruction says. Raises Rejection as `check` does.

    Args:
        change: The draft, read.
        tests: Failing functions by file.
    """
    found: dict[str, Gap] = {}
    for path, functions in tests.items():
        texts = change.tests.get(path)
        if texts is None:
            continue
        gaps = _of_python(change, path, texts, functions) if path.endswith(_SUFFIXES) else _of_any(change, texts)
        for gap in gaps:
            found.setdefault(gap.line if gap.kind == "exception" else gap.name, gap)
    size = sum(len(gap.line) for gap in found.values())
    if len(found) > _MOST_GAPS or size > _MOST_CHARACTERS:
        raise Rejection("statement", UNKNOWABLE, f"{len(found)} new names and texts, {size} characters, more than a statement can list")
    return list(found.values())


def _of_python(change: Change, path: str, texts: Texts, functions: Collection[str]) -> Iterator[Gap]:
    uses = uses_of(texts.after, functions)
    if uses is None:
        raise Rejection("statement", UNKNOWABLE, f"{path} is no Python that this host can read")
    if reads := sorted(_READS_SOURCE & uses.names.keys()):
        raise Rejection("statement", UNKNOWABLE, f"{path} looks into the source ({', '.join(reads)})")
    yield from _modules(change, uses)
    told: set[str] = set()
    for gap in _definitions(change, uses, texts):
        told.add(gap.name)
        yield gap
    yield from _keywords(change, uses)
    yield from _positions(change, uses, told)
    yield from _other_names(change, uses, told)
    old = uses_of(texts.before, functions)
    yield from _exceptions(uses, old.expected if old else ())
    yield from _strings(change, path, uses)


def _modules(change: Change, uses: Uses) -> Iterator[Gap]:
    for module, name in sorted(uses.imports):
        place, old = _file_of(module, change.sources), _file_of(module, change.paths)
        if place is not None and old is None:
            yield Gap("module", module, f"- `{module}`: a new module, imported by tests")
        submodule = f"{module}.{name}"
        if name and _file_of(submodule, change.sources) and not _file_of(submodule, change.paths):
            yield Gap("module", submodule, f"- `{submodule}`: a new module, imported by tests")


def _file_of(module: str, paths: Collection[str]) -> str | None:
    tail = module.replace(".", "/")
    ends = (f"/{tail}.py", f"/{tail}/__init__.py")
    return next((path for path in sorted(paths) if f"/{path}".endswith(ends)), None)


def _definitions(change: Change, uses: Uses, tests: Texts) -> Iterator[Gap]:
    imported = {name: module for module, name in uses.imports if name}
    fresh = frozenset(WORD.findall("\n".join(tests.added)))
    for texts in change.sources.values():
        for found in new_definitions(texts.before, texts.after).values():
            is_used = found.last_name in uses.names or found.last_name in imported
            if is_used and _is_meant(found, change, uses, imported, fresh):
                yield Gap("definition", found.last_name, _definition_line(found, imported))
    for name, module in imported.items():  # what is there already, but cannot be imported from where tests do
        place = _file_of(module, change.sources)
        before = bound_names(change.sources[place].before) if place else None
        after_names = bound_names(change.sources[place].after) if place else None
        if place and before is not None and name not in before and after_names and name in after_names and name in change.known:
            yield Gap("name", f"from {module} import {name}", f"- `from {module} import {name}` works")


def _is_meant(found: Definition, change: Change, uses: Uses, imported: Collection[str], fresh: Collection[str]) -> bool:
    """Whether the tests use this definition, not something else of its name."""
    name = found.last_name
    if name.startswith("__") and name.endswith("__"):
        return False
    if name not in change.known or name in imported:
        return True
    if name not in fresh or not found.is_public:
        return False
    owner = found.owner.rpartition(".")[2]
    return not owner or owner in uses.names or owner in imported


def _definition_line(found: Definition, imported: dict[str, str]) -> str:
    where = f", from `{imported[found.last_name]}`" if found.last_name in imported else ""
    if found.kind == "class":
        makes = f"; made by `{found.last_name}({', '.join(found.parameters)})`" if found.parameters else ""
        return f"- `{found.signature}`{where}{makes}"
    if not found.owner:
        kind = "a function" if found.kind == "function" else "a value of the module"
        return f"- `{found.signature}`: {kind}{where}"
    kind = "a method" if found.kind == "function" else "an attribute"
    return f"- `{found.owner}.{found.signature}`: {kind}"


def _keywords(change: Change, uses: Uses) -> Iterator[Gap]:
    for texts in change.sources.values():
        before, after = definitions_of(texts.before), definitions_of(texts.after)
        for name, found in after.items():
            if name not in before or not found.parameters:
                continue
            for parameter in found.parameters:
                if parameter in uses.keywords and parameter not in before[name].parameters and _can_be_called(found, uses, parameter):
                    yield Gap("keyword", parameter, f"- `{_call_words(found)}` takes `{parameter}`")


def _can_be_called(found: Definition, uses: Uses, keyword: str) -> bool:
    """By the name that the keyword is given to, or by one that stands for it: a class by its methods, a function by its decorator."""
    called = uses.keywords[keyword]
    return found.is_public or called in (found.last_name, found.owner.rpartition(".")[2]) or found.last_name == "__init__"


def _call_words(found: Definition) -> str:
    if found.last_name == "__init__":
        return found.owner + found.signature.removeprefix("__init__")
    if found.kind == "class":
        return f"{found.name}({', '.join(found.parameters)})"
    return f"{found.owner}.{found.signature}" if found.owner else found.signature


def _positions(change: Change, uses: Uses, told: Collection[str]) -> Iterator[Gap]:
    """Calls that give more by place than was taken before."""
    for texts in change.sources.values():
        before, after = definitions_of(texts.before), definitions_of(texts.after)
        for name, found in after.items():
            called = found.owner.rpartition(".")[2] if found.last_name == "__init__" else found.last_name
            old = before.get(name)
            if old is None or found.kind == "value" or called in told or old.most_positional is None or found.kind == "class":
                continue
            grown = found.most_positional is None or found.most_positional > old.most_positional
            if grown and uses.positional.get(called, 0) > old.most_positional:
                yield Gap("keyword", _call_words(found), f"- `{_call_words(found)}`, where `{_call_words(old)}` was")


def _other_names(change: Change, uses: Uses, told: set[str]) -> Iterator[Gap]:
    """Words that both the tests and the added lines have, and nothing else: given by setattr, by keywords, in texts."""
    in_strings = {word for text in uses.strings if re.fullmatch(r"[\w.]+", text) for word in WORD.findall(text)}
    expected = {word for found in uses.expected for word in WORD.findall(found.exception)} - change.added_words.intersection(told)
    shown = {**{name: f"{called}(..., {name}=...)" for name, called in uses.keywords.items()}, **uses.names}
    for word in sorted(((shown.keys() | in_strings) & change.added_words) - expected):
        if len(word) >= _FEWEST_LETTERS and word not in told:
            told.add(word)
            seen = f", as in `{shown[word]}`" if shown.get(word, word) != word else ""
            yield Gap("name", word, f"- `{word}`{seen}")


def _exceptions(uses: Uses, old: Collection[Expected]) -> Iterator[Gap]:
    for expected in uses.expected:
        if expected in old:
            continue
        name = expected.exception.rpartition(".")[2].strip("()")
        warns = "Warning" in name
        what = f"`{expected.call}` {'warns with' if warns else 'raises'} `{expected.exception}`"
        if not expected.call:
            what = f"`{expected.exception}` is {'warned' if warns else 'raised'}"
        if expected.message is None:
            yield Gap("exception", name, f"- {what}")
        else:
            yield Gap("exception", expected.message, f"- {what}, and its message is found by the regular expression `{expected.message}`")


def _strings(change: Change, path: str, uses: Uses) -> Iterator[Gap]:
    added = [text for where, texts in change.sources.items() for text in literals_of(where, texts)]
    messages = {expected.message for expected in uses.expected}
    for text in uses.strings:
        if text in messages or text in change.known_code or not _is_text(text):
            continue
        if _brings_file(text, change):
            raise Rejection("statement", UNKNOWABLE, f"{path} reads {text!r}, a file that only the solution has")
        if any(_rests_on(text, literal) for literal in added if literal not in change.known_code):
            yield Gap("text", text, f"- `{text}`" if "`" not in text and text == text.strip() and "\n" not in text else f"- {text!r}")


def _is_text(text: str) -> bool:
    return sum(letter.isalpha() for letter in text) >= _FEWEST_LETTERS


def _rests_on(text: str, literal: str) -> bool:
    """Whether a text of the tests is made of one of the solution: the same, a part of it, or around a large part of it."""
    plain = re.sub(r"\\(\W)", r"\1", text)
    return plain in literal if len(plain) <= len(literal) else len(literal.strip()) >= 2 * _FEWEST_LETTERS and literal in plain


def _brings_file(text: str, change: Change) -> bool:
    return bool(PurePosixPath(text).suffix) and any(f"/{path}".endswith(f"/{text}") for path in change.new_data)


def _of_any(change: Change, texts: Texts) -> Iterator[Gap]:
    """Of a language that is not parsed: words that the tests' and the solution's new lines have, and nothing else."""
    words = frozenset(word for line in texts.added for word in WORD.findall(line))
    for word in sorted(words & change.added_words):
        if len(word) >= _FEWEST_LETTERS:
            line = next(line for line in texts.added if word in WORD.findall(line))
            yield Gap("name", word, f"- `{word}`, as in `{line[:120]}`" if "`" not in line else f"- `{word}`")
