"""The failure tree: every class names its boundary, and the drawing in the docstring is the tree."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from trunkline import errors
from trunkline.errors import TrunklineError
from trunkline.types import Boundary, Failure

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, TrunklineError)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_failure_names_a_known_boundary(error: type[TrunklineError]) -> None:
    assert error.boundary in get_args(Boundary)


@pytest.mark.parametrize("error", CLASSES)
def test_a_failure_becomes_data_without_loss(error: type[TrunklineError]) -> None:
    assert error("what happened").as_failure() == Failure(error.boundary, error.__name__, "what happened")


def test_the_drawing_is_the_tree() -> None:
    lines = (errors.__doc__ or "").splitlines()
    drawn = lines[lines.index("TrunklineError") :]
    depth_and_name = [(len(re.match(r"[│├└─ ]*", line)[0]) // 4, re.search(r"\w+", line)[0]) for line in drawn if line]
    path: list[str] = []
    bases = {}
    for depth, name in depth_and_name:
        path[depth:] = [name]
        bases[name] = path[depth - 1] if depth else "Exception"
    assert bases == {error.__name__: error.__bases__[0].__name__ for error in CLASSES}


def test_a_failed_attempt_on_the_wire_is_told_from_an_infra_failure() -> None:
    assert errors.UnknownSession.boundary == "gateway"
    assert errors.DeadlineExceeded.boundary == "agent"
    assert errors.EngineUnavailable.boundary == "engine"
    assert errors.JournalError.boundary == "infra"
