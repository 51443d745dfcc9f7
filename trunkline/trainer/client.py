"""The trainer's verbs from the conductor's side. Owns the HTTP over the Unix socket; imports no torch."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from trunkline.errors import ConfigError, InfraError, TrainerError, TrunklineError
from trunkline.trainer.batch import SampleBatch, pack_demonstrations
from trunkline.trainer.config import LossConfig, OptimizerConfig, PhaseConfig, PhaseKind
from trunkline.types import Demonstration, PolicyVersion, StepStats, TrainSample, WeightRef

_READY_POLL_S = 0.05
_ERRORS: Mapping[str, type[TrunklineError]] = {"ConfigError": ConfigError, "InfraError": InfraError}


class TrainerClient:
    """One trainer's process. Every method raises TrainerError if the process is gone or refuses; ConfigError and InfraError
    come through as themselves. There is no timeout: a step takes as long as it takes, and a dead process is noticed.

    >>> client = TrainerClient(socket_path)
    >>> await client.begin_phase("rl", OptimizerConfig(lr=3e-4), LossConfig())
    >>> stats = await client.train_step(samples)
    """

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    async def wait_ready(self, timeout_s: float) -> int:
        """Returns the longest context of the model once the process has loaded it. Raises TrainerError after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._poll_health()
        except TimeoutError as error:
            raise TrainerError(f"the trainer's process at {self.socket_path} is not ready after {timeout_s} s; see its log") from error

    async def close(self) -> None:
        """Closes the connection; the process stays."""
        if "_http" in self.__dict__:
            await self._http.close()

    async def begin_phase(self, kind: PhaseKind, optimizer: OptimizerConfig, loss: LossConfig | None = None) -> None:
        """Starts a phase with a fresh optimiser and step count 0."""
        config = PhaseConfig(kind=kind, optimizer=optimizer, loss=loss or LossConfig())
        await self._post("/phase", content=config.model_dump_json().encode())

    async def supervised_steps(self, batches: Sequence[Sequence[Demonstration]]) -> list[StepStats]:
        """One optimiser step a batch. A step that fails ends the request; those before it are done."""
        # Packing thousands of tokens is CPU work: beside the event loop, not on it.
        content = await asyncio.to_thread(pack_demonstrations, batches)
        return [StepStats(**stats) for stats in await self._post("/supervised_steps", content=content)]

    async def train_step(self, samples: Sequence[TrainSample]) -> StepStats:
        """One RL step on all samples."""
        content = await asyncio.to_thread(lambda: SampleBatch.from_samples(samples).to_bytes())
        return StepStats(**await self._post("/train_step", content=content))

    async def publish(self, version: PolicyVersion, directory: Path) -> WeightRef:
        """See WeightSource."""
        answer = await self._post("/publish", json={"version": str(version), "directory": str(directory)})
        return WeightRef(Path(answer["path"]), PolicyVersion.parse(answer["version"]))

    async def checkpoint(self, folder: Path) -> None:
        """Model, optimiser, phase and step into `folder`, whole or not at all."""
        await self._post("/checkpoint", json={"folder": str(folder)})

    async def restore(self, folder: Path) -> int:
        """Back to a checkpoint, the phase included; returns the phase's optimiser steps."""
        step: int = (await self._post("/restore", json={"folder": str(folder)}))["step"]
        return step

    async def save_model(self, folder: Path) -> None:
        """The current policy as a Hugging Face folder."""
        await self._post("/save_model", json={"folder": str(folder)})

    @functools.cached_property
    def _http(self) -> aiohttp.ClientSession:
        """Made at first use, inside the event loop that it belongs to."""
        connector = aiohttp.UnixConnector(str(self.socket_path), force_close=True)  # few calls, far apart: none meets a stale connection
        return aiohttp.ClientSession("http://trainer", connector=connector, timeout=aiohttp.ClientTimeout(total=None))

    async def _poll_health(self) -> int:
        while True:
            try:
                async with self._http.get("/healthz", raise_for_status=True) as response:
                    max_context: int = (await response.json())["max_context"]
                    return max_context
            except aiohttp.ClientError:
                await asyncio.sleep(_READY_POLL_S)

    async def _post(self, path: str, *, content: bytes | None = None, json: Mapping[str, str] | None = None) -> Any:
        try:
            async with self._http.post(path, data=content, json=json) as response:
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise TrainerError(
                f"the trainer's process at {self.socket_path} is gone or broke off {path}: {error!r}; see its log"
            ) from error
        try:
            answer = msgspec.json.decode(body)
            if status < 300:
                return answer
            kind, message = answer["error"]["type"], answer["error"]["message"]
        except (msgspec.MsgspecError, KeyError, TypeError):
            raise TrainerError(f"the trainer answered {path} with {status}: {body[:200]!r}") from None
        if kind in _ERRORS:
            raise _ERRORS[kind](message)
        raise TrainerError(message if kind == "TrainerError" else f"{path} failed in the trainer's process: {kind}: {message}; see its log")
