"""An engine that speaks Docker's API (dockerd, podman): calls off the event loop, their failures, and what in it is ours. Owns no sandbox.

Everything ours carries labels: the process that owns it, that process's namespace of numbers (an engine's socket may be shared with
other containers), and the set it belongs to. Whatever carries the label of an owner that runs no more is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any

from trunkline.errors import SandboxError, SandboxUnavailable
from trunkline.sandbox.owner import has_ended, own_name

OWNER = "trunkline.owner"
NAMESPACE = "trunkline.namespace"
SET = "trunkline.set"
_TIMEOUT_S = 300
"""Of one call: a commit copies what a sandbox wrote."""
_REMEDIES = """Remedies: start dockerd, and be root or of the group docker; or start podman's socket (systemctl --user start podman.socket)
and set DOCKER_HOST=unix:///run/user/UID/podman/podman.sock.
Alternatives: sandbox.kind="isolated", which needs no engine, or sandbox.kind="unsafe" for commands that you trust as yourself."""


class NotInEngine(SandboxError):
    """The engine has no such container or image."""


class InUse(SandboxError):
    """Something in the engine still needs it."""


@dataclass(frozen=True)
class Engine:
    """A connection, and the labels of what is made through it."""

    api: Any
    """docker.APIClient; its methods block."""
    name: str
    """docker or podman."""
    version: str
    """Of the engine."""
    info: Mapping[str, Any]
    """What it says of its host."""
    labels: Mapping[str, str]
    """Of every container and image."""

    @classmethod
    @asynccontextmanager
    async def connected(cls, set_name: str) -> AsyncIterator[Engine]:
        """The engine that DOCKER_HOST names, for the length of the block. Raises SandboxUnavailable, with the remedy."""
        try:
            import docker
        except ImportError:
            raise SandboxUnavailable("the package docker is not installed; pip install 'trunkline[container]'") from None
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        try:
            api = (await asyncio.to_thread(docker.from_env, timeout=_TIMEOUT_S)).api
            version, info = await asyncio.to_thread(api.version), await asyncio.to_thread(api.info)
        except (docker.errors.DockerException, OSError) as error:
            raise SandboxUnavailable(f"no engine with Docker's API answers at {where}: {error}\n{_REMEDIES}") from error
        name = "podman" if any("Podman" in part.get("Name", "") for part in version.get("Components") or ()) else "docker"
        labels = {OWNER: own_name(), NAMESPACE: str(os.stat("/proc/self/ns/pid").st_ino), SET: set_name}
        try:
            yield cls(api, name, version["Version"], info, labels)
        finally:
            api.close()

    async def ask(self, what: str, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Runs a method of `api` in a thread. A thread cannot be stopped: cancelled, it returns once the engine has answered.

        Raises NotInEngine, InUse, SandboxError.
        """
        from docker.errors import APIError, DockerException

        call = asyncio.ensure_future(asyncio.to_thread(work, *args, **options))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.gather(call, return_exceptions=True)
            raise
        except APIError as error:
            kind = {404: NotInEngine, 409: InUse}.get(error.status_code, SandboxError)
            raise kind(f"{self.name} cannot {what}: {error.explanation or error}") from error
        except (DockerException, OSError) as error:  # requests' own are OSErrors
            raise SandboxError(f"{self.name} cannot {what}: {error}") from error

    async def find_image(self, image: str | None) -> Mapping[str, Any]:
        """What the engine says of an image. Raises SandboxUnavailable if there is none."""
        if image is None:
            raise SandboxUnavailable("sandbox.kind is 'container', but no image is named; set sandbox.image, such as 'python:3.12-slim'")
        try:
            found: Mapping[str, Any] = await self.ask("find an image", self.api.inspect_image, image)
        except NotInEngine:
            raise SandboxUnavailable(
                f"{self.name} has no image {image!r}, and images are never fetched unasked; run: {self.name} pull {image}\n"
                'Alternatives: another sandbox.image, or sandbox.kind="isolated", which needs none.'
            ) from None
        return found

    async def commit(self, container: str) -> str:
        """The number of a new image with the files of a container."""
        changes = [f"LABEL {name}={value}" for name, value in self.labels.items()]
        made = await self.ask("commit a container", self.api.commit, container, pause=False, changes=changes)
        return str(made["Id"])

    async def copy_out(self, container: str, path: str, archive: IO[bytes]) -> None:
        """Writes a directory of a container into a file, as a tar archive, and rewinds it."""

        def copy() -> None:
            chunks, _ = self.api.get_archive(container, path)
            archive.writelines(chunks)
            archive.seek(0)

        await self.ask(f"copy {path} out of a container", copy)

    async def num_bytes_written(self, container: str) -> int:
        """Sizes of all files that a container has over its image."""
        found = await self.ask("measure a container", self.api.containers, all=True, size=True, filters={"name": f"^/?{container}$"})
        return int(found[0].get("SizeRw") or 0) if found else 0

    async def kill(self, container: str) -> None:
        """Ends all its processes, unless they have ended."""
        with contextlib.suppress(NotInEngine, InUse):
            await self.ask("kill a container", self.api.kill, container)

    async def remove_container(self, container: str) -> None:
        """Kills and removes it with its volumes, unless it is gone."""
        with contextlib.suppress(NotInEngine, InUse):  # in use: it is being removed
            await self.ask("remove a container", self.api.remove_container, container, force=True, v=True)

    async def remove_images(self, images: Sequence[str]) -> list[str]:
        """Removes those that no container and no other image builds on; the rest is returned."""
        left = list(images)
        while True:
            before = len(left)
            for image in reversed(tuple(left)):  # the last made builds on the first made
                try:
                    # Without noprune it would remove untagged images below, the user's own among them.
                    await self.ask("remove an image", self.api.remove_image, image, noprune=True)
                except NotInEngine:
                    pass
                except InUse:
                    continue
                left.remove(image)
            if not left or len(left) == before:
                return left

    async def remove_own(self) -> None:
        """Everything of this set."""
        await self._remove([f"{SET}={self.labels[SET]}"], lambda labels: True)

    async def remove_leftovers(self) -> None:
        """Everything whose owner was killed."""
        await self._remove([f"{NAMESPACE}={self.labels[NAMESPACE]}"], lambda labels: has_ended(labels.get(OWNER, "")))

    async def _remove(self, labels: list[str], is_meant: Callable[[Mapping[str, str]], bool]) -> None:
        for found in await self.ask("list containers", self.api.containers, all=True, filters={"label": labels}):
            if is_meant(found["Labels"]):
                await self.remove_container(found["Id"])
        images = await self.ask("list images", self.api.images, all=True, filters={"label": labels})
        images.sort(key=lambda image: image["Created"])
        await self.remove_images([image["Id"] for image in images if is_meant(image["Labels"])])
