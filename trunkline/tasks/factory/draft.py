"""A task before it is a directory: what mining and every variant hand to the writer. Owns no stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.tasks.factory.candidate import Candidate
from trunkline.tasks.factory.language import Environment
from trunkline.tasks.swe.task import Kind
from trunkline.types import FileChange


@dataclass(frozen=True)
class Tested:
    """What running the tests before and after a change has shown."""

    fail_to_pass: tuple[str, ...]
    """Tests that pass after the change, in every run, and not before it."""
    pass_to_pass: tuple[str, ...]
    """Tests that pass before and after."""
    new_tests: tuple[str, ...] = ()
    """Of fail_to_pass, those that are not there before the change though their file can be loaded: points of a feature."""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Tests that are not judged, and why: their names or outcomes differ between runs."""


@dataclass(frozen=True)
class Draft:
    """A task with all its parts, nothing written yet but the trees."""

    name: str
    """Of the task's directory: small letters, digits, dots, hyphens, underscores."""
    kind: Kind
    """What is asked for; decides the reward."""
    candidate: Candidate
    """The change that it was made of."""
    workspace: Path
    """What the agent starts with: the project's files before the change."""
    solution: tuple[FileChange, ...]
    """What the change does to the workspace, tests excepted."""
    hidden_tests: tuple[FileChange, ...]
    """Test files as they are after the change, where they differ from the workspace: laid over it for a verdict."""
    test_files: tuple[str, ...]
    """Test files that are judged."""
    tested: Tested
    """How they end."""
    environment: Environment
    """What they run in."""
    variant: str = "mined"
    """mined, or how it was made of that: injected, merged, inverted, review."""
    instruction: str = ""
    """What the agent is told; '' until there is a statement."""
    heldout: str = ""
    """Held-out inputs (the text of tests/heldout.py); '' if there are none."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """For [metadata.factory] of its task.toml."""
