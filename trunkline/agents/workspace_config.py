"""The recipe's section [agent.workspace]. Owns its knobs and checks; what the tools do is workspace_tools.py's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ToolName = Literal["read", "read_lines", "replace", "write", "run_tests", "run_test_file"]
EditBy = Literal["text", "line"]
TestReport = Literal["output", "word"]


class WorkspaceConfig(BaseModel):
    """Tools of our own loop on the directory that a task gives; each attempt has a sandbox of its own, the loop stays outside."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: tuple[ToolName, ...] = Field(
        (), description="What the model is offered, in this order; none: tasks that give a directory are refused."
    )
    edit_by: EditBy = Field(
        "text",
        description="How `replace` is told what to replace. text: a piece that is in the file once; line: a line's number, and reading "
        "numbers the lines: nothing has to be copied.",
    )
    test_report: TestReport = Field(
        "output", description="What the tests' tools say. output: what was printed, and a word; word: passed, failed, error, 'out of time'."
    )
    remember_tests: bool | Path = Field(
        False,
        description="What the tests say after the same edits of the same workspace is asked once: cheaper by far for small policies, "
        "whose attempts are often the same. true: once a run; a file's path: once for all runs that name it.",
    )
    max_result: int = Field(4000, ge=40, description="Characters of one result at most; of a longer one the middle is left out.")
    test_timeout_s: float = Field(30.0, gt=0, description="Seconds that one run of the tests may take.")

    @model_validator(mode="after")
    def _check(self) -> WorkspaceConfig:
        if doubled := sorted({name for name in self.tools if self.tools.count(name) > 1}):
            raise ValueError(f"each tool is offered once, got {', '.join(doubled)} more than once")
        return self
