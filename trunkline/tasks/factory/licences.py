"""Under which licence a tree of files is, by SPDX name, and whether that permits reuse. What is not recognised is refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

PERMISSIVE = frozenset(
    {
        "0BSD", "Apache-2.0", "BlueOak-1.0.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT",
        "MIT-0", "MIT-CMU", "NCSA", "PostgreSQL", "PSF-2.0", "Python-2.0", "Unlicense", "UPL-1.0", "X11", "ZPL-2.1", "Zlib",
    }
)  # fmt: skip
"""SPDX names of licences that let anyone use, change and pass on, with notice at most."""

_FILES = re.compile(r"^(licen[cs]e|copying|unlicense|mit-licen[cs]e)", re.I)
_MOST_BYTES = 256 * 1024
_TITLES = (
    ("gnu affero general public license", "AGPL-3.0-only"),
    ("gnu lesser general public license", "LGPL-3.0-only"),
    ("gnu library general public license", "LGPL-2.0-only"),
    ("gnu general public license", "GPL-3.0-only"),
    ("mozilla public license", "MPL-2.0"),
    ("eclipse public license", "EPL-2.0"),
    ("european union public licence", "EUPL-1.2"),
    ("business source license", "BUSL-1.1"),
    ("server side public license", "SSPL-1.0"),
    ("commons clause", "Commons-Clause"),
    ("creative commons attribution", "CC-BY-4.0"),
)
"""Those that are not permissive: their title near the beginning of a file. Versions are not told apart, since all are refused."""
_TITLE_WITHIN = 400
_MIT = "permission is hereby granted, free of charge, to any person obtaining a copy"
_SENTENCES = (
    (("apache license version 2.0, january 2004",), (), "Apache-2.0"),
    (("licensed under the apache license, version 2.0",), ("apache license version 2.0, january 2004",), "Apache-2.0"),
    ((_MIT, "this permission notice shall be included"), (), "MIT"),
    ((_MIT, "deal in the software without restriction"), ("this permission notice shall be included",), "MIT-0"),
    (("redistribution and use in source and binary forms", "all advertising materials"), (), "BSD-4-Clause"),
    (("redistribution and use in source and binary forms", "endorse or promote products"), ("all advertising materials",), "BSD-3-Clause"),
    (("redistribution and use in source and binary forms",), ("endorse or promote products", "all advertising materials"), "BSD-2-Clause"),
    (("for any purpose with or without fee is hereby granted", "provided that the above copyright notice"), (), "ISC"),
    (("for any purpose with or without fee is hereby granted",), ("provided that the above copyright notice",), "0BSD"),
    (("this is free and unencumbered software released into the public domain",), (), "Unlicense"),
    (("python software foundation license version 2",), (), "PSF-2.0"),
    (("boost software license - version 1.0",), (), "BSL-1.0"),
    (("cc0 1.0 universal",), (), "CC0-1.0"),
    (("blue oak model license",), (), "BlueOak-1.0.0"),
    (("altered source versions must be plainly marked as such",), (), "Zlib"),
    (("zope public license (zpl) version 2.1",), (), "ZPL-2.1"),
)  # fmt: skip
"""What a text must have, what it must not have, and what it is then; all small letters, one space between words."""
_CLASSIFIERS = (
    ("MIT No Attribution", "MIT-0"),
    ("MIT License", "MIT"),
    ("BSD License", "BSD-3-Clause"),
    ("Apache Software License", "Apache-2.0"),
    ("ISC License", "ISC"),
    ("Python Software Foundation License", "PSF-2.0"),
    ("The Unlicense", "Unlicense"),
    ("zlib/libpng License", "Zlib"),
    ("Boost Software License", "BSL-1.0"),
    ("Zope Public License", "ZPL-2.1"),
    ("CC0 1.0", "CC0-1.0"),
    ("Public Domain", "Unlicense"),
)
_LOOSE_NAMES = {
    "mit license": "MIT",
    "the mit license": "MIT",
    "bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "isc license": "ISC",
    "psf": "PSF-2.0",
}


def licence_of(tree: Path) -> str:
    """An SPDX expression for a project's files: its licence texts, else its metadata; 'unknown' if neither is recognised.

    >>> licence_of(Path("tomli-2.0.2"))
    'MIT'
    """
    names = sorted(entry.name for entry in tree.iterdir() if _FILES.match(entry.name) and entry.is_file() and not entry.is_symlink())
    folder = tree / "LICENSES"
    texts = [_read(tree / name) for name in names] or [_read(path) for path in sorted(folder.glob("*.txt"))]
    told = [licence_of_text(text) for text in texts]
    found = sorted({name for names in told for name in names.split(" AND ")} - {"unknown"})
    return " AND ".join(found) or _of_metadata(tree)


def licence_of_text(text: str) -> str:
    """The licences whose distinctive sentences are in a text, as an SPDX expression; 'unknown' if there are none."""
    words = " ".join(re.sub(r"[*#>=_`-]{2,}|^\s*[#>*]+|[(]c[)]", " ", text.lower(), flags=re.M).split())
    titles = [(words.find(title), name) for title, name in _TITLES if title in words[:_TITLE_WITHIN]]
    if titles:
        return min(titles)[1]
    found = {name for has, lacks, name in _SENTENCES if all(part in words for part in has) and not any(part in words for part in lacks)}
    return " AND ".join(sorted(found)) or "unknown"


def is_permissive(expression: str) -> bool:
    """Whether all of an SPDX expression's licences are permissive, or one of plain alternatives is.

    >>> is_permissive("MIT OR GPL-3.0-only"), is_permissive("MIT AND GPL-3.0-only"), is_permissive("unknown")
    (True, False, False)
    """
    names = [word for word in re.split(r"[\s()]+|\bAND\b|\bOR\b", expression) if word]
    if not names:
        return False
    alternatives = "(" not in expression and " AND " not in expression and " WITH " not in expression
    return any(name in PERMISSIVE for name in names) if alternatives else all(name in PERMISSIVE for name in names)


def _of_metadata(tree: Path) -> str:
    pyproject = _toml(tree / "pyproject.toml").get("project", {})
    stated = pyproject.get("license") if isinstance(pyproject, dict) else None
    metadata = HeaderParser().parsestr(_read(tree / "PKG-INFO"))
    said = [
        stated if isinstance(stated, str) else "",
        metadata.get("License-Expression", ""),
        _of_classifiers(metadata.get_all("Classifier", [])),
        stated.get("text", "") if isinstance(stated, dict) else "",
        metadata.get("License", ""),
        _of_package_json(tree / "package.json"),
    ]
    return next((name for text in said if (name := _spdx(str(text)))), "unknown")


def _of_classifiers(classifiers: Iterable[str]) -> str:
    licences = [line for line in classifiers if line.startswith("License ::") and not line.endswith(":: OSI Approved")]
    names = {name for line in licences for words, name in _CLASSIFIERS if words in line}
    return " AND ".join(sorted(names)) if names and len(names) >= len({*licences}) else ""


def _of_package_json(path: Path) -> str:
    found = re.search(r'"license"\s*:\s*"([^"]+)"', _read(path))
    return found[1] if found else ""


def _spdx(text: str) -> str:
    """What a project wrote as its licence, as an expression if it is one of names that we know."""
    text = text.strip()
    if "\n" in text:
        told = licence_of_text(text)
        return "" if told == "unknown" else told
    text = _LOOSE_NAMES.get(text.lower(), text)
    return text if re.fullmatch(r"[A-Za-z0-9.+-]+(\s+(AND|OR|WITH)\s+[A-Za-z0-9.+-]+)*", text) else ""


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError:
        return {}


def _read(path: Path) -> str:
    if not path.is_file() or path.is_symlink() or path.stat().st_size > _MOST_BYTES:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")
