"""The optimiser step's wiring: every loss, routing replay and balancing, forests beyond memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trunkline.attention.base import CausalAttend
from trunkline.errors import TrainerError
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.routing import TopK
from trunkline.trainer.batch import SampleBatch
from trunkline.trainer.config import LossConfig, LossName, OptimizerConfig, PhaseConfig, TrainerConfig
from trunkline.trainer.step import Learner
from trunkline.types import RoutedExperts, TrainSample

torch.set_num_threads(1)
LAYERS, TOP_K = 2, 2
SIZES = {"vocab_size": 11, "hidden_size": 16, "num_layers": LAYERS, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "max_positions": 64}
DENSE = DecoderConfig(**SIZES, intermediate_size=32)
SPARSE = DecoderConfig(**SIZES, intermediate_size=8, num_experts=8, experts_per_token=TOP_K, qk_norm="full", rotary_dim=4)
PROMPT = (1, 2, 3, 4)


def make_learner(model: DecoderConfig, *, loss: LossName = "cispo", lr: float = 1e-3, **config: object) -> Learner:
    learner = Learner(init_decoder(model, seed=0), TrainerConfig.model_validate(config))
    learner.begin_phase(PhaseConfig(kind="rl", optimizer=OptimizerConfig(lr=lr, clip_norm=1e9), loss=LossConfig(name=loss)))
    return learner


def routes_of(decoder: Decoder, token_ids: tuple[int, ...]) -> np.ndarray:
    """experts_TLK that the decoder's own router chooses."""
    chosen: list[torch.Tensor] = []

    def record(layer: int, preference_TE: torch.Tensor, top_k: int) -> torch.Tensor:
        chosen.append(TopK()(layer, preference_TE, top_k))
        return chosen[-1]

    with torch.no_grad():
        decoder(torch.tensor(token_ids), torch.arange(len(token_ids)), CausalAttend(), record)
    return torch.stack(chosen, dim=1).numpy().astype("<u2")


def samples(decoder: Decoder, *, shift: int = 0) -> list[TrainSample]:
    """Four answers to one prompt, with the routes of their sampled tokens, all moved on by `shift` experts."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(4):
        token_ids = PROMPT + tuple(rng.integers(0, 11, 6).tolist())
        routes = None
        if decoder.config.is_sparse:
            rows = (routes_of(decoder, token_ids)[len(PROMPT) : -1] + shift) % decoder.config.num_experts
            routes = RoutedExperts(len(PROMPT), LAYERS, TOP_K, rows.astype("<u2").tobytes())
        made.append(
            TrainSample(
                token_ids,
                (False,) * 4 + (True,) * 6,
                (0.0,) * 4 + (-2.0,) * 6,
                (0.0,) * 4 + (float((-1) ** index),) * 6,
                routes=() if routes is None else (routes,),
            )
        )
    return made


@pytest.mark.parametrize("loss", ["cispo", "ppo", "gspo", "importance_sampling"])
@pytest.mark.parametrize("model", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_partitions_change_no_loss_and_no_gradient_beyond_1e_5(model: DecoderConfig, loss: LossName) -> None:
    gradients, losses = [], []
    for partition_tokens in (1000, 7):
        learner = make_learner(model, loss=loss, partition_tokens=partition_tokens)
        stats = learner.train_step(SampleBatch.from_samples(samples(learner.policy)))
        assert (stats.extra["partitions"] > 1) == (partition_tokens == 7)
        losses.append(stats.loss)
        gradients.append(torch.cat([p.grad.flatten() for p in learner.policy.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()


def test_recomputed_layers_change_no_gradient_beyond_1e_6() -> None:
    gradients = []
    for checkpoint_layers in (False, True):
        learner = make_learner(SPARSE, checkpoint_layers=checkpoint_layers)
        learner.train_step(SampleBatch.from_samples(samples(learner.policy, shift=1)))
        gradients.append(torch.cat([p.grad.flatten() for p in learner.policy.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()


def test_routes_as_the_trainer_would_choose_them_have_no_mismatch() -> None:
    learner = make_learner(SPARSE)
    stats = learner.train_step(SampleBatch.from_samples(samples(learner.policy)))
    assert stats.extra["replayed_tokens"] == 4 * 5
    assert (stats.extra["route_mismatch"], stats.extra["expert_mismatch"], stats.extra["route_split_tokens"]) == (0, 0, 0)


def test_other_routes_are_replayed_and_told() -> None:
    losses = {}
    for replay in ("sampled", "off"):
        learner = make_learner(SPARSE, replay=replay)
        stats = learner.train_step(SampleBatch.from_samples(samples(learner.policy, shift=3)))
        losses[replay] = stats.loss
        assert stats.extra["replayed_tokens"] == (20 if replay == "sampled" else 0)
        assert (stats.extra["route_mismatch"] > 0.9) == (replay == "sampled")
    assert losses["sampled"] != pytest.approx(losses["off"], rel=1e-3)


def test_balancing_evens_the_load_out() -> None:
    learner = make_learner(SPARSE, lr=1e-9, balance_rate=0.02)
    batch = SampleBatch.from_samples([TrainSample(s.token_ids, s.mask, s.logprobs, s.advantages) for s in samples(learner.policy)])
    violations = [learner.train_step(batch).extra["load_violation"] for _ in range(60)]
    assert violations[0] > 0.6
    assert min(violations[-10:]) < 0.7 * violations[0]


def test_a_rate_of_0_leaves_the_bias_alone() -> None:
    learner = make_learner(SPARSE, balance_rate=0.0)
    learner.train_step(SampleBatch.from_samples(samples(learner.policy)))
    assert all((value == 0).all() for name, value in learner.policy.state_dict().items() if name.endswith("correction_bias"))


def test_a_forest_beyond_memory_without_partitions_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(DENSE, partitions=False)
    before = learner.policy.state_dict()["model.norm.weight"].clone()
    monkeypatch.setattr("trunkline.trainer.step.free_bytes", lambda device: 1000)
    with pytest.raises(TrainerError, match="forest of .* tokens needs about .* partitions are switched off"):
        learner.train_step(SampleBatch.from_samples(samples(learner.policy)))
    assert torch.equal(learner.policy.state_dict()["model.norm.weight"], before)


def test_bf16_compute_leaves_weights_and_gradients_in_fp32() -> None:
    learner = make_learner(SPARSE, compute_dtype="bfloat16")
    exact = make_learner(SPARSE)
    losses = [one.train_step(SampleBatch.from_samples(samples(exact.policy))).loss for one in (learner, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=0.05)
    assert {p.dtype for p in learner.policy.parameters()} == {torch.float32}


def test_routes_of_another_model_are_refused() -> None:
    learner = make_learner(SPARSE)
    wrong = RoutedExperts(4, LAYERS + 1, TOP_K, bytes(2 * 3 * TOP_K * 5))
    batch = [TrainSample(s.token_ids, s.mask, s.logprobs, s.advantages, routes=(wrong,)) for s in samples(learner.policy)]
    with pytest.raises(TrainerError, match="layers"):
        learner.train_step(SampleBatch.from_samples(batch))
