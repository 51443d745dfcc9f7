"""Sandbox backends by name. Owns the choice; imports a backend only when it is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.protocols import Sandboxes
from trunkline.sandbox.config import SandboxConfig


def open_sandboxes(config: SandboxConfig, *, toolchain: Sequence[Path] = ()) -> AbstractAsyncContextManager[Sandboxes]:
    """The backend that `config.kind` names ('isolated' if it names none), ready for the length of the block.

    `toolchain` is shown read-only beside `config.toolchain`; a container has its image instead. Entering raises
    SandboxUnavailable if this host cannot make such a sandbox: there is no fallback to a weaker kind.
    """
    match config.kind:
        case "isolated" | None:
            from trunkline.sandbox.isolated import IsolatedSandboxes

            return IsolatedSandboxes.open(config, toolchain=toolchain)
        case "container":
            from trunkline.sandbox.container import ContainerSandboxes

            return ContainerSandboxes.open(config)
        case "unsafe":
            raise ConfigError("sandbox.kind='unsafe' makes no sandboxes: an agent's command then runs on this host itself")
