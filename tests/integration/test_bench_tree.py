"""`trunkline bench tree`: its workloads are what it says, and both ways of training them have one gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from trunkline.attention.forest import build_forest
from trunkline.bench.tree.bench import TreeBenchPlan, bench_tree
from trunkline.bench.tree.measure import Bench, Setting, Timed, best_micro_batch, gradient_error, race
from trunkline.bench.tree.workloads import Workload, agents, model, workloads
from trunkline.errors import ConfigError
from trunkline.run.cli import app

torch.set_num_threads(1)
CPU = Setting(torch.device("cpu"), num_rounds=1)


def small(*, num_experts: int = 0) -> Workload:
    config = model(hidden_size=128, num_layers=2, num_experts=num_experts)
    return Workload("small", "3 agents, 4 calls", config, lambda: agents(prompt=20, sampled=5, observed=3, calls=4, attempts=3), 0.0)


@pytest.mark.parametrize(
    ("name", "num_calls", "num_flat", "num_forest"),
    [("A", 16, 33_792, 3_072), ("B", 8, 8_192, 4_608), ("C", 80, 80_960, 8_112), ("H", 400, 560_000, 8_360)],
)
def test_workloads_have_the_sizes_that_are_published(name: str, num_calls: int, num_flat: int, num_forest: int) -> None:
    workload = next(workload for workload in workloads() if workload.name == name)
    calls, trajectories = workload.make()
    assert len(calls.tokens) == num_calls
    assert calls.num_tokens == num_flat
    assert build_forest(calls.tokens).num_tokens == build_forest(trajectories.tokens).num_tokens == num_forest
    assert sum(map(np.sum, calls.trained)) == sum(map(np.sum, trajectories.trained))


@pytest.mark.parametrize("num_experts", [0, 8])
def test_the_baseline_has_the_gradient_of_the_forest_within_1e_12(num_experts: int) -> None:
    assert gradient_error(small(num_experts=num_experts), CPU, torch.float64, 4) <= 1e-12


def test_trajectories_have_the_gradient_of_the_calls_within_1e_6() -> None:
    bench = Bench(small(), CPU)
    gradients = []
    for part in (bench.calls, bench.trajectories):
        bench.policy.zero_grad(set_to_none=True)
        bench.run_flat(bench.flat_batches(part, 2))
        gradients.append(bench.gradient())
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()


def test_every_contender_is_timed_each_round_and_the_sweep_knows_the_fastest() -> None:
    bench = Bench(small(), CPU)
    found = best_micro_batch(bench, bench.calls, lambda what: None)
    assert list(found.values()) == sorted(found.values())
    contender = Timed("forest", bench.run_forest)
    race(bench, [contender], lambda what: None)
    assert len(contender.seconds) == 1 and contender.median > 0


def test_an_unknown_workload_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown workload 'Z'; known: A, B, C, H"):
        bench_tree(TreeBenchPlan(("Z",)), lambda *_: None)
    result = CliRunner().invoke(app, ["bench", "tree", "--workload", "Z"])
    assert result.exit_code != 0


def test_a_device_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="no CUDA device"):
        bench_tree(TreeBenchPlan(("B",), device="cuda"), lambda *_: None)
