"""The command line without a process of its own: what it does and starts is real, and torch is imported already. Owns no test."""

from __future__ import annotations

from click.testing import Result
from typer.testing import CliRunner

from trunkline.errors import TrunklineError
from trunkline.run.cli import app


def trunkline(*arguments: str, status: int = 0) -> Result:
    """`trunkline ARGUMENTS`, which must end with this status; what it does not forgive is raised, as the command would print it."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, TrunklineError):
        raise result.exception
    assert result.exit_code == status, (result.output, result.exception)
    return result
