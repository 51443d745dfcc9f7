"""Losses, advantages, schedule: the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import ConfigError
from trunkline.trainer.advantages import advantages, group_normalised, leave_one_out
from trunkline.trainer.cispo import cispo_loss
from trunkline.trainer.config import OptimizerConfig
from trunkline.trainer.schedule import learning_rate
from trunkline.trainer.sft import sft_loss

streams = st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0), st.floats(-3, 3)), min_size=1, max_size=20)


@given(streams, st.floats(0.5, 8))
def test_cispo_gradient_is_the_capped_weight_times_the_advantage(values: list[tuple[float, float, float]], cap: float) -> None:
    logp_T, old_T, advantage_T = (torch.tensor(column, dtype=torch.float64) for column in zip(*values, strict=True))
    logp_T.requires_grad_()
    (gradient_T,) = torch.autograd.grad(cispo_loss(logp_T, old_T, advantage_T, is_weight_cap=cap).total, logp_T)
    expected_T = -np.minimum(np.exp(logp_T.detach().numpy() - old_T.numpy()), cap) * advantage_T.numpy()
    np.testing.assert_allclose(gradient_T.numpy(), expected_T, rtol=1e-12, atol=0)


def test_cispo_reports_the_share_of_capped_tokens() -> None:
    logp_T, old_T = torch.tensor([-1.0, -1.0, -1.0, -1.0]), torch.tensor([-1.0, -9.0, -2.0, -1.5])
    stats = cispo_loss(logp_T, old_T, torch.ones(4), is_weight_cap=5.0).stats
    assert stats["clip_fraction"] == 0.25
    assert stats["is_weight_max"] == 5.0
    assert stats["is_weight_mean"] == pytest.approx((1 + 5 + math.e + math.exp(0.5)) / 4)


def test_on_policy_cispo_is_the_plain_policy_gradient() -> None:
    logp_T = torch.tensor([-0.5, -2.0], requires_grad=True)
    (gradient_T,) = torch.autograd.grad(cispo_loss(logp_T, logp_T.detach(), torch.tensor([1.0, -2.0]), is_weight_cap=5.0).total, logp_T)
    assert gradient_T.tolist() == [-1.0, 2.0]


def test_supervised_loss_is_the_weighted_mean() -> None:
    assert sft_loss(torch.tensor([-1.0, -3.0]), torch.tensor([3.0, 1.0])).item() == pytest.approx(1.5)


@given(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=16))
def test_leave_one_out_is_the_reward_less_the_mean_of_the_others(rewards: list[float]) -> None:
    expected = [reward - (sum(rewards) - reward) / (len(rewards) - 1) for reward in rewards]
    np.testing.assert_allclose(leave_one_out(np.array(rewards)), expected, atol=1e-12)


def test_group_normalised_has_mean_0_and_std_1() -> None:
    credit_G = group_normalised(np.array([0.0, 1.0, 1.0, 0.0, 1.0]))
    assert credit_G.mean() == pytest.approx(0.0, abs=1e-12)
    assert credit_G.std() == pytest.approx(1.0, abs=1e-5)


def test_unknown_baseline_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match="leave_one_out, group_normalised, got 'gae'"):
        advantages([0.0, 1.0], [(0.0,), (0.0,)], baseline="gae")


def test_lone_attempt_has_no_advantage() -> None:
    with pytest.raises(ValueError, match="two valid ones, got 1"):
        advantages([1.0], [(0.0,)], baseline="leave_one_out")


def test_learning_rate_warms_up_then_decays_to_its_end() -> None:
    config = OptimizerConfig(lr=1.0, lr_end_fraction=0.1, warmup_steps=4, total_steps=10)
    rates = [learning_rate(step, config) for step in (1, 4, 7, 10, 50)]
    assert rates == pytest.approx([0.25, 1.0, 0.55, 0.1, 0.1])


def test_constant_rate_needs_no_end_and_a_decay_does() -> None:
    assert learning_rate(1, OptimizerConfig(lr=0.5)) == 0.5
    with pytest.raises(ConfigError, match="needs total_steps"):
        learning_rate(1, OptimizerConfig(lr_end_fraction=0.5))


def test_open_schedule_takes_the_length_of_its_phase() -> None:
    assert OptimizerConfig().for_steps(70).total_steps == 70
    assert OptimizerConfig(total_steps=9).for_steps(70).total_steps == 9
