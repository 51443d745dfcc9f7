"""The window as a pure state machine: its bounds on hundreds of random configurations and schedules."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trunkline.pool.config import WindowConfig
from trunkline.pool.window import Window

configs = st.builds(
    WindowConfig,
    groups_per_step=st.integers(1, 7),
    max_off_policy_steps=st.integers(0, 4),
    window_fraction=st.floats(0, 1),
)


@dataclass
class Schedule:
    """Drives a window as the pool does: slots are refilled at once, a step holds its slots until it is published."""

    config: WindowConfig
    degenerate_share: float
    rng: random.Random
    policy_step: int = 0
    running: list[int] = field(default_factory=list)
    taking: list[int] = field(default_factory=list)
    consumed: list[int] = field(default_factory=list)
    submitted_at: dict[int, int] = field(default_factory=dict)
    max_age: int = 0

    def __post_init__(self) -> None:
        self.window = Window(capacity=self.config.capacity, window=self.config.window)
        self.refill()

    def refill(self) -> None:
        while self.window.num_free:
            index = self.window.submit()
            self.running.append(index)
            self.submitted_at[index] = self.policy_step
        assert self.window.num_free == 0

    def finish(self, index: int, *, has_gradient: bool = True) -> None:
        self.running.remove(index)
        self.window.finish(index, has_gradient=has_gradient)
        self.discard()

    def finish_any(self) -> None:
        self.finish(self.rng.choice(self.running), has_gradient=self.rng.random() >= self.degenerate_share)

    def discard(self) -> None:
        self.consumed += self.window.discard()
        self.refill()

    def take(self) -> int | None:
        """One more group for the step; a full step is trained and published."""
        index = self.window.take()
        if index is None:
            return None
        self.consumed.append(index)
        self.taking.append(index)
        self.max_age = max(self.max_age, self.policy_step - self.submitted_at[index])
        self.discard()
        if len(self.taking) == self.config.groups_per_step:
            self.publish()
        return index

    def publish(self) -> None:
        for index in self.taking:
            self.window.publish(index)
        self.taking.clear()
        self.policy_step += 1
        self.refill()

    def run(self, num_steps: int) -> None:
        """Finishes groups in random order; a waiting trainer takes what it can, a busy one lets them pile up."""
        while self.policy_step < num_steps:
            if not self.running:
                assert self.take() is not None, "deadlock: all groups are finished and none may be taken"
                continue
            for _ in range(self.rng.randint(1, len(self.running))):
                self.finish_any()
            while self.rng.random() < 0.9 and self.take() is not None:
                pass


@settings(max_examples=400, deadline=None)
@given(config=configs, degenerate_share=st.sampled_from([0.0, 0.2, 0.7, 0.95]), seed=st.integers(0, 2**32))
def test_bounds_hold_and_nothing_deadlocks_on_random_schedules(config: WindowConfig, degenerate_share: float, seed: int) -> None:
    schedule = Schedule(config, degenerate_share, random.Random(seed))
    schedule.run(12)
    assert schedule.window.max_bypass <= config.max_bypass
    assert schedule.max_age <= config.max_age
    assert len(set(schedule.consumed)) == len(schedule.consumed)
    assert set(range(schedule.window.anchor)) <= set(schedule.consumed)
    assert schedule.window.num_unconsumed + len(schedule.taking) <= config.capacity


def pass_straggler(config: WindowConfig, straggler: int) -> Schedule:
    """Consumes all that can go before one group of the first buffer, then that group."""
    schedule = Schedule(config, 0.0, random.Random(0))
    while straggler not in schedule.consumed:
        for index in [index for index in schedule.running if index != straggler]:
            schedule.finish(index)
        if schedule.take() is None:
            schedule.finish(straggler)
            assert schedule.take() == straggler
    return schedule


@settings(max_examples=400, deadline=None)
@given(config=configs)
def test_the_bound_on_bypass_is_attained_by_the_oldest_group(config: WindowConfig) -> None:
    assert pass_straggler(config, 0).window.max_bypass == config.max_bypass


@settings(max_examples=400, deadline=None)
@given(config=configs)
def test_the_bound_on_age_is_attained_by_the_youngest_of_the_first_buffer(config: WindowConfig) -> None:
    assert pass_straggler(config, config.capacity - 1).max_age == config.max_age


@settings(max_examples=100, deadline=None)
@given(groups_per_step=st.integers(1, 6), steps=st.integers(0, 3), degenerate_share=st.floats(0, 0.9), seed=st.integers(0, 2**32))
def test_a_window_of_one_is_strict_fifo(groups_per_step: int, steps: int, degenerate_share: float, seed: int) -> None:
    config = WindowConfig(groups_per_step=groups_per_step, max_off_policy_steps=steps, window_fraction=0)
    schedule = Schedule(config, degenerate_share, random.Random(seed))
    schedule.run(8)
    assert schedule.consumed == list(range(len(schedule.consumed)))
    assert schedule.max_age <= steps


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(range(8)))
def test_a_window_of_the_whole_buffer_takes_its_groups_in_any_order(order: list[int]) -> None:
    window = Window(capacity=8, window=8)
    for _ in range(8):
        window.submit()
    taken = []
    for index in order:
        window.finish(index, has_gradient=True)
        taken.append(window.take())
    assert taken == order


def test_younger_group_cannot_pass_the_window() -> None:
    window = Window(capacity=6, window=3)
    for _ in range(6):
        window.submit()
    window.finish(3, has_gradient=True)
    assert window.take() is None
    window.finish(0, has_gradient=True)
    assert [window.take(), window.take()] == [0, 3]


def test_the_anchor_moves_only_when_the_oldest_is_consumed() -> None:
    window = Window(capacity=4, window=2)
    for _ in range(4):
        window.submit()
    window.finish(1, has_gradient=True)
    assert (window.take(), window.anchor) == (1, 0)
    window.finish(2, has_gradient=True)
    assert window.take() is None
    window.finish(0, has_gradient=True)
    assert (window.take(), window.anchor) == (0, 2)


def test_the_oldest_finished_group_is_taken_first() -> None:
    window = Window(capacity=4, window=4)
    for _ in range(4):
        window.submit()
    for index in (3, 1, 2):
        window.finish(index, has_gradient=True)
    assert [window.take() for _ in range(3)] == [1, 2, 3]


def test_a_trained_group_holds_its_slot_until_published_and_a_degenerate_one_frees_it_at_once() -> None:
    window = Window(capacity=2, window=2)
    trained, degenerate = window.submit(), window.submit()
    window.finish(trained, has_gradient=True)
    window.finish(degenerate, has_gradient=False)
    assert (window.take(), window.num_free) == (trained, 0)
    assert (window.discard(), window.num_free) == ([degenerate], 1)
    window.publish(trained)
    assert window.num_free == 2


def test_a_degenerate_group_beyond_the_window_waits_for_it() -> None:
    window = Window(capacity=4, window=2)
    for _ in range(4):
        window.submit()
    window.finish(2, has_gradient=False)
    assert window.discard() == []
    window.finish(0, has_gradient=False)
    assert window.discard() == [0, 2]


@pytest.mark.parametrize(
    ("fraction", "capacity", "window"),
    [(0.0, 100, 1), (0.3, 16, 4), (0.3, 8, 2), (0.29, 100, 29), (0.57, 100, 57), (0.3, 2, 1), (1.0, 100, 100)],
)
def test_window_is_the_floor_of_its_share_of_the_buffer(fraction: float, capacity: int, window: int) -> None:
    config = WindowConfig(groups_per_step=capacity // 2, max_off_policy_steps=1, window_fraction=fraction)
    assert (config.capacity, config.window) == (capacity, window)


def test_an_unknown_knob_is_refused() -> None:
    with pytest.raises(ValidationError, match="window_size"):
        WindowConfig.model_validate({"window_size": 3})
