"""Tasks whose files are in an image: built, opened and ready for an agent and a verdict. Owns no verdict and no container.

task folder ─► image ─► workspace on this host + containers of the image without it ─► CodeTask, ContainerSandboxes
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import SandboxUnavailable, TaskError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.container import ContainerSandboxes
from trunkline.sandbox.docker_engine import Engine, NotInEngine
from trunkline.sandbox.task_image import ImageSource, detached_image
from trunkline.tasks.formats.harbor import DOCKERFILE, SOLVE_SCRIPT, HarborTask, read_harbor, read_text
from trunkline.tasks.formats.harbor_honoured import refusals
from trunkline.tasks.swe.place import changes_by_solution
from trunkline.tasks.swe.script_verifier import ScriptVerifier
from trunkline.tasks.swe.task import TABLE, CodeSettings, CodeTask, read_settings
from trunkline.types import FileChange

_SHELL = ("/bin/sh",)
"""Reads a script that names no interpreter."""


@dataclass(frozen=True)
class ContainerTask:
    """A task and where its commands run."""

    task: CodeTask
    """The task; its workspace is what its image held."""
    sandboxes: ContainerSandboxes
    """Of its image, for the agent and for verdicts."""
    image: str
    """The engine's name for the content of the image that the task names; '' if a Dockerfile in its folder says what that is."""

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, config: SandboxConfig) -> AsyncIterator[ContainerTask]:
        """Builds the image if it is not there, for the length of the block; `config.image` is not looked at.

        Raises TaskError before anything is built, SandboxUnavailable without an engine, SandboxError.
        """
        harbor = read_harbor(folder)
        settings = container_settings(harbor)
        environment = harbor.config.environment
        with tempfile.TemporaryDirectory(prefix="trunkline-task-") as scratch:
            workspace = Path(scratch) / "workspace"
            source = ImageSource(
                folder / "environment" if environment.docker_image is None else None,
                environment.docker_image,
                environment.workdir,
                environment.build_timeout_sec,
            )
            async with engine_for(harbor) as engine:
                image = await named_image(harbor, engine)
                detached = await detached_image(engine, source, workspace)
            task = CodeTask(harbor.name, harbor.instruction, folder, workspace, None, None, folder / "solution", settings)
            async with ContainerSandboxes.open(config.model_copy(update={"kind": "container", "image": detached})) as sandboxes:
                yield cls(task, sandboxes, image)

    async def oracle_changes(self) -> tuple[FileChange, ...]:
        """What solution/solve.sh does to the workspace. Raises TaskError if it fails or changes nothing, VerifierError if it is ended."""
        return await changes_by_solution(self.task, self.sandboxes, _interpreter(self.task.folder / SOLVE_SCRIPT))

    def verifier(self, oracle: tuple[FileChange, ...] = ()) -> ScriptVerifier:
        """By the task's own script, with the image's own Python."""
        paths = frozenset(change.path for change in oracle)
        return ScriptVerifier.load(self.task.folder, self.sandboxes, workspace=self.task.workspace, oracle_paths=paths)


def container_settings(harbor: HarborTask) -> CodeSettings:
    """Of a task that runs in containers: judged by its script, which may take as long as the task says.

    Raises TaskError with all that the task asks and cannot have, or that it lacks.
    """
    folder, metadata = harbor.folder, harbor.config.metadata
    if asked := refusals(harbor):
        raise TaskError(f"{folder} asks for what cannot be given: {'; '.join(asked)}")
    settings = read_settings(folder, metadata)
    if settings.verifier != "script" and TABLE in metadata:
        raise TaskError(f"{folder}: a container has only verifier = 'script'; set it in [metadata.{TABLE}]")
    if not (folder / SOLVE_SCRIPT).is_file():
        raise TaskError(f"{folder / SOLVE_SCRIPT} is missing; without a solution nothing shows that the task can be solved")
    return settings.model_copy(update={"verifier": "script", "timeout_s": harbor.config.verifier.timeout_sec})


@asynccontextmanager
async def engine_for(harbor: HarborTask) -> AsyncIterator[Engine]:
    """The engine that a task needs, for the length of the block. Raises SandboxUnavailable, with the remedy."""
    where = harbor.config.environment.docker_image or DOCKERFILE
    async with AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(Engine.connected("task-images"))
        except SandboxUnavailable as error:
            raise SandboxUnavailable(
                f"{harbor.name} has its workspace in an image ({where}), so it needs a container engine: "
                "pip install 'trunkline[container]', and a running dockerd, or DOCKER_HOST=unix://... of an engine with Docker's API; "
                f"{str(error).splitlines()[0]}"
            ) from error
        yield engine


async def named_image(harbor: HarborTask, engine: Engine) -> str:
    """What the engine calls the content of the image that the task names; '' if it names none.

    Raises SandboxUnavailable if it is not there: images are never fetched unasked.
    """
    image = harbor.config.environment.docker_image
    if image is None:
        return ""
    try:
        return str((await engine.ask("find an image", engine.api.inspect_image, image))["Id"])
    except NotInEngine:
        raise SandboxUnavailable(
            f"{engine.name} has no image {image!r}, which is that of {harbor.name}, and images are never fetched unasked; "
            f"run: {engine.name} pull {image}"
        ) from None


def _interpreter(script: Path) -> tuple[str, ...]:
    """As its first line says, for its mode may not let it be executed. Raises TaskError."""
    first = read_text(script).partition("\n")[0]
    return tuple(shlex.split(first.removeprefix("#!"))) if first.startswith("#!") else _SHELL
