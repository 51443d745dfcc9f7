"""Certifying a software task whose files are in an image: its key, what its trial is made of. Owns no trial (trial.py) and no container.

ContainerTask ─► solution, run in a container ─► attacks made of its changes ─► trial: agents' containers, sealed containers
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trunkline.errors import TaskError
from trunkline.tasks.base import Subject
from trunkline.tasks.certificates.certificate import Certificate
from trunkline.tasks.formats.harbor import HarborTask
from trunkline.tasks.swe.attacks import Attack
from trunkline.tasks.swe.certify import NOT_EXCLUDED, code_digest, corpus_of, corpus_version, residual
from trunkline.tasks.swe.container_task import ContainerTask, container_settings, engine_for, named_image
from trunkline.tasks.swe.material import Material, changed_sources
from trunkline.tasks.swe.task import CodeTask, judged_sources, task_digest
from trunkline.tasks.swe.trial import NUM_NO_OP, Prepared, Steps, Trial
from trunkline.types import FileChange

_SANDBOX = ("sealed_container", "container", "docker_engine", "archive", "task_image", "sealed", "host")


def container_key(folder: Path, image: str, attacks: Sequence[Attack] | None = None) -> str:
    """SHA-256 of the task's files, the content of the image that it names ('' for none), the code that judges, and the attacks.

    Raises TaskError.
    """
    parts = ["container", task_digest(folder), image, code_digest(_SANDBOX), corpus_version("script", attacks)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def container_subject(harbor: HarborTask) -> Subject:
    """What the store knows a task by; an engine is asked only if the task names an image.

    Raises TaskError, also for a task that cannot be run; SandboxUnavailable, SandboxError.
    """
    container_settings(harbor)
    image = ""
    if harbor.config.environment.docker_image is not None:
        async with engine_for(harbor) as engine:
            image = await named_image(harbor, engine)
    key = await asyncio.to_thread(container_key, harbor.folder, image)
    return Subject(harbor.name, key, harbor.folder)


async def certify_container_task(
    opened: ContainerTask,
    *,
    repeats: int = 5,
    attacks: Sequence[Attack] | None = None,
    on_step: Callable[[str, int, int], None] = lambda words, done, total: None,
) -> Certificate:
    """Puts the task to the proof, as `certify_task` does. Raises CertificateError, SandboxError."""
    task, corpus = opened.task, corpus_of("script", attacks)
    steps = Steps(on_step, repeats + NUM_NO_OP + len(corpus))

    async def prepare() -> Prepared:
        oracle = await opened.oracle_changes()
        material = await asyncio.to_thread(_material, task, oracle)
        left_open = (*NOT_EXCLUDED, *residual(task, None), *_residual_of_image(opened, material))
        return Prepared(opened.verifier(oracle), material, None, left_open)

    key = lambda: container_key(task.folder, opened.image, attacks)  # noqa: E731
    trial = Trial(task, opened.sandboxes, key, corpus, corpus_version("script", attacks), steps)
    return await trial.certificate(prepare, repeats=repeats)


def _material(task: CodeTask, oracle: tuple[FileChange, ...]) -> Material:
    """Of what can be read: nothing says how the image would run its tests, so what functions answer to them is not recorded."""
    try:
        visible = judged_sources(task)
    except TaskError:
        visible = {}
    hidden = {
        path.relative_to(task.folder).as_posix(): path.read_text("utf-8", "replace") for path in (task.folder / "tests").rglob("*.py")
    }
    return Material(task, oracle, changed_sources(task, oracle), tuple(visible), (), hidden | visible)


def _residual_of_image(opened: ContainerTask, material: Material) -> Iterator[str]:
    if not opened.image:
        yield "another base image, or other packages, that the Dockerfile fetches when it is built again"
    if not material.sources:
        yield "forgeries from within the judged code: the solution changes no Python source, and such attacks are made of one"
