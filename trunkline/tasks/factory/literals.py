"""Texts that stand in the code which a change adds: messages, keys, formats. Owns no comparison with tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from trunkline.tasks.factory.changed import Texts
from trunkline.tasks.factory.definitions import parsed

_QUOTED = re.compile(r"\"((?:[^\"\\\n]|\\.)+)\"|'((?:[^'\\\n]|\\.)+)'|`([^`\\$]+)`")


def literals_of(path: str, texts: Texts) -> list[str]:
    """Of a file after its change, those that it did not have before, documentation excepted; of formatted texts each fixed piece."""
    if not path.endswith((".py", ".pyi")):
        return [found for line in texts.added for groups in _QUOTED.findall(line) if (found := "".join(groups))]
    old = set(_literals(texts.before))
    return [text for text in dict.fromkeys(_literals(texts.after)) if text not in old]


def _literals(source: str) -> Iterator[str]:
    tree = parsed(source)
    if tree is None:
        return
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value and id(node) not in documentation:
            yield from (piece for piece in re.split(r"%[#0 +-]*\d*\.?\d*[srdif]|\{[^{}]*\}", node.value) if piece)
