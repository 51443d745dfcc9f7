"""All languages that the factory knows. Owns their order: the first that speaks a project's files is taken."""

from __future__ import annotations

from trunkline.protocols import SealedSandboxes
from trunkline.tasks.factory.javascript.language import JavaScriptLanguage
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.python import PythonLanguage


def languages(sandboxes: SealedSandboxes) -> tuple[Language, ...]:
    """Python and JavaScript, with tests run in these sandboxes."""
    return (PythonLanguage(sandboxes), JavaScriptLanguage(sandboxes))
