"""What a project's own changelog says of a version. Owns finding the file and the section; cleans nothing of what is said there.

# Changes                    <- no version in this heading
## 2.0.2 (2022-01-20)        <- the section of 2.0.2 begins
- Fixed: ...                     its body
## 2.0.1                     <- and ends: a heading of a version in the same style
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from trunkline.tasks.factory.candidate import SourceText

_NAMES = re.compile(
    r"(changes|changelog|change_log|history|news|release|releases|release[-_ ]?notes|whats?[-_ ]?new|versions|version[-_ ]?history)", re.I
)
_SUFFIXES = frozenset({"", ".md", ".rst", ".txt", ".markdown"})
_FOLDERS = ("", "doc", "docs", "doc/source", "docs/source", "docs/src")
_MOST_BYTES = 2 * 2**20
_MOST_LINES = 200
_LONGEST_HEADING = 120
_VERSION = re.compile(r"(?<![\w.])[vV]?(\d+(?:\.\d+)+(?:\.?(?:post|dev|rc|a|b)\d+)?)(?![\w]|\.\d)")
_ITEM = re.compile(r"^[-*] v?(?P<version>\d+(?:\.\d+)+):?\s")
"""An entry of a list of versions, one a line or paragraph: '- 1.20.2 Field names can contain hyphens'."""
_UNDERLINE = re.compile(r"^\s*([=\-~^\"'`#*+])\1{2,}\s*$")
_STARTS_PLAINLY = re.compile(r"^(\*\*|\[|:?(version|release)\b|v?\d)", re.I)


@dataclass(frozen=True)
class _Heading:
    line: int
    style: str
    version: str
    title: str
    body_from: int


def changelog_files(tree: Path) -> list[str]:
    """Paths of the files of a project that tell its history, the likeliest first: by name, at the top or in its documentation."""
    found = []
    for folder in _FOLDERS:
        place = tree / folder
        names = sorted(entry.name for entry in place.iterdir()) if place.is_dir() and not place.is_symlink() else []
        for name in names:
            path = place / name
            if _NAMES.match(path.stem) and path.suffix.lower() in _SUFFIXES and path.is_file() and not path.is_symlink():
                found.append(path.relative_to(tree).as_posix())
    return found


def changelog_text(before: Path, after: Path, version: str) -> SourceText | None:
    """What changed in a version: its section, else the lines that the changelog has gained; None if nothing says it.

    >>> changelog_text(Path("tomli-2.0.1"), Path("tomli-2.0.2"), "2.0.2")
    SourceText("changelog", "2.0.2", "- Removed\\n    - Python 3.7 support ...")
    """
    readmes = sorted(path.name for path in after.iterdir() if path.stem.upper() == "README" and path.suffix in _SUFFIXES and path.is_file())
    files = changelog_files(after)
    for path in [*files, *readmes]:
        text = section_of(_read(after / path), version)
        if text is not None and text.body:
            return text
    for path in files:
        gained = _gained(_read(before / path), _read(after / path))
        if gained and gained.count("\n") < _MOST_LINES:
            return SourceText("changelog", f"Changes in {version}", gained)
    return None


def section_of(text: str, version: str) -> SourceText | None:
    """The section of a changelog under the heading of a version; None if there is no such heading."""
    lines = text.splitlines()
    headings = _headings(lines)
    for index, heading in enumerate(headings):
        if _is_same(heading.version, version):
            ends = (later.line for later in headings[index + 1 :] if later.style == heading.style)
            body = lines[heading.body_from : next(ends, len(lines))]
            if heading.style == "item":
                body = [_ITEM.sub("", body[0]), *body[1:]]
            return SourceText("changelog", heading.title, "\n".join(body[:_MOST_LINES]).strip())
    return None


def _headings(lines: list[str]) -> list[_Heading]:
    found = []
    for number, line in enumerate(lines):
        if item := _ITEM.match(line):
            found.append(_Heading(number, "item", item["version"], item["version"], number))
            continue
        versions = _VERSION.findall(line)
        following = lines[number + 1] if number + 1 < len(lines) else ""
        underline = _UNDERLINE.match(following)
        if (not versions and "unreleased" not in line.lower()) or len(line) > _LONGEST_HEADING:
            continue
        if line.startswith("#"):
            style = line[: len(line) - len(line.lstrip("#"))]
        elif underline and line.strip():
            style = underline[1]
        elif _STARTS_PLAINLY.match(line) and _stands_alone(lines, number):
            style = "plain"
        else:
            continue
        title = re.sub(r"[\[\]*_`]", "", line.strip("# \t")).strip(" :")
        found.append(_Heading(number, style, versions[0] if versions else "", title, number + (2 if underline else 1)))
    return found


def _stands_alone(lines: list[str], number: int) -> bool:
    """Whether a blank line, or nothing, is before it: else it is a line of a paragraph that happens to begin with a number."""
    return number == 0 or not lines[number - 1].strip()


def _is_same(found: str, version: str) -> bool:
    try:
        return Version(found) == Version(version)
    except InvalidVersion:
        return False


def _gained(before: str, after: str) -> str:
    known = Counter(before.splitlines())
    gained = []
    for line in after.splitlines():
        if known[line]:
            known[line] -= 1
        else:
            gained.append(line)
    return "\n".join(gained).strip()


def _read(path: Path) -> str:
    if not path.is_file() or path.is_symlink() or path.stat().st_size > _MOST_BYTES:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")
