"""What a text gives away of a solution: its code, its own names, its constants. Owns the finding and the cutting, no other text.

A solution's own are code and words of its added lines that neither the workspace nor the hidden tests have. No secret are public names
and signatures, which are what is asked for, documentation, and messages.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from trunkline.tasks.factory.changed import Change, Texts, read_change
from trunkline.tasks.factory.definitions import definitions_of, parsed
from trunkline.tasks.factory.draft import Draft

_TOKEN = re.compile(r"[A-Za-z_$][\w$]*|\d\w*(?:\.\w+)*|(?<!\w)\"(?:[^\"\\\n]|\\.)*\"|(?<!\w)'(?:[^'\\\n]|\\.)*'|[^\s\w]")
_NAME = re.compile(r"[A-Za-z_$][\w$]*\Z")
_NUMBER = re.compile(r"\d{3,}\Z|\d+\.\d{2,}\Z|0x[\da-fA-F]{2,}\Z")
_COMMENT = re.compile(r"(?:^|\s)(?:#|//).*$")
_SPAN = re.compile(r"`([^`\n]+)`")
_BLOCK = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z`\"'(*-])")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s")
_RUN = 6
"""Tokens in a row that are code of the solution."""
_SHORT_LINE = 4
"""Tokens of a whole line that is."""


@dataclass(frozen=True)
class Leak:
    """Words of a text that come from the solution and from nowhere else."""

    kind: Literal["code", "name", "number"]
    """code: a run of it; name: of something that is its own affair; number: a constant."""
    words: str
    """As the text has them; code with single spaces."""


class Secrets:
    """A solution's own words. `Secrets(change).in_text("Use `_cache[key]`.")`."""

    def __init__(self, change: Change) -> None:
        self.change = change

    def in_text(self, text: str) -> list[Leak]:
        """What a text gives away, in its order, each once."""
        found: dict[Leak, None] = {}
        for part in _parts(text):
            tokens = _tokens(part)
            found |= dict.fromkeys(self._code(tokens))
            in_code = frozenset(_tokens("\n".join([part] if _BLOCK.match(part) else _SPAN.findall(part))))
            for token in tokens:
                if token in self._names and (_has_shape(token) or (token in in_code and len(token) > 4)):
                    found[Leak("name", token)] = None
                elif token in self._numbers and token not in self._known_tokens:
                    found[Leak("number", token)] = None
        return list(found)

    def _code(self, tokens: Sequence[str]) -> Iterator[Leak]:
        start = 0
        while start < len(tokens):
            length = _RUN if self._is_own_run(tokens[start : start + _RUN]) else 0
            while length and self._is_own_run(tokens[start + length - _RUN + 1 : start + length + 1]):
                length += 1
            if not length:
                lines = (line for line in self._lines if tuple(tokens[start : start + len(line)]) == line)
                length = max((len(line) for line in lines if line not in self._known_lines), default=0)
            if length:
                yield Leak("code", " ".join(tokens[start : start + length]))
            start += length or 1

    def _is_own_run(self, tokens: Sequence[str]) -> bool:
        return tuple(tokens) in self._runs and tuple(tokens) not in self._known_runs

    @cached_property
    def _added(self) -> list[list[str]]:
        """Tokens of each added line of code."""
        return [_tokens(line) for path, texts in self.change.sources.items() for line in _code_lines(path, texts)]

    @cached_property
    def _runs(self) -> frozenset[tuple[str, ...]]:
        return frozenset(run for run in _runs([token for line in self._added for token in line]) if _is_code(run))

    @cached_property
    def _lines(self) -> frozenset[tuple[str, ...]]:
        return frozenset(tuple(line) for line in self._added if _SHORT_LINE <= len(line) < _RUN and _is_code(line))

    @cached_property
    def _names(self) -> frozenset[str]:
        public = frozenset(word for texts in self.change.sources.values() for word in _public_words(texts.after))
        names = frozenset(token for line in self._added for token in line if _NAME.match(token))
        return names - self.change.known - self.change.test_words - public - _PLAIN

    @cached_property
    def _numbers(self) -> frozenset[str]:
        return frozenset(token for line in self._added for token in line if _NUMBER.match(token))

    @cached_property
    def _known(self) -> list[list[str]]:
        """Tokens of each line that whoever works there, or whoever reads the tests, can see. Slow, and seldom needed."""
        texts = [self.change.known_code, *(texts.after for texts in self.change.tests.values())]
        return [_tokens(line) for text in texts for line in text.splitlines()]

    @cached_property
    def _known_tokens(self) -> frozenset[str]:
        return frozenset(token for line in self._known for token in line)

    @cached_property
    def _known_runs(self) -> frozenset[tuple[str, ...]]:
        return self._runs.intersection(_runs([token for line in self._known for token in line]))

    @cached_property
    def _known_lines(self) -> frozenset[tuple[str, ...]]:
        return self._lines.intersection(tuple(line) for line in self._known)


