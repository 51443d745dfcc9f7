"""The knobs of a recipe's sandboxes. Owns no mechanism."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trunkline.types import SandboxLimits

Kind = Literal["isolated", "container", "unsafe"]

_DEFAULT = SandboxLimits()


class SandboxConfig(BaseModel):
    """Where an agent's commands run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind | None = Field(
        None,
        description="isolated: a namespaced host process; container: Docker's API; unsafe: on this host, as this user, with nothing to "
        "hold it. Not set: isolated for an `agent.command`, and the tool loop, which is ours, stays in the conductor.",
    )
    toolchain: tuple[Path, ...] = Field(
        (), description="Directories of this host that commands see read-only, beside /usr, this Python and the files that they name."
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Hosts ('pypi.org', 'mirror.example:8080') that commands reach through an HTTP proxy; none: no network at all."
    )
    directory: Path | None = Field(None, description="Where sandboxes keep their files; default: $TMPDIR, else /var/tmp.")
    image: str | None = Field(None, description="container: the image that commands run in.")
    memory_bytes: int = Field(_DEFAULT.memory_bytes, ge=16 * 2**20, description="Memory of one sandbox.")
    num_processes: int = Field(_DEFAULT.num_processes, ge=4, description="Processes and threads of one sandbox at once.")
    cpus: float = Field(_DEFAULT.cpus, gt=0, description="Cores of one sandbox, where cgroups can hold them.")
    disk_bytes: int = Field(_DEFAULT.disk_bytes, ge=2**20, description="What one sandbox may write.")
    wall_s: float = Field(_DEFAULT.wall_s, gt=0, description="Seconds that one sandbox may live.")

    @property
    def limits(self) -> SandboxLimits:
        """Of each sandbox."""
        return SandboxLimits(
            memory_bytes=self.memory_bytes,
            num_processes=self.num_processes,
            cpus=self.cpus,
            disk_bytes=self.disk_bytes,
            wall_s=self.wall_s,
        )
