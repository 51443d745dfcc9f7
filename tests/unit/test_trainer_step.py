"""The optimiser step and its checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trunkline.attention.base import CausalAttend
from trunkline.attention.forest import build_forest
from trunkline.errors import ConfigError, TrainerError
from trunkline.models.checkpoint import init_decoder, load_decoder
from trunkline.models.config import DecoderConfig
from trunkline.trainer.batch import DemonstrationBatch, SampleBatch
from trunkline.trainer.checkpoint import restore_checkpoint, save_checkpoint
from trunkline.trainer.config import LossConfig, OptimizerConfig, PhaseConfig
from trunkline.trainer.flops import flop_ratio
from trunkline.trainer.step import Learner
from trunkline.types import Demonstration, TrainSample

CONFIG = DecoderConfig(
    vocab_size=11, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, max_positions=32
)
RL = PhaseConfig(kind="rl", optimizer=OptimizerConfig(lr=1e-2, lr_end_fraction=0.1, warmup_steps=2, total_steps=8, weight_decay=0.1))
SUPERVISED = PhaseConfig(kind="supervised", optimizer=OptimizerConfig(lr=1e-2))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make_learner(phase: PhaseConfig | None = None, *, seed: int = 0) -> Learner:
    learner = Learner(init_decoder(CONFIG, seed=seed))
    if phase is not None:
        learner.begin_phase(phase)
    return learner


def sample(token_ids: tuple[int, ...], *, prompt: int, advantage: float, logprob: float = -2.0) -> TrainSample:
    response = len(token_ids) - prompt
    return TrainSample(
        token_ids,
        (False,) * prompt + (True,) * response,
        (0.0,) * prompt + (logprob,) * response,
        (0.0,) * prompt + (advantage,) * response,
    )


def rl_batch(seed: int = 0) -> SampleBatch:
    rng = np.random.default_rng(seed)
    trunk = (1, 2, 3)
    samples = [sample(trunk + tuple(rng.integers(0, 11, 4).tolist()), prompt=3, advantage=float((-1) ** i)) for i in range(6)]
    return SampleBatch.from_samples(samples)


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.policy.parameters()])


def logprobs(learner: Learner, ids: tuple[int, ...], *, temperature: float = 1.0) -> list[float]:
    """Of all tokens but the first, one sequence computed alone."""
    with torch.no_grad():
        hidden_TC = learner.policy(torch.tensor(ids), torch.arange(len(ids)), CausalAttend())
        logp_TV = torch.log_softmax(learner.policy.logits(hidden_TC) / temperature, dim=-1)
    return [logp_TV[t, ids[t + 1]].item() for t in range(len(ids) - 1)]


def test_supervised_steps_learn_a_demonstration() -> None:
    learner = make_learner(SUPERVISED)
    batch = DemonstrationBatch.from_demonstrations([Demonstration((1, 4, 2, 8, 5, 7), (0, 1, 1, 1, 1, 1))])
    losses = [learner.supervised_step(batch).loss for _ in range(40)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.05


def test_rl_step_raises_what_was_rewarded() -> None:
    learner = make_learner(PhaseConfig(kind="rl", optimizer=OptimizerConfig(lr=1e-2)))
    batch = SampleBatch.from_samples([sample((1, 2, 3), prompt=2, advantage=1.0), sample((1, 2, 4), prompt=2, advantage=-1.0)])
    before = logprobs(learner, (1, 2, 3))[1] - logprobs(learner, (1, 2, 4))[1]
    for _ in range(10):
        learner.train_step(batch)
    assert logprobs(learner, (1, 2, 3))[1] - logprobs(learner, (1, 2, 4))[1] > before + 1.0


def test_stats_count_samples_contexts_and_trained_tokens() -> None:
    learner = make_learner(RL)
    batch = SampleBatch.from_samples([sample((1, 2, 3), prompt=2, advantage=1.0), sample((1, 2, 3, 5, 6), prompt=4, advantage=1.0)])
    stats = learner.train_step(batch)
    assert (stats.step, stats.num_samples, stats.num_flat_tokens, stats.num_forest_tokens, stats.num_trained_tokens) == (1, 2, 8, 5, 2)
    assert stats.learning_rate == pytest.approx(0.5e-2)
    assert 1.5 < stats.flop_ratio < 1.7
    assert stats.extra["entropy"] == pytest.approx(2.0)
    assert {"is_weight_mean", "clip_fraction", "max_abs_logprob_gap", "mean_abs_logprob_gap"} <= stats.extra.keys()


def test_logprob_gap_is_zero_against_the_learners_own_values() -> None:
    learner = make_learner(RL)
    ids = (1, 2, 3, 4)
    own = (0.0, *logprobs(learner, ids, temperature=0.5))
    recorded = TrainSample(ids, (False, True, True, True), own, (0.0, 1.0, 1.0, 1.0), temperature=0.5)
    stats = learner.train_step(SampleBatch.from_samples([recorded]))
    assert stats.extra["max_abs_logprob_gap"] < 5e-5
    assert stats.extra["is_weight_mean"] == pytest.approx(1.0, abs=1e-4)


def test_the_gap_of_current_samples_leaves_out_those_of_older_weights() -> None:
    learner = make_learner(RL)
    ids, older = (1, 2, 3, 4), (1, 2, 3, 5)
    own, flags = (0.0, *logprobs(learner, ids)), (False, True, True, True)
    current = TrainSample(ids, flags, own, (0.0, 1.0, 1.0, 1.0), is_current=True)
    stale = TrainSample(older, flags, (0.0, -7.0, -7.0, -7.0), (0.0, 1.0, 1.0, 1.0))
    gaps = learner.train_step(SampleBatch.from_samples([stale, current])).extra
    assert gaps["sampler_trainer_gap"] < 5e-5 < gaps["mean_abs_logprob_gap"] < gaps["max_abs_logprob_gap"]
    assert gaps["mean_abs_logprob_gap"] > gaps["max_abs_logprob_gap"] / 6


def test_without_current_samples_there_is_no_gap_of_theirs() -> None:
    assert "sampler_trainer_gap" not in make_learner(RL).train_step(rl_batch()).extra


def test_loss_that_is_not_finite_makes_no_update() -> None:
    learner = make_learner(RL)
    learner.train_step(rl_batch())
    before = weights(learner)
    broken = SampleBatch.from_samples([sample((1, 2, 3), prompt=2, advantage=float("nan"))])
    with pytest.raises(TrainerError, match="loss of step 2 is nan"):
        learner.train_step(broken)
    assert torch.equal(weights(learner), before)
    assert learner.train_step(rl_batch()).step == 2


def test_gradient_that_is_not_finite_makes_no_update() -> None:
    learner = make_learner(RL)
    before = weights(learner)
    huge = SampleBatch.from_samples([sample((1, 2, 3), prompt=2, advantage=3e38), sample((1, 2, 4), prompt=2, advantage=-3e38)])
    with pytest.raises(TrainerError, match="no update was made"):
        learner.train_step(huge)
    assert torch.equal(weights(learner), before)


@pytest.mark.parametrize(
    ("token_ids", "message"), [((1, 11), "token id 11 is outside .* vocabulary of 11"), ((1,) * 33, "33 tokens exceeds .* 32 positions")]
)
def test_samples_beyond_the_model_are_refused(token_ids: tuple[int, ...], message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        make_learner(RL).train_step(SampleBatch.from_samples([sample(token_ids, prompt=1, advantage=1.0)]))


def test_step_of_another_phase_is_refused() -> None:
    with pytest.raises(TrainerError, match="'rl' came in a phase of kind 'supervised'"):
        make_learner(SUPERVISED).train_step(rl_batch())
    with pytest.raises(TrainerError, match="phase of kind None"):
        make_learner().train_step(rl_batch())


def test_new_phase_forgets_the_optimiser_and_counts_from_1() -> None:
    learner = make_learner(RL)
    learner.train_step(rl_batch())
    learner.begin_phase(RL)
    fresh = make_learner(RL)
    fresh.policy.load_state_dict(learner.policy.state_dict())
    assert learner.train_step(rl_batch(1)).step == 1
    fresh.train_step(rl_batch(1))
    assert torch.equal(weights(learner), weights(fresh))


def test_schedule_without_an_end_is_refused_when_the_phase_begins() -> None:
    with pytest.raises(ConfigError, match="total_steps"):
        make_learner(PhaseConfig(kind="rl", optimizer=OptimizerConfig(lr_end_fraction=0.0), loss=LossConfig()))


def test_training_from_a_checkpoint_is_bitwise_the_uninterrupted_run(tmp_path: Path) -> None:
    straight, interrupted = make_learner(RL), make_learner(RL)
    for seed in range(3):
        straight.train_step(rl_batch(seed))
        interrupted.train_step(rl_batch(seed))
    save_checkpoint(interrupted, tmp_path / "checkpoint")
    resumed = make_learner(seed=99)
    restore_checkpoint(resumed, tmp_path / "checkpoint")
    for seed in range(3, 6):
        expected, found = straight.train_step(rl_batch(seed)), resumed.train_step(rl_batch(seed))
        assert (found.step, found.loss, found.grad_norm, found.learning_rate) == (
            expected.step,
            expected.loss,
            expected.grad_norm,
            expected.learning_rate,
        )
    assert torch.equal(weights(resumed), weights(straight))


def test_checkpoint_replaces_one_of_its_name_and_loads_as_a_model(tmp_path: Path) -> None:
    learner, folder = make_learner(RL), tmp_path / "latest"
    save_checkpoint(learner, folder)
    learner.train_step(rl_batch())
    save_checkpoint(learner, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
    assert torch.equal(weights(Learner(load_decoder(folder))), weights(learner))


def test_folder_that_is_no_checkpoint_leaves_the_learner_as_it_was(tmp_path: Path) -> None:
    learner = make_learner(RL)
    learner.train_step(rl_batch())
    before = weights(learner)
    save_checkpoint(learner, tmp_path / "cut")
    (tmp_path / "cut" / "optimizer.safetensors").write_bytes(b"cut")
    with pytest.raises(TrainerError, match="is not a checkpoint"):
        restore_checkpoint(learner, tmp_path / "cut")
    assert torch.equal(weights(learner), before)
    assert learner.train_step(rl_batch()).step == 2


def test_flop_ratio_is_1_without_sharing_and_the_token_ratio_without_attention() -> None:
    apart, shared = build_forest([[1, 2], [2, 3]]), build_forest([[1, 2, 3], [1, 2, 4]])
    assert flop_ratio(apart, num_parameters=10, attention_width=4, num_layers=1) == 1.0
    assert flop_ratio(shared, num_parameters=10, attention_width=0, num_layers=1) == pytest.approx(6 / 4)
