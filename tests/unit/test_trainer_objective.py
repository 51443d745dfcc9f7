"""PPO, GSPO, importance sampling and the truncated correction: closed forms of their gradients, and what a loss refuses."""

# T trained tokens; columns are logp, old logp, advantage

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from trunkline.trainer.cispo import cispo_loss
from trunkline.trainer.config import LossConfig, PhaseConfig
from trunkline.trainer.correction import truncated_correction
from trunkline.trainer.gspo import gspo_loss
from trunkline.trainer.importance_sampling import importance_sampling_loss
from trunkline.trainer.loss import LossSum
from trunkline.trainer.objective import Objective
from trunkline.trainer.ppo import ppo_loss

Floats = NDArray[np.float64]
Columns = list[tuple[float, float, float]]

streams = st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0), st.floats(-3, 3)), min_size=1, max_size=20)
sequences = st.lists(
    st.tuples(st.lists(st.tuples(st.floats(-2, 0), st.floats(-2, 0)), min_size=1, max_size=6), st.floats(-3, 3)), min_size=1, max_size=5
)
# Ratios 1, 1.1, e and 1/e, each with both signs of the advantage: inside, and clipped above and below where that counts.
every_case: Columns = [(-1 + gap, -1.0, sign) for gap in (0.0, 0.1, 1.0, -1.0) for sign in (2.0, -2.0)]


def tensors(columns: Columns) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logp_T, old_T, advantage_T = (torch.tensor(column, dtype=torch.float64) for column in zip(*columns, strict=True))
    return logp_T.requires_grad_(), old_T, advantage_T


def gradient(loss: LossSum, logp_T: torch.Tensor) -> Floats:
    (gradient_T,) = torch.autograd.grad(loss.total, logp_T)
    return gradient_T.numpy()


def clipped_gradient(ratio_T: Floats, advantage_T: Floats, low: float, high: float, dual: float = np.inf) -> Floats:
    """-r A, but 0 above 1 + high if A > 0, below 1 - low if A < 0, and above the dual clip if A < 0."""
    is_zeroed = np.where(advantage_T > 0, ratio_T > 1 + high, (ratio_T < 1 - low) | (ratio_T > dual))
    return np.where(is_zeroed, 0.0, -ratio_T * advantage_T)


@given(streams, st.floats(0.01, 1), st.floats(0.01, 3))
@example(every_case, 0.2, 0.28)
def test_ppo_gradient_is_zero_exactly_where_the_ratio_left_the_interval_to_1e12(columns: Columns, low: float, high: float) -> None:
    logp_T, old_T, advantage_T = tensors(columns)
    found = gradient(ppo_loss(logp_T, old_T, advantage_T, clip_low=low, clip_high=high), logp_T)
    ratio_T = np.exp(logp_T.detach().numpy() - old_T.numpy())
    np.testing.assert_allclose(found, clipped_gradient(ratio_T, advantage_T.numpy(), low, high), rtol=1e-12, atol=0)


@given(streams, st.floats(1.5, 6))
@example(every_case, 2.0)
def test_dual_clip_bounds_the_ratio_of_bad_tokens_to_1e12(columns: Columns, dual: float) -> None:
    logp_T, old_T, advantage_T = tensors(columns)
    found = gradient(ppo_loss(logp_T, old_T, advantage_T, clip_low=0.2, clip_high=0.28, dual_clip=dual), logp_T)
    ratio_T = np.exp(logp_T.detach().numpy() - old_T.numpy())
    np.testing.assert_allclose(found, clipped_gradient(ratio_T, advantage_T.numpy(), 0.2, 0.28, dual), rtol=1e-12, atol=0)


def test_ppo_value_is_the_lower_of_plain_and_clipped_and_its_clip_fraction_counts_zeroed_tokens() -> None:
    logp_T, old_T, advantage_T = tensors(every_case)
    loss = ppo_loss(logp_T, old_T, advantage_T, clip_low=0.2, clip_high=0.28)
    gains = [2, -2, 2.2103418361512953, -2.2103418361512953, 2.56, -2 * np.e, 2 / np.e, -1.6]
    assert loss.total.item() == pytest.approx(-sum(gains), rel=1e-12)
    assert loss.stats["clip_fraction"] == 2 / 8
    assert loss.stats["is_weight_max"] == pytest.approx(np.e)


@given(streams)
@example(every_case)
def test_importance_sampling_gradient_is_the_ratio_times_the_advantage_to_1e12(columns: Columns) -> None:
    logp_T, old_T, advantage_T = tensors(columns)
    found = gradient(importance_sampling_loss(logp_T, old_T, advantage_T), logp_T)
    np.testing.assert_allclose(found, -np.exp(logp_T.detach().numpy() - old_T.numpy()) * advantage_T.numpy(), rtol=1e-12, atol=0)


