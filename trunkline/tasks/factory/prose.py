"""What people wrote about a change, without what is no description: templates, credits, links to the fix. Owns no judgement of leaks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.tasks.factory.candidate import SourceText

_FENCE = re.compile(r"^\s*(```|~~~)")
_COMMENT = re.compile(r"<!--.*?(-->|\Z)", re.DOTALL)
_DETAILS = re.compile(r"</?(details|summary|br|p|sub|sup|kbd|b|i|em|strong|div|span|a|h\d)\b[^>]*>", re.IGNORECASE)
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)|<img\b[^>]*>", re.IGNORECASE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]*\)")
_ROLE = re.compile(r":(?:\w+:)?(?:issue|pr|pull|user|gh|ghuser|commit|bug):`[^`]*`[ ,]*(?:and )?")
_RST = re.compile(
    r":(?:py:)?(?:func|class|meth|mod|attr|exc|ref|data|obj|doc|term|option|envvar|pep|rfc|const):`~?([^`<]+?)(?:\s*<[^>`]*>)?`"
)
_URL = re.compile(r"https?://\S*/(?:pull|commit|compare|issues|merge_requests|blob|tree|discussions|actions|releases)/\S*")
_NUMBERS = re.compile(
    r"\s*\((?:(?:see|pr|issue|closes|fixes|gh|bpo)?[ -]?#\d+[, ]*(?:and )?)+\)|(?<![\w&/])(?:gh-?|pr ?|issue ?)?#\d+\b:?", re.IGNORECASE
)
_HASH = re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b")
_CREDIT = re.compile(
    r"^\W*(co-authored-by|signed-off-by|reviewed-by|acked-by|tested-by|suggested-by|reported-by|change-id|git-svn-id|cc|refs?|see also"
    r"|pull request closed|\(?cherry[- ]picked from|thanks|thank you|credits?|patch by|original (patch|author)|by @)\b",
    re.IGNORECASE,
)
_FIXED = re.compile(
    r"^\W*(this (pr|pull request|commit|change) )?(will )?"
    r"(clos(e|es|ed|ing)|fix(es|ed|ing)?|resolv(e|es|ed|ing)|address(es)?|related( to)?|refs?|ref:|see|part of|follow[- ]?up (to|of|for)"
    r"|supersedes|replaces|implements|backport of)?[\s:*_]*(issues?|bugs?|pr|pull request)?[\s:]*"
    r"((gh-?|pr ?|issue ?)?#\d+|https?://\S+|[\w.-]+/[\w.-]+#\d+)([\s,.&]*(and|or)?[\s,.&]*(#\d+|https?://\S+))*[\s.)]*$",
    re.IGNORECASE,
)
_FIXES = re.compile(
    r"(?:(?<=[.!?])|(?<=^)|[,;(]|\band\b|\s-)\s*(?:this )?(?:clos|fix|resolv|address)(?:es|ed|e|ing)?:?\s+(?:issues?|bugs?|pr)?\s*"
    r"(?:(?:gh-?)?#\d+|https?://\S+?/\d+)(?:[,\s]*(?:and|&)?\s*#\d+)*[.)]?",
    re.IGNORECASE,
)
_PREFIX = re.compile(
    r"^(?:\[(?:mrg|wip|bug ?fix|fix|bug|feat\w*|enh|mnt)\+?\d*\]|issue \d+:"
    r"|(?:mnt|bug|enh|doc|docs|tst|fix|feat|feature|chore|refactor|perf)"
    r"(?:\([\w .-]*\))?!?:)\s*",
    re.IGNORECASE,
)
_MERGE = re.compile(
    r"^(merge (pull request|branch|remote[- ]tracking branch|commit|tag|pr|master|main|conflicts?)\b|merged? in\b"
    r"|revert \"|bump version|release )",
    re.IGNORECASE,
)
_BOX = re.compile(r"^\s*(?:[-*+]|\d+\.)\s*\[[ xX]?\]|^\s*[-*+]\s*(?:✅|☑|❌|⬜)")
_TEMPLATE = re.compile(
    r"^\s*(#+|\*\*)\s*(check ?list|type of changes?|types of changes?|how (has|was|can) this( been)?( be)? test(ed)?.*|pull request.*|pr .*"
    r"|todo.*|before (you )?submit.*|pre-?submission.*|related (issues?|prs?|links?).*|screenshots?.*|linked issues?.*|code of conduct"
    r"|contribut(ion|ing).*|additional (context|information|notes?)|relevant (issues?|links?).*"
    r"|tests?|test plan|release notes?|news|reviewers?.*"
    r"|remarks for.*|to be done.*|environment|versions?|system info.*|your environment)\W*$",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^\s*(#+\s|\*\*[^*]+\*\*:?\s*$)")
_NOISE = re.compile(
    r"^\W*(wip|oops|typos?|fix(ed|es)?:? (the )?(lint(ing|er)?|typos?|tests?|flake8|mypy|black)"
    r"|fix(ed|es)?:? (the )?(pep-?8|format(ting)?|ci|build|style|merge conflicts?)"
    r"|address(ed)? (review|comments?|feedback).*|review (comments?|feedback|fixes).*"
    r"|(run|apply|appease) (black|ruff|isort|pre-commit|linter).*"
    r"|add(ed|s)?:? (a |some |more |unit |missing |regression )*(tests?|change ?log( entry)?|news( fragment| entry)?|docs?)"
    r"|update(d|s)? (the )?(change ?log|changes|news|docs?|docstrings?|readme|authors|tests?)"
    r"|update \S+|docs?|rephrase|align|polish.*|type hints|fix pr|black|lint|style|cleanup|format|fixups?"
    r"|for more information, see \S+|fix(ed|es)? news.*|remove (the )?change ?log.*|create (a )?change ?log.*"
    r"|minor (fix(es)?|changes?|tweaks?)|bump .*|version ?changed.*"
    r"|\[?pre-commit.*|apply suggestions from code review.*)\W*$",
    re.IGNORECASE,
)
_MOST_WORDS = 900
_MOST_STEPS = 3


@dataclass(frozen=True)
class Prose:
    """A description that is left."""

    title: str
    """In one line; '' if nothing said what it is."""
    body: str
    """Markdown; may be ''."""

    @property
    def num_words(self) -> int:
        """Of both, code included."""
        return len(f"{self.title} {self.body}".split())


def describe(texts: Sequence[SourceText]) -> Prose:
    """Of all texts of a change: issues first, then the request, then the commit; the changelog only where nothing else says much."""
    order = {"issue": 0, "pull request": 1, "commit": 2, "changelog": 3}
    cleaned = [clean(text) for text in sorted(texts, key=lambda text: order[text.role]) if text.role != "changelog"]
    if sum(found.num_words for found in cleaned) < _FEW_WORDS:
        cleaned += [clean(text) for text in texts if text.role == "changelog"]
    cleaned = [found for found in cleaned if found.num_words]
    title = next((found.title for found in cleaned if len(found.title.split()) > 1), "")
    parts: list[str] = []
    for found in cleaned:
        own = [found.body] if found.title == title else [found.title, found.body]
        for part in own:
            if part and not any(_flat(part) in _flat(other) for other in [*parts, title]):
                parts.append(part)
    return Prose(title, _capped("\n\n".join(parts)))


_FEW_WORDS = 12


def clean(text: SourceText) -> Prose:
    """One text without comments, templates, check boxes, credits, links to the fix, numbers of issues, hashes."""
    body = _COMMENT.sub("", text.body.replace("\r\n", "\n").replace("\r", "\n"))
    title = _PREFIX.sub("", _line(text.title)).rstrip(".")
    if _MERGE.match(text.title.strip()) or _FIXED.match(text.title) or _NOISE.match(text.title):
        title = ""
    lines = _kept_lines(body)
    if not title:
        first = next((index for index, line in enumerate(lines) if line.strip()), None)
        if first is not None and not _FENCE.match(lines[first]) and len(lines[first]) < 120 and _begins_alone(lines, first):
            title, lines = _PREFIX.sub("", lines[first].strip().lstrip("#*- ")).rstrip("."), lines[first + 1 :]
    lines = [line for line in lines if not title or _flat(line) != _flat(title)]
    if text.role == "commit":
        lines = _without_steps(lines)
    return Prose(title.strip(), re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())


def _without_steps(lines: Sequence[str]) -> list[str]:
    """Of a request that was squashed to a commit, the titles of its many commits say how it came about; the first few stay."""
    alone = {index for index, line in enumerate(lines) if line.startswith(("* ", "- ")) and _stands_alone(lines, index)}
    gone = set(sorted(alone)[_MOST_STEPS:]) if len(alone) > _MOST_STEPS else set()
    return [line for index, line in enumerate(lines) if index not in gone]


def _stands_alone(lines: Sequence[str], index: int) -> bool:
    return not any(lines[place].strip() for place in (index - 1, index + 1) if 0 <= place < len(lines))


def _begins_alone(lines: Sequence[str], index: int) -> bool:
    """Whether it is a paragraph of one line."""
    return index + 1 >= len(lines) or not lines[index + 1].strip()


def _kept_lines(body: str) -> list[str]:
    kept: list[str] = []
    inside, skipping = False, False
    for line in body.split("\n"):
        if _FENCE.match(line):
            inside = not inside
            if not skipping:
                kept.append(line.strip() if not inside else line.rstrip())
            continue
        if inside:
            kept += [] if skipping else [line.rstrip()]
            continue
        if _HEADING.match(line):
            skipping = bool(_TEMPLATE.match(line))
        if skipping or _is_no_description(line):
            continue
        kept.append(_line(line) if line.strip() else "")
    if inside:
        kept.append("```")
    return _without_empty_headings(kept)


def _is_no_description(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_BOX, _CREDIT, _FIXED, _MERGE, _NOISE, _TEMPLATE))


def _line(line: str) -> str:
    """A line outside of code."""
    line = _DETAILS.sub("", _PICTURE.sub("", line))
    line = _RST.sub(r"`\1`", _ROLE.sub("", _LINK.sub(r"\1", line)))
    line = _NUMBERS.sub("", _URL.sub("", _FIXES.sub("", line)))
    line = re.sub(r"``([^`]+)``", r"`\1`", _HASH.sub("", line))
    line = re.sub(r"\s\(\s*[,;:.]?\s*\)|\s\[\s*\](?!\w)", "", line)
    return line.rstrip() if line.strip(" -*+.,:;()\t") else ""


def _without_empty_headings(lines: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for line in reversed(lines):
        after = next((later for later in reversed(kept) if later.strip()), "")
        if _HEADING.match(line) and (not after or _HEADING.match(after)):
            continue
        kept.append(line)
    return kept[::-1]


def _flat(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _capped(body: str) -> str:
    """At most so many words, whole paragraphs; a fence is closed."""
    kept: list[str] = []
    num_words = 0
    for line in body.split("\n"):
        num_words += len(line.split())
        if num_words > _MOST_WORDS and kept:
            break
        kept.append(line)
    if sum(bool(_FENCE.match(line)) for line in kept) % 2:
        kept.append("```")
    return "\n".join(kept).strip()
