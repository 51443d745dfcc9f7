"""What demonstrations of a task are made of: its file as it is right, and faults of single lines. Owns the form, no conversation.

A task may have solution/practice.json; no agent sees it. The faults of held-out tasks are not in it: whoever writes it sees to that.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.errors import TaskError

FILE = "practice.json"


class Fault(BaseModel):
    """One line with a fault, and as it is right; whole lines, without their ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: int = Field(ge=1, description="Its number in the file.")
    right: str = Field(description="As it stands in the right file.")
    wrong: str = Field(description="With the fault.")


class Practice(BaseModel):
    """A file with its faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1, description="In the workspace.")
    text: str = Field(min_length=1, description="The file, right.")
    faults: tuple[Fault, ...] = Field(min_length=1, description="Each for itself.")

    @model_validator(mode="after")
    def _check(self) -> Practice:
        lines = self.text.splitlines()
        for fault in self.faults:
            if fault.line > len(lines) or lines[fault.line - 1] != fault.right or fault.right == fault.wrong:
                raise ValueError(f"line {fault.line} is not {fault.right!r}, or is right with its fault, too")
        return self

    def with_fault(self, fault: Fault) -> str:
        """The file with one of them."""
        return with_line(self.text, fault.line, fault.wrong)


def with_line(text: str, line: int, new: str) -> str:
    """A text with another line `line`, counted from 1."""
    lines = text.split("\n")
    lines[line - 1] = new
    return "\n".join(lines)


def load_practice(solution: Path) -> Practice | None:
    """Of a task's solution folder; None if it has none. Raises TaskError."""
    path = solution / FILE
    if not path.is_file():
        return None
    try:
        return Practice.model_validate_json(path.read_bytes())
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3])
        raise TaskError(f"{path}: {faults}; write it anew, or remove it: then the task cannot be demonstrated") from None
