"""A checkpoint that is not whole is named, never loaded; a disk that takes no more leaves the one before."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from trunkline.errors import TrainerError
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.trainer.batch import SampleBatch
from trunkline.trainer.checkpoint import restore_checkpoint, save_checkpoint
from trunkline.trainer.config import PhaseConfig, TrainerConfig
from trunkline.trainer.step import Learner
from trunkline.types import TrainSample

CONFIG = DecoderConfig(
    vocab_size=11,
    hidden_size=16,
    intermediate_size=24,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    rope_theta=1000.0,
    rms_norm_eps=1e-6,
    qk_norm="head",
    tie_embeddings=False,
    max_positions=32,
)
SAMPLE = TrainSample((1, 2, 3), (False, True, True), (0.0, -1.0, -2.0), (0.0, 1.0, 1.0))


def a_learner() -> Learner:
    learner = Learner(init_decoder(CONFIG, seed=1))
    learner.begin_phase(PhaseConfig(kind="rl"))
    learner.train_step(SampleBatch.from_samples([SAMPLE]))
    return learner


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "step-000001"
    save_checkpoint(a_learner(), folder)
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "optimizer.safetensors", "trainer.json"])
@pytest.mark.parametrize("share", [None, 0.0, 0.01, 0.5, 0.999], ids=lambda share: "missing" if share is None else f"cut-{share}")
def test_a_checkpoint_that_is_not_whole_is_refused_and_the_learner_stays_as_it_was(
    saved: Path, tmp_path: Path, name: str, share: float | None
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(saved, damaged)
    content = (damaged / name).read_bytes()
    (damaged / name).unlink()
    if share is not None:
        kept = content[: int(share * len(content))].rstrip(b"\n}")  # of JSON texts the last bytes say nothing
        (damaged / name).write_bytes(kept)
    learner = a_learner()
    before = {key: value.clone() for key, value in learner.policy.state_dict().items()}
    with pytest.raises(TrainerError, match="damaged"):
        restore_checkpoint(learner, damaged)
    assert all(torch.equal(value, before[key]) for key, value in learner.policy.state_dict().items())
    assert learner.progress is not None and learner.progress.num_steps == 1


def test_the_selection_bias_of_experts_comes_back_bit_for_bit_and_training_goes_on_as_it_would_have(tmp_path: Path) -> None:
    sparse = dataclasses.replace(CONFIG, qk_norm="full", num_experts=4, experts_per_token=2)
    batch = SampleBatch.from_samples([SAMPLE])

    def begin(seed: int) -> Learner:
        learner = Learner(init_decoder(sparse, seed=seed), TrainerConfig(balance_rate=0.1))
        learner.begin_phase(PhaseConfig(kind="rl"))
        return learner

    def bias(learner: Learner) -> torch.Tensor:
        return learner.policy.state_dict()["model.layers.0.block_sparse_moe.e_score_correction_bias"].clone()

    learner, restored = begin(1), begin(2)
    for _ in range(3):
        learner.train_step(batch)
    save_checkpoint(learner, tmp_path / "step")
    restore_checkpoint(restored, tmp_path / "step")
    assert bias(learner).any() and torch.equal(bias(restored), bias(learner))
    learner.train_step(batch)
    restored.train_step(batch)
    assert all(torch.equal(value, restored.policy.state_dict()[name]) for name, value in learner.policy.state_dict().items())


def test_a_model_of_transformers_is_restored_bit_for_bit(tmp_path: Path) -> None:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig  # here, because the processes below import this module too

    from trunkline.models.hf import HfDecoder

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    batch = SampleBatch.from_samples([SAMPLE])

    def begin(seed: int) -> Learner:
        torch.manual_seed(seed)
        learner = Learner(HfDecoder.around(Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=11, head_dim=8, pad_token_id=None, **sizes))))
        learner.begin_phase(PhaseConfig(kind="rl"))
        return learner

    learner, restored = begin(1), begin(2)
    learner.train_step(batch)
    save_checkpoint(learner, tmp_path / "step")
    restore_checkpoint(restored, tmp_path / "step")
    learner.train_step(batch)
    restored.train_step(batch)
    assert all(torch.equal(value, restored.policy.state_dict()[name]) for name, value in learner.policy.state_dict().items())


# A limit on file sizes is what the kernel answers for a file system that takes no more of this file.
FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from tests.unit.test_trainer_checkpoint import a_learner
    from trunkline.errors import TrainerError
    from trunkline.trainer.checkpoint import save_checkpoint

    folder = Path(sys.argv[1])
    learner = a_learner()
    save_checkpoint(learner, folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    try:
        save_checkpoint(learner, folder)
    except TrainerError as error:
        sys.exit(str(error))
"""


@pytest.mark.parametrize("max_file_bytes", [100, 18_000])
def test_a_full_disk_is_named_and_leaves_the_checkpoint_that_was_there(tmp_path: Path, saved: Path, max_file_bytes: int) -> None:
    sizes = [(saved / name).stat().st_size for name in ("model.safetensors", "optimizer.safetensors")]
    assert sizes[0] < 18_000 < sizes[1], f"the second limit is to be between the two files: {sizes}"
    folder = tmp_path / "step-000001"
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(folder), str(max_file_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 1
    assert f"cannot write the checkpoint {folder}" in done.stderr and "check space" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    restore_checkpoint(a_learner(), folder)
