"""The sandboxes of tests/integration, for the slow ones too."""

from __future__ import annotations

from tests.integration.conftest import anyio_backend, sandboxes

__all__ = ["anyio_backend", "sandboxes"]
