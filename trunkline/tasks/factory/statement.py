"""What an agent is told to do: a change in people's own words, cleaned and checked, else in the words of its tests. Owns the composition.

texts ─► prose.py ─► without leaks ─► enough? ─► title, text ────────────────┐
                                        └ no ──► examples from the tests ────┼─► + interface (consistency.py) + how it is checked
                                        writer ► from both, checked the same ┘

Nothing here shows a line of the solution to a writer, so what it can give away is what people gave away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.changed import Change, Texts, failing, read_change
from trunkline.tasks.factory.consistency import Gap, interface, is_said, needs
from trunkline.tasks.factory.definitions import parsed
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.examples import examples_of
from trunkline.tasks.factory.leaks import Leak, Secrets, without
from trunkline.tasks.factory.prose import Prose, describe
from trunkline.tasks.swe.material import changed_functions
from trunkline.tasks.swe.sheets import split_test

NOTHING = "nothing says what to do"
"""The cause of a Rejection."""

_ENOUGH_WORDS = 40
"""Of people: with fewer, examples say what is meant."""
_FEWEST_WORDS = 4
_MOST_EXAMPLES = 6
_MOST_TITLES = 12
_MOST_SHOWN_CHARACTERS = 2500


@dataclass(frozen=True)
class Statement:
    """An instruction, and where it came from."""

    text: str
    """Markdown."""
    told_by: Literal["people", "tests", "chat"]
    """people: by issues, requests and messages; tests: by examples from the hidden tests, with people's title if there is one."""
    cut: tuple[str, ...] = ()
    """What was cut since it gave the solution away."""


class Writer(Protocol):
    """Writes better words from a brief that holds no line of the solution. `ChatWriter(chat)` asks a language model."""

    async def write(self, brief: str) -> str | None:
        """A title line and a text in Markdown; None if there is nothing to use."""
        ...


class Judge(Protocol):
    """Reads an instruction beside the tests. `ChatJudge(chat)` asks a language model."""

    async def missing(self, instruction: str, tests: str) -> list[str]:
        """What the tests demand and the instruction does not say, a line each."""
        ...


async def write_statement(
    draft: Draft,
    *,
    writer: Writer | None = None,
    judge: Judge | None = None,
    beside: Sequence[Draft] = (),
    varying: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
) -> Statement:
    """The instruction of a draft. Raises Rejection (statement): nothing says what to do, or what tests ask for cannot be told.

    Args:
        draft: With its change, its tests and what running them has shown.
        writer: Rewrites the description; its text is used only if it leaks nothing.
        judge: Finds what is demanded and not said; its lines are used only if they leak nothing.
        beside: Other changes that are to be made in the same task: nothing of their solutions is told either.
        varying: Gives test files, by path, out of which examples are shown instead of the hidden ones; asked if there are examples.
    """
    change, tests = read_change(draft), failing(draft)
    secrets = [Secrets(change), *(Secrets(read_change(other)) for other in beside)]
    gaps = needs(change, tests)
    prose = describe(draft.candidate.texts)
    title, cut_title = _cut(prose.title, secrets)
    body, cut_body = _cut(prose.body, secrets)
    told = Prose(title, body)
    needs_examples = told.num_words < _ENOUGH_WORDS
    shown = await varying() if needs_examples and varying is not None else {}
    examples = _examples(change, draft, tests, shown) if needs_examples else []
    if told.num_words < _FEWEST_WORDS and not examples:
        raise Rejection("statement", NOTHING, "no text describes the change, and no test shows a short example")
    concerned = _concerned(change, tests)
    text = _description(draft, told, examples, concerned, gaps)
    told_by: Literal["people", "tests", "chat"] = "tests" if examples else "people"
    if writer is not None and (written := await _written(writer, text, _test_text(change, tests), secrets)):
        text, told_by = written, "chat"
    text = "\n\n".join(part for part in (text, interface(_unsaid(gaps, text)), how_checked(draft)) if part)
    if judge is not None:
        text = await _judged(judge, text, _test_text(change, tests), secrets)
    return Statement(f"{text.strip()}\n", told_by, cut_title + cut_body)


def _cut(text: str, secrets: Sequence[Secrets]) -> tuple[str, tuple[str, ...]]:
    leaks = _leaks(text, secrets)
    return without(text, leaks), tuple(leak.words for leak in leaks)


def _leaks(text: str, secrets: Sequence[Secrets]) -> list[Leak]:
    return [leak for one in secrets for leak in one.in_text(text)]


