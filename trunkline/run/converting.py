"""`trunkline tasks` on other formats: SWE-bench instances in and out. Owns the wiring; the formats are tasks/formats'."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trunkline.errors import TaskError
from trunkline.run.certifying import verdict_place
from trunkline.tasks.cache import write_whole
from trunkline.tasks.formats.swebench import not_used, read_instances
from trunkline.tasks.formats.swebench_tasks import export_instance, import_instance, import_notices
from trunkline.tasks.swe.certify import calibration_of, stored_certificate
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.task import CodeTask, load_code_task


def import_all(instances: Path, repositories: Path, out: Path) -> Iterator[tuple[str, list[str]]]:
    """Imports one instance after the other: its id, then where it is and what of it is not used, or why not. Raises TaskError."""
    for instance in read_instances(instances):
        name = instance.instance_id
        owner, _, repository = instance.repo.partition("/")
        places = [repositories / f"{owner}__{repository}", repositories / owner / repository]
        clone = next((place for place in places if place.is_dir()), None)
        if clone is None:
            yield name, [f"skipped: no clone of {instance.repo} at {places[0]}"]
            continue
        try:
            yield name, [str(import_instance(instance, clone, out / name)), *not_used(instance), *import_notices(instance)]
        except TaskError as error:
            yield name, [f"skipped: {error}"]


async def export_all(folders: Sequence[Path], out: Path) -> int:
    """Writes instances as JSON lines; how many. Tests of a certified task are those that certifying found. Raises TaskError."""
    tasks = [load_code_task(folder) for folder in folders]
    async with contextlib.AsyncExitStack() as stack:
        place: VerdictPlace | None = None
        if any(not _says_its_patch(task) for task in tasks):
            _, place = await stack.enter_async_context(verdict_place())
        rows = [await _row(task, None if _says_its_patch(task) else place) for task in tasks]
    await asyncio.to_thread(write_whole, out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


def _says_its_patch(task: CodeTask) -> bool:
    return (task.solution / "oracle.patch").is_file()


async def _row(task: CodeTask, place: VerdictPlace | None) -> dict[str, Any]:
    """An instance; `place` runs the solution where no patch says what it changes."""
    oracle = None if place is None else await oracle_changes(task, place)
    certificate = stored_certificate(task)
    found = None if certificate is None else calibration_of(certificate)
    tests = (None, None) if found is None else (found.fail_to_pass, found.pass_to_pass)
    return await asyncio.to_thread(export_instance, task.folder, oracle=oracle, fail_to_pass=tests[0], pass_to_pass=tests[1])