def find_leaks(draft: Draft, text: str) -> list[Leak]:
    """What a text gives away of a draft's solution, in its order, each once."""
    return Secrets(read_change(draft)).in_text(text)


def without(text: str, leaks: Collection[Leak]) -> str:
    """The text without those blocks of code, items and sentences that leak."""
    if not leaks:
        return text
    parts = [part if not _leaks_any(part, leaks) else _thinned(part, leaks) for part in _parts(text)]
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(part for part in parts if part.strip())).strip()


def _leaks_any(part: str, leaks: Iterable[Leak]) -> bool:
    tokens = _tokens(part)
    present = frozenset(tokens)
    joined = f" {' '.join(tokens)} "
    return any(f" {leak.words} " in joined if leak.kind == "code" else leak.words in present for leak in leaks)


def _thinned(part: str, leaks: Collection[Leak]) -> str:
    if _BLOCK.match(part) or all(line.startswith("    ") for line in part.splitlines()):
        return ""
    items = _items(part)
    if len(items) > 1:
        return "\n".join(item for item in items if not _leaks_any(item, leaks))
    return " ".join(sentence for sentence in _SENTENCE.split(part) if not _leaks_any(sentence, leaks))


def _items(part: str) -> list[str]:
    """Items of a list, each with the lines that go on."""
    found: list[str] = []
    for line in part.splitlines():
        if found and not _ITEM.match(line):
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def _parts(text: str) -> Iterator[str]:
    """Blocks of code, and what blank lines part."""
    end = 0
    for block in _BLOCK.finditer(text):
        yield from (part for part in re.split(r"\n\s*\n", text[end : block.start()].strip("\n")) if part.strip())
        yield block.group()
        end = block.end()
    yield from (part for part in re.split(r"\n\s*\n", text[end:].strip("\n")) if part.strip())


_PLAIN = frozenset({"True", "False", "None", "self", "isinstance", "ValueError", "TypeError", "KeyError", "IndexError", "AttributeError"})
"""Words that say nothing, even if a small project has not used them."""


def _runs(tokens: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(tokens[start : start + _RUN]) for start in range(len(tokens) - _RUN + 1))


def _is_code(tokens: Iterable[str]) -> bool:
    """More than brackets, more than prose."""
    words = [bool(_NAME.match(token)) for token in tokens]
    return sum(words) >= 2 and not all(words)


def _has_shape(token: str) -> bool:
    """It looks like code wherever it stands."""
    return len(token) > 3 and (
        "_" in token.strip("_") or token.startswith("_") or (any(letter.isupper() for letter in token[1:]) and not token.isupper())
    )


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _code_lines(path: str, texts: Texts) -> Iterator[str]:
    """Added lines that are code: no comment, no documentation, no signature of what is public."""
    shown = _documented_lines(texts.after) if path.endswith((".py", ".pyi")) else frozenset()
    added = frozenset(texts.added)
    for number, line in enumerate(texts.after.splitlines(), 1):
        if line.strip() in added and number not in shown and (code := _COMMENT.sub("", line).strip()):
            yield code


def _documented_lines(source: str) -> frozenset[int]:
    tree = parsed(source)
    found: set[int] = set()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.name.startswith("_") or node.name.endswith("__"):
                found |= set(range(node.lineno, max(node.body[0].lineno, node.lineno + 1)))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(found)


def _public_words(source: str) -> set[str]:
    return {word for found in definitions_of(source).values() if found.is_public for word in (found.last_name, *found.parameters)}