def _unsaid(gaps: Sequence[Gap], text: str) -> list[Gap]:
    """What the interface section has: every new signature, and of the rest what the text does not say."""
    return [gap for gap in gaps if gap.kind in ("module", "definition", "keyword") or not is_said(gap, text)]


def _description(draft: Draft, told: Prose, examples: Sequence[str], concerned: Sequence[str], gaps: Sequence[Gap]) -> str:
    title = told.title or _own_title(draft, concerned, gaps)
    parts = [f"# {title[:1].upper()}{title[1:]}"]
    if told.body:
        parts.append(told.body)
    elif (concerned := [name for name in concerned if name not in {gap.name for gap in gaps}]) and not all(
        name.rpartition(".")[2] in title for name in concerned
    ):
        parts.append(f"This is about {_listed(concerned)}.")
    if examples:
        claim = "This fails today and must hold" if draft.kind != "feature" else "This must hold"
        parts += ["## What must hold", f"{claim}; tests check more of the same kind.", *examples]
    return "\n\n".join(parts)


def _own_title(draft: Draft, concerned: Sequence[str], gaps: Sequence[Gap]) -> str:
    new = [gap.name for gap in gaps if gap.kind in ("module", "definition")]
    what = _listed(new[:3] or concerned[:3]) or f"a part of {draft.candidate.project.rpartition('/')[2]}"
    if new or draft.kind == "feature":
        return f"Add {what}" if new else f"Extend {what}"
    return f"Speed up {what}" if draft.kind == "performance" else f"Wrong behaviour of {what}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _concerned(change: Change, tests: dict[str, list[str]]) -> list[str]:
    """Public functions and classes that change and that the tests name."""
    found: list[str] = []
    for path, texts in change.sources.items():
        is_readable = path.endswith(".py") and bool(texts.before) and _both_parse(texts)
        for name in changed_functions(texts.before, texts.after) if is_readable else ():
            words = [part for part in name.split(".") if not part.startswith("_")]
            shown = ".".join(words)
            if words and set(words) <= change.test_words and set(words) <= change.known and shown not in found:
                found.append(shown)
    return found[:6]


def _both_parse(texts: Texts) -> bool:
    return parsed(texts.before) is not None and parsed(texts.after) is not None


def _examples(change: Change, draft: Draft, tests: dict[str, list[str]], instead: Mapping[str, str]) -> list[str]:
    """In Markdown: code of Python's tests, the titles of others'."""
    found: list[str] = []
    titles: list[str] = []
    for path, functions in tests.items():
        texts = change.tests.get(path)
        if texts is None:
            continue
        if not path.endswith(".py"):
            titles += [f"- {' '.join(name.split(' > '))}" for name in functions]
            continue
        endings = {split_test(name)[1] for name in draft.tested.fail_to_pass if name.startswith(f"{path}::")}
        texts = Texts(texts.before, instead.get(path, texts.after))
        found += examples_of(texts, functions, packages=change.packages, endings=endings)
    kept: list[str] = []
    for example in sorted(found, key=len):
        if len(kept) < _MOST_EXAMPLES and sum(map(len, kept)) + len(example) <= _MOST_SHOWN_CHARACTERS:
            kept.append(example)
    shown = [f"```python\n{example}\n```" for example in dict.fromkeys(found) if example in kept]
    return [*shown, *(["\n".join(titles[:_MOST_TITLES])] if titles else [])]


def how_checked(draft: Draft) -> str:
    """The last section of an instruction."""
    present = [path for path in draft.test_files if (draft.workspace / path).is_file()]
    words = "Hidden tests check the work, and so do the project's tests that pass today. Tests that you change or add are not looked at."
    if present and all(path.endswith(".py") for path in present):
        words += f" Those that are there run with `python -m pytest {' '.join(present[:4])}`."
    elif present:
        words += f" Those that are there are in {_listed(present[:4])}."
    return f"## How it is checked\n\n{words}"


async def _written(writer: Writer, text: str, tests: str, secrets: Sequence[Secrets]) -> str | None:
    written = await writer.write(f"{text}\n\n## The failing tests\n\n```\n{tests}\n```")
    return written if written and not _leaks(written, secrets) else None


async def _judged(judge: Judge, text: str, tests: str, secrets: Sequence[Secrets]) -> str:
    lines = await judge.missing(text, tests)
    kept = [line for line in lines if not _leaks(line, secrets)]
    return text + "\n\n## Also demanded\n\n" + "\n".join(f"- {line}" for line in kept) if kept else text


def _test_text(change: Change, tests: dict[str, list[str]]) -> str:
    return "\n\n".join(f"# {path}: {', '.join(tests[path])}\n{change.tests[path].after}" for path in tests if path in change.tests)[:20_000]