def spread(calls: list[tuple[list[tuple[float, float]], float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of all sequences, taken in turns, so that no sequence is in one piece."""
    rows = [(turn, sample, logp, old, credit) for sample, (pairs, credit) in enumerate(calls) for turn, (logp, old) in enumerate(pairs)]
    _, sample_T, *columns = zip(*sorted(rows), strict=True)
    return *tensors(list(zip(*columns, strict=True))), torch.tensor(sample_T)


@given(sequences, st.floats(0.01, 1), st.floats(0.01, 3))
@example([([(-1.0, -2.0), (0.0, -1.0)], 1.0), ([(-1.0, -2.0)], -1.0), ([(-2.0, -1.0)], 1.0), ([(-2.0, -1.0)], -1.0)], 0.2, 0.28)
def test_gspo_is_the_sum_of_sequences_each_as_often_as_it_has_tokens_to_1e12(
    calls: list[tuple[list[tuple[float, float]], float]], low: float, high: float
) -> None:
    logp_T, old_T, advantage_T, sample_T = spread(calls)
    loss = gspo_loss(logp_T, old_T, advantage_T, sample_T, clip_low=low, clip_high=high)
    direct = torch.zeros((), dtype=torch.float64)
    for sample, (_, credit) in enumerate(calls):
        own = sample_T == sample
        ratio = (logp_T[own] - old_T[own]).mean().exp()
        direct = direct - own.sum() * torch.minimum(ratio * credit, ratio.clamp(1 - low, 1 + high) * credit)
    assert loss.total.item() == pytest.approx(direct.item(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(gradient(loss, logp_T), torch.autograd.grad(direct, logp_T)[0].numpy(), rtol=1e-12, atol=1e-12)


def test_gspo_takes_samples_without_trained_tokens() -> None:
    logp_T, old_T, advantage_T = tensors([(-1.0, -1.0, 1.0), (-2.0, -2.0, -1.0)])
    loss = gspo_loss(logp_T, old_T, advantage_T, torch.tensor([0, 3]), clip_low=0.1, clip_high=0.1)
    assert gradient(loss, logp_T).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("name", ["cispo", "ppo", "gspo", "importance_sampling"])
def test_on_the_policy_every_loss_has_the_gradient_of_the_plain_policy_gradient(name: str) -> None:
    logp_T, _, advantage_T = tensors([(-0.5, 0, 1.0), (-2.0, 0, -2.0), (-1.0, 0, 0.25)])
    loss = Objective(LossConfig.model_validate({"name": name}))(logp_T, logp_T.detach(), advantage_T, torch.tensor([0, 0, 1]))
    assert gradient(loss, logp_T).tolist() == [-1.0, 2.0, -0.25]


@pytest.mark.parametrize("name", ["cispo", "ppo", "importance_sampling"])
def test_sums_over_parts_of_a_token_local_loss_add_up(name: str) -> None:
    objective = Objective(LossConfig.model_validate({"name": name}))
    assert objective.is_token_local
    logp_T, old_T, advantage_T = tensors(every_case)
    sample_T = torch.tensor([0, 1] * 4)
    parts = [objective(logp_T[part], old_T[part], advantage_T[part], sample_T[part]) for part in (slice(0, 3), slice(3, 8))]
    whole = objective(logp_T, old_T, advantage_T, sample_T)
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-14)


def test_gspo_is_not_token_local() -> None:
    assert not Objective(LossConfig(name="gspo")).is_token_local


def test_knobs_reach_the_formula() -> None:
    logp_T, old_T, advantage_T = tensors(every_case)
    sample_T = torch.arange(8)
    tight = Objective(LossConfig(name="gspo", clip_low=0.05, clip_high=0.05))(logp_T, old_T, advantage_T, sample_T)
    assert tight.total.item() == gspo_loss(logp_T, old_T, advantage_T, sample_T, clip_low=0.05, clip_high=0.05).total.item()
    dual = Objective(LossConfig(name="ppo", dual_clip=1.05))(logp_T, old_T, advantage_T, sample_T)
    assert dual.total.item() == ppo_loss(logp_T, old_T, advantage_T, clip_low=0.2, clip_high=0.28, dual_clip=1.05).total.item()


@given(streams, st.floats(0.5, 8), st.sampled_from(["ppo", "gspo"]))
def test_corrected_losses_have_the_gradient_of_cispo_with_their_cap_to_1e12(columns: Columns, cap: float, name: str) -> None:
    logp_T, old_T, advantage_T = tensors(columns)
    config = LossConfig.model_validate({"name": name, "correction_cap": cap})
    corrected = Objective(config)(logp_T, old_T, advantage_T, torch.arange(len(columns)) // 3)
    capped = cispo_loss(logp_T, old_T, advantage_T, is_weight_cap=cap)
    tiny = np.finfo(np.float64).tiny  # below it no number has 12 digits
    np.testing.assert_allclose(gradient(corrected, logp_T), gradient(capped, logp_T), rtol=1e-12, atol=tiny)


def test_correction_reports_the_gap_between_sampler_and_trainer() -> None:
    anchor_T, recorded_T = torch.tensor([-1.0, -1.0, -2.0, -1.0]).double(), torch.tensor([-1.0, -3.0, -1.0, -1.5]).double()
    correction = truncated_correction(anchor_T, recorded_T, cap=2.0)
    gap_T = np.array([0.0, 2.0, -1.0, 0.5])
    weight_T = np.minimum(np.exp(gap_T), 2.0)
    np.testing.assert_allclose(correction.weight_T.numpy(), weight_T, rtol=1e-12)
    assert correction.stats == pytest.approx(
        {
            "correction_weight_mean": weight_T.mean(),
            "correction_truncated_fraction": 0.25,
            "correction_kl": (np.exp(gap_T) - 1 - gap_T).mean(),
            "mean_abs_logprob_gap": 3.5 / 4,
            "max_abs_logprob_gap": 2.0,
        }
    )


def test_corrected_objective_adds_the_gap_to_its_record_and_no_gradient_to_the_weights() -> None:
    logp_T, old_T, advantage_T = tensors([(-1.0, -1.5, 1.0), (-1.0, -0.5, -1.0)])
    loss = Objective(LossConfig(name="ppo", correction_cap=2.0))(logp_T, old_T, advantage_T, torch.tensor([0, 1]))
    assert {"correction_kl", "correction_truncated_fraction", "clip_fraction", "is_weight_mean"} <= loss.stats.keys()
    assert loss.stats["clip_fraction"] == 0.0
    np.testing.assert_allclose(gradient(loss, logp_T), [-np.exp(0.5), np.exp(-0.5)], rtol=1e-12)


def test_correction_off_and_on_a_sampler_that_agrees_are_the_same() -> None:
    logp_T, _, advantage_T = tensors(every_case)
    sample_T = torch.arange(8)
    off, on = (Objective(LossConfig(name="ppo", correction_cap=cap))(logp_T, logp_T.detach(), advantage_T, sample_T) for cap in (None, 2.0))
    assert off.total.item() == on.total.item()
    assert gradient(off, logp_T).tolist() == gradient(on, logp_T).tolist()


@pytest.mark.parametrize("name", ["cispo", "importance_sampling"])
def test_correction_of_a_ratio_that_has_the_gap_already_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' with correction_cap=2.0 counts the gap between sampler and trainer twice"):
        LossConfig.model_validate({"name": name, "correction_cap": 2.0})


@pytest.mark.parametrize(
    ("given_knobs", "message"),
    [
        ({"clip_low": 0.2}, "'cispo' does not honour clip_low=0.2; it has is_weight_cap"),
        (
            {"name": "ppo", "is_weight_cap": 4.0},
            "'ppo' does not honour is_weight_cap=4.0; it has clip_low, clip_high, dual_clip, corr",
        ),
        ({"name": "gspo", "dual_clip": 3.0}, "'gspo' does not honour dual_clip=3.0"),
        ({"name": "importance_sampling", "clip_high": 3.0}, "'importance_sampling' does not honour clip_high=3.0; it has no knobs"),
        ({"name": "reinforce"}, "'cispo', 'ppo', 'gspo' or 'importance_sampling'"),
        ({"name": ["ppo"]}, "'cispo', 'ppo', 'gspo' or 'importance_sampling'"),
        ({"name": "ppo", "clip_low": 1.5}, "less than or equal to 1"),
        ({"clip_lo": 0.2}, "Extra inputs are not permitted"),
    ],
)
def test_knob_that_the_loss_does_not_honour_is_an_error(given_knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LossConfig.model_validate(given_knobs)


@pytest.mark.parametrize("name", ["cispo", "ppo", "gspo", "importance_sampling"])
def test_resolved_loss_shows_its_knobs_and_survives_the_wire(name: str) -> None:
    phase = PhaseConfig.model_validate({"kind": "rl", "loss": {"name": name}})
    assert PhaseConfig.model_validate_json(phase.model_dump_json()) == phase
    shown = phase.loss.model_dump(exclude_none=True)
    assert shown == {"name": name, **phase.loss.formula_knobs}


def test_loss_without_a_name_is_cispo_with_cap_5() -> None:
    assert LossConfig().model_dump(exclude_none=True) == {"name": "cispo", "is_weight_cap": 5.0}
    assert LossConfig(name="gspo").formula_knobs == {"clip_low": 3e-4, "clip_high": 4e-4}
