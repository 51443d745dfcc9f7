"""The trainer's real process over its real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

from trunkline.errors import ConfigError, InfraError, TrainerError
from trunkline.models.checkpoint import init_decoder, load_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.trainer.client import TrainerClient
from trunkline.trainer.config import OptimizerConfig
from trunkline.types import Demonstration, PolicyVersion, TrainSample
from trunkline.weights.files import fetch

CONFIG = DecoderConfig(vocab_size=11, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=8)
DEMONSTRATIONS = [[Demonstration((1, 2, 3, 4), (0, 0, 1, 1))], [Demonstration((1, 2, 5), (0, 1, 1)), Demonstration((1, 2), (0, 0.5))]]
SAMPLES = [
    TrainSample((1, 2, 3), (False, False, True), (0, 0, -2.0), (0, 0, 1.0)),
    TrainSample((1, 2, 4, 5), (False, False, True, True), (0, 0, -2.0, -3.0), (0, 0, -1.0, -1.0)),
]


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["-m", "trunkline.trainer.server", "--socket", str(folder / "t.sock"), "--model", str(folder / "model")]
    return subprocess.Popen([sys.executable, *arguments], env=environment)


@asynccontextmanager
async def running_trainer(folder: Path) -> AsyncIterator[tuple[TrainerClient, subprocess.Popen[bytes]]]:
    save_decoder(init_decoder(CONFIG, seed=0), folder / "model")
    process = start(folder)
    client = TrainerClient(folder / "t.sock")
    try:
        await client.wait_ready(30.0)
        yield client, process
    finally:
        await client.close()
        process.kill()
        process.wait()


def run(folder: Path, check: Callable[[TrainerClient, subprocess.Popen[bytes]], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running_trainer(folder) as (client, process):
            await check(client, process)

    asyncio.run(main())


def test_phases_steps_weights_and_checkpoints_cross_the_socket(tmp_path: Path) -> None:
    async def check(client: TrainerClient, process: subprocess.Popen[bytes]) -> None:
        assert stat.S_IMODE((tmp_path / "t.sock").stat().st_mode) == 0o600
        await client.begin_phase("supervised", OptimizerConfig(lr=1e-2))
        supervised = await client.supervised_steps(DEMONSTRATIONS)
        assert [(stats.step, stats.num_samples, stats.num_flat_tokens) for stats in supervised] == [(1, 1, 4), (2, 2, 5)]

        await client.begin_phase("rl", OptimizerConfig(lr=1e-2))
        first = await client.train_step(SAMPLES)
        assert (first.step, first.num_samples, first.num_forest_tokens, first.num_trained_tokens) == (1, 2, 5, 3)
        await client.checkpoint(tmp_path / "checkpoint")
        reference = await client.publish(PolicyVersion(1, 1), tmp_path / "weights")
        assert reference.version == PolicyVersion(1, 1)
        published = fetch(reference)
        saved = load_decoder(tmp_path / "checkpoint").state_dict()
        assert all(torch.equal(published[name], saved[name]) for name in saved)
        with pytest.raises(InfraError, match="never reused"):
            await client.publish(PolicyVersion(1, 1), tmp_path / "weights")

        second = await client.train_step(SAMPLES)
        assert await client.restore(tmp_path / "checkpoint") == 1
        again = await client.train_step(SAMPLES)
        assert (again.step, again.loss, again.grad_norm) == (second.step, second.loss, second.grad_norm)
        await client.save_model(tmp_path / "final")
        assert load_decoder(tmp_path / "final").config == CONFIG

    run(tmp_path, check)


def test_refusals_arrive_with_their_words_and_the_process_goes_on(tmp_path: Path) -> None:
    async def check(client: TrainerClient, process: subprocess.Popen[bytes]) -> None:
        with pytest.raises(TrainerError, match="begin a 'rl' phase first"):
            await client.train_step(SAMPLES)
        with pytest.raises(ConfigError, match="needs total_steps"):
            await client.begin_phase("rl", OptimizerConfig(lr_end_fraction=0.5))
        with pytest.raises(TrainerError, match="is not a checkpoint"):
            await client.restore(tmp_path / "nothing")
        await client.begin_phase("rl", OptimizerConfig())
        with pytest.raises(TrainerError, match="vocabulary of 11"):
            await client.train_step([TrainSample((1, 99), (False, True), (0, -1.0), (0, 1.0))])
        assert (await client.train_step(SAMPLES)).step == 1

    run(tmp_path, check)


def test_ctrl_c_is_left_to_the_conductor_and_sigterm_ends_cleanly(tmp_path: Path) -> None:
    async def check(client: TrainerClient, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGINT)
        await client.begin_phase("rl", OptimizerConfig())
        process.terminate()
        assert await asyncio.to_thread(process.wait, 10) == 0
        with pytest.raises(TrainerError, match=r"the trainer's process .* is gone"):
            await client.train_step(SAMPLES)

    run(tmp_path, check)


def test_trainer_that_never_comes_up_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        client = TrainerClient(tmp_path / "none.sock")
        with pytest.raises(TrainerError, match=r"none\.sock is not ready after 0\.2 s"):
            await client.wait_ready(0.2)
        await client.close()

    asyncio.run(main())


def test_trainer_ends_with_its_parent(tmp_path: Path) -> None:
    save_decoder(init_decoder(CONFIG, seed=0), tmp_path / "model")
    arguments = [sys.executable, "-m", "trunkline.trainer.server", "--socket", str(tmp_path / "t.sock"), "--model", str(tmp_path / "model")]
    code = f"import subprocess, time; print(subprocess.Popen({arguments!r}).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    async def until_gone() -> None:
        client = TrainerClient(tmp_path / "t.sock")
        await client.wait_ready(30.0)
        await client.close()
        parent.kill()
        parent.wait()
        while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            await asyncio.sleep(0.05)

    async def bounded() -> None:
        await asyncio.wait_for(until_gone(), 40.0)

    asyncio.run(bounded())
