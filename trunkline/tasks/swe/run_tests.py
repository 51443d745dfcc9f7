"""Runs a sheet of tests in a sealed sandbox. Owns the command line; the report is read by outcomes.py.

trees + the sheet's files on top ─► pytest under programs/pytest_sheet.py ─► report ─► TestRun
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from trunkline.errors import VerifierError
from trunkline.tasks.swe.environment import PROGRAMS, PythonEnvironment
from trunkline.tasks.swe.outcomes import TestRun, read_report
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.sheets import Sheet
from trunkline.tasks.swe.task import CodeSettings
from trunkline.types import Command, SealedRun

_WORKSPACE = "/workspace"
_MAX_REPORT_BYTES = 2**24
_MAX_OUTPUT_BYTES = 2**16
# Not -I, which would also forget PYTHONHASHSEED: tests that depend on the order of sets must not be a matter of luck. Of other
# variables there are only those of the sandbox and of this file.
_FLAGS = ("-s", "-S", "-B")
_VARIABLES = {"PYTHONHASHSEED": "0", "TZ": "UTC", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


async def run_sheet(place: VerdictPlace, sheet: Sheet, *, trees: Sequence[Path], settings: CodeSettings, timeout_s: float) -> TestRun:
    """Runs the sheet over trees that lie over each other at /workspace, later ones on top.

    Raises VerifierError if it takes longer than `timeout_s` or spends a limit: that is no verdict. What a run says that cannot be
    believed is its complaint.
    """
    with tempfile.TemporaryDirectory(prefix="trunkline-sheet-") as folder:
        top = Path(folder)
        await asyncio.to_thread(_write, top, sheet.files)
        result = await place.sandboxes.run_sealed(
            SealedRun(
                Command(
                    (*_python(place.environment), f"{PROGRAMS}/pytest_sheet.py", _instructions(place, sheet, settings)),
                    environment={**dict(place.environment.variables), **_VARIABLES},
                    timeout_s=timeout_s,
                    max_output_bytes=_MAX_OUTPUT_BYTES,
                ),
                trees=(*trees, top),
                shown=place.environment.shown,
                max_report_bytes=_MAX_REPORT_BYTES,
            )
        )
    if result.command.is_timeout:
        raise VerifierError(f"the tests did not end within {timeout_s:g} s; no verdict (timeout_s of the task says how long they may take)")
    if result.spent:
        raise VerifierError(f"the tests were ended: {result.spent}; no verdict")
    return read_report(result)


def _python(environment: PythonEnvironment) -> tuple[str, ...]:
    """-P is as old as 3.11; before, the program itself drops its directory from the path."""
    return (environment.python, *(("-P",) if environment.version >= (3, 11) else ()), *_FLAGS)


def _instructions(place: VerdictPlace, sheet: Sheet, settings: CodeSettings) -> str:
    """For the program inside, as JSON."""
    return json.dumps(
        {
            "packages": place.environment.packages,
            "import_roots": [str(PurePosixPath(_WORKSPACE) / root) for root in settings.import_roots],
            "files": sheet.arguments,
            "pytest_args": settings.pytest_args,
        }
    )


def _write(top: Path, files: Mapping[str, str]) -> None:
    """Readable by any user, as are the directories above."""
    top.chmod(0o755)
    for name, text in files.items():
        path = PurePosixPath(name)
        assert not path.is_absolute() and ".." not in path.parts, f"a sheet's file leads out: {name}"
        for parent in [*reversed(path.parents)][1:]:
            (top / parent).mkdir(exist_ok=True)
            (top / parent).chmod(0o755)
        (top / path).write_text(text, "utf-8")
        (top / path).chmod(0o644)
