"""What is said of an injected fault: what goes wrong, more or less close to where, never what is wrong. Owns no fault and runs nothing."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.tasks.factory.variants.mutations import Mutation, functions_of
from trunkline.tasks.swe.syntax import parse

Tells = Literal["function", "file", "behaviour"]
"""How close a statement leads: to the function, to its file, or only to what is observed."""
MOST_LINES = 20
"""Of a symptom that is told."""
_MOST_DOC_LINES = 8


@dataclass(frozen=True)
class Symptom:
    """Lines of a test that run through in the right project, and fail with the fault."""

    text: str
    """The lines."""
    file: str
    """The test file that they are from."""
    parameters: tuple[str, ...] = ()
    """What the test is given by pytest."""
    case: str = ""
    """Which row of its table fails, as pytest names it; '' if it has none."""


def describe(mutation: Mutation, symptoms: Sequence[Symptom], broken: Sequence[str], *, tells: Tells, is_hidden: bool) -> str:
    """The statement of a task, in Markdown.

    Args:
        mutation: The fault.
        symptoms: What goes wrong; of several the first is told, since the rest is what the work is judged by.
        broken: Test files with tests that fail.
        tells: How close it leads.
        is_hidden: Whether these tests are not in the workspace.
    """
    where = {
        "function": f"`{mutation.function}` in `{mutation.path}` does not do what it should any more.",
        "file": f"Something in `{mutation.path}` does not work as it should any more.",
        "behaviour": "Something in this project does not work as it should any more.",
    }[tells]
    parts = [f"# `{mutation.function}` goes wrong" if tells == "function" else "# A regression", where]
    if tells == "function" and (doc := _doc(mutation)):
        parts.append("It is described so:\n\n" + "\n".join(f"> {line}".rstrip() for line in doc))
    if shown := next(iter(symptoms), None):
        given = f"# given by pytest: {', '.join(shown.parameters)}{f' = {shown.case}' if shown.case else ''}\n" if shown.parameters else ""
        parts.append(f"With the imports of `{shown.file}`, this fails and must not:\n\n```python\n{given}{shown.text}\n```")
    named = ", ".join(f"`{file}`" for file in broken)
    tests = f"Tests that show it are left out of {named}" if is_hidden else f"Tests in {named} show it"
    parts.append(
        "Find the cause in the source and repair it where it is; it may show in other cases than this. All that works now has to go on "
        f"working. {tests}; the work is judged by the project's own tests, changes of test files do not count."
    )
    return "\n\n".join(parts) + "\n"


def _doc(mutation: Mutation) -> list[str]:
    """The first paragraph of the function's docstring."""
    nodes = dict(functions_of(parse(mutation.original)))
    text = ast.get_docstring(nodes[mutation.function]) if mutation.function in nodes else None
    paragraph = inspect.cleandoc(text).split("\n\n")[0].splitlines() if text else []
    return [line for line in paragraph if not line.lstrip().startswith((">>>", "..."))][:_MOST_DOC_LINES]
