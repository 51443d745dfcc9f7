"""Licences of trees, by their texts and their metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.index_scene import MIT
from trunkline.tasks.factory.licences import is_permissive, licence_of, licence_of_text

BSD_2 = "Redistribution and use in source and binary forms, with or without modification, are permitted provided that ..."
BSD_3 = f"{BSD_2}\nNeither the name of the author may be used to endorse or\n   promote products derived from this software"
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose
with or without fee is hereby granted, provided that the above copyright notice appears in all copies."""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (MIT, "MIT"),
        (MIT.replace("The above copyright notice and this permission notice shall be included", ""), "MIT-0"),
        (BSD_2, "BSD-2-Clause"),
        (BSD_3, "BSD-3-Clause"),
        (f"{BSD_3}\nAll advertising materials must say so", "BSD-4-Clause"),
        (ISC, "ISC"),
        ("                Apache License\n          Version 2.0, January 2004\n", "Apache-2.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3 ... GNU Lesser General Public License instead", "GPL-3.0-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n incorporates the GNU General Public License", "LGPL-3.0-only"),
        ("Mozilla Public License Version 2.0", "MPL-2.0"),
        (f"{MIT}\n\nFor vendored.py:\n\n{BSD_3}", "BSD-3-Clause AND MIT"),
        ("All rights reserved.", "unknown"),
    ],
)
def test_a_text_is_known_by_its_sentences(text: str, name: str) -> None:
    assert licence_of_text(text) == name


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"LICENSE.txt": MIT}, "MIT"),
        ({"LICENSE-MIT": MIT, "LICENCE-BSD.md": BSD_3}, "BSD-3-Clause AND MIT"),
        ({"LICENSES/MIT.txt": MIT}, "MIT"),
        ({"COPYING": "Ask me.", "pyproject.toml": '[project]\nlicense = "MIT OR Apache-2.0"\n'}, "MIT OR Apache-2.0"),
        ({"pyproject.toml": '[project]\nlicense = {text = "BSD"}\n'}, "BSD-3-Clause"),
        ({"PKG-INFO": "Name: a\nClassifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: ISC License (ISCL)\n"}, "ISC"),
        ({"PKG-INFO": "Name: a\nLicense-Expression: Zlib\n"}, "Zlib"),
        ({"package.json": '{"name": "a", "license": "ISC"}'}, "ISC"),
        (
            {"PKG-INFO": "Name: a\nClassifier: License :: Other/Proprietary License\nClassifier: License :: OSI Approved :: MIT License\n"},
            "unknown",
        ),
        ({"pyproject.toml": "not [toml"}, "unknown"),
    ],
)
def test_a_tree_is_known_by_its_texts_else_by_its_metadata(tmp_path: Path, files: dict[str, str], name: str) -> None:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert licence_of(tmp_path) == name


@pytest.mark.parametrize("expression", ["MIT", "MIT AND BSD-3-Clause", "MIT OR GPL-3.0-only", "(MIT OR ISC) AND Zlib"])
def test_permissive_expressions_are_known(expression: str) -> None:
    assert is_permissive(expression)


@pytest.mark.parametrize("expression", ["", "unknown", "GPL-3.0-only", "MIT AND MPL-2.0", "(MIT OR GPL-3.0-only) AND Zlib", "NOASSERTION"])
def test_all_other_expressions_are_not(expression: str) -> None:
    assert not is_permissive(expression)
