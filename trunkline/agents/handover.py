"""The end of an attempt's sandbox: how the workspace was left is read first, however the work ends. Owns no work and makes no sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from trunkline.errors import FileAccessError, LimitExceeded, SandboxError, TrunklineError
from trunkline.protocols import Assignment, Sandbox
from trunkline.types import SandboxAct

MAX_CHANGES_BYTES = 64 * 2**20
"""Of what an attempt may change in the workspace that its task gives; more is read by nobody, and judged as nothing."""
READ_TIMEOUT_S = 30.0
"""For reading that, at the end of an attempt."""


async def then_end(work: Coroutine[Any, Any, str], sandbox: Callable[[], Sandbox | None], assignment: Assignment) -> str:
    """What the work returns or raises, once its sandbox has ended; reading and ending are not cut short by a cancellation.

    `sandbox` is asked after the work: None means that none was made. How the workspace was left goes to `assignment.changes` if the
    task gave one. Raises LimitExceeded if that is more than MAX_CHANGES_BYTES; SandboxError if it cannot be read, then also in place
    of a cancellation.
    """
    answer = ""
    cause: BaseException | None = None
    try:
        answer = await work
    except BaseException as error:  # noqa: BLE001 - raised again below, once nothing of the sandbox is left
        cause = error
    made = sandbox()
    lost: TrunklineError | None = None
    if made is not None:
        ending = asyncio.create_task(_end(made, assignment))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError as error:
            cause = error
            await asyncio.wait([ending])
        lost = ending.result()
    if lost is not None and (cause is None or isinstance(cause, asyncio.CancelledError)):
        raise lost from cause  # a verdict on nothing would be unjust
    if cause is not None:
        raise cause
    return answer


async def _end(sandbox: Sandbox, assignment: Assignment) -> TrunklineError | None:
    """Ends the sandbox, after reading how the workspace was left if the task gave one; why that cannot be read, if so."""
    lost = None
    try:
        if assignment.workspace is not None:
            lost = await _read_changes(sandbox, assignment)
    finally:
        await sandbox.destroy()
        assignment.acts.extend(sandbox.acts)
        if lost is not None:
            assignment.acts.append(SandboxAct("lost", str(lost)))
    return lost


async def _read_changes(sandbox: Sandbox, assignment: Assignment) -> TrunklineError | None:
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            assignment.changes.extend(await sandbox.files.diff(max_bytes=MAX_CHANGES_BYTES))
    except FileAccessError:
        return LimitExceeded(f"the agent left more than {MAX_CHANGES_BYTES:,} bytes of changes in its workspace; nothing of them is judged")
    except LimitExceeded as error:
        return LimitExceeded(f"nothing can be read of the workspace: {error}")
    except (SandboxError, TimeoutError) as error:
        why = str(error) or f"it took longer than {READ_TIMEOUT_S:g} s"
        return SandboxError(f"nothing can be read of the workspace: {why}")
    return None
