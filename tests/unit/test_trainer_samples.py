"""From groups to samples to bytes and back."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from trunkline.errors import TrainerError
from trunkline.trainer.batch import SampleBatch, pack_demonstrations, unpack_demonstrations
from trunkline.trainer.samples import samples_from_groups
from trunkline.types import (
    Completion,
    Demonstration,
    Episode,
    EpisodeStatus,
    Failure,
    Generation,
    Group,
    Message,
    PolicyVersion,
    Reward,
    RoutedExperts,
    SamplingParams,
    Task,
    TrainSample,
    VersionSpan,
)


def make_completion(prompt: tuple[int, ...], response: tuple[int, ...], *, drop_reason: str | None = None) -> Completion:
    logprobs = tuple(-0.5 - i for i in range(len(response)))
    spans = (VersionSpan(0, len(response), PolicyVersion(1, 0)),)
    return Completion(
        completion_id=f"c{prompt}{response}",
        session_id="s",
        prompt_ids=prompt,
        generation=Generation(response, logprobs, "stop", spans),
        sampling=SamplingParams(8, temperature=0.9),
        prompt_node=0,
        reply_node=1,
        drop_reason=drop_reason,
    )


def make_episode(attempt: int, reward: float | None, *completions: Completion, status: EpisodeStatus = "finished") -> Episode:
    rewards = () if reward is None else (Reward("outcome", reward, "made up"),)
    failure = None if status == "finished" else Failure("infra", "Example", "made up")
    return Episode(f"e{attempt}", "g", "t", attempt, status, completions, (), rewards, failure)


def make_group(*episodes: Episode) -> Group:
    return Group("g", 0, Task("t", "set", "kind", (Message("user", "?"),), {}), episodes)


def test_every_call_of_an_episode_carries_the_episodes_advantage() -> None:
    winner = make_episode(0, 1.0, make_completion((1, 2), (3, 4)), make_completion((1, 2, 3, 4, 5), (6,)))
    loser = make_episode(1, 0.0, make_completion((1, 2), (7,)))
    samples = samples_from_groups([make_group(winner, loser)], baseline="leave_one_out")
    assert [sample.token_ids for sample in samples] == [(1, 2, 3, 4), (1, 2, 3, 4, 5, 6), (1, 2, 7)]
    assert samples[0] == TrainSample((1, 2, 3, 4), (False, False, True, True), (0, 0, -0.5, -1.5), (0, 0, 1.0, 1.0), 0.9)
    assert [sample.advantages for sample in samples[1:]] == [(0, 0, 0, 0, 0, 1.0), (0, 0, -1.0)]


def test_a_completion_is_current_if_the_step_s_own_version_sampled_all_of_it() -> None:
    group = make_group(make_episode(0, 1.0, make_completion((1,), (2, 3))), make_episode(1, 0.0, make_completion((1,), (4,))))
    spans = (VersionSpan(0, 1, PolicyVersion(1, 0)), VersionSpan(1, 2, PolicyVersion(1, 1)))
    spanning = replace(group.episodes[0].completions[0], generation=Generation((2, 3), (-0.5, -0.5), "stop", spans))
    mixed = make_group(replace(group.episodes[0], completions=(spanning,)), group.episodes[1])

    def current(group: Group, version: PolicyVersion | None) -> list[bool]:
        return [sample.is_current for sample in samples_from_groups([group], baseline="leave_one_out", version=version)]

    assert current(group, PolicyVersion(1, 0)) == [True, True]
    assert current(group, PolicyVersion(2, 0)) == current(group, None) == [False, False]
    assert current(mixed, PolicyVersion(1, 0)) == [False, True]
    assert current(mixed, PolicyVersion(1, 1)) == [False, False]


def test_failed_episode_counts_neither_in_baseline_nor_in_samples() -> None:
    episodes = (
        make_episode(0, 1.0, make_completion((1,), (2,))),
        make_episode(1, None, make_completion((1,), (3,)), status="failed"),
        make_episode(2, 0.0, make_completion((1,), (4,)), status="deadline"),
    )
    samples = samples_from_groups([make_group(*episodes)], baseline="leave_one_out")
    assert [(sample.token_ids, sample.advantages[-1]) for sample in samples] == [((1, 2), 1.0), ((1, 4), -1.0)]


def test_dropped_and_empty_completions_give_no_sample() -> None:
    dropped, empty = make_completion((1,), (2,), drop_reason="greedy"), make_completion((1,), ())
    group = make_group(make_episode(0, 1.0, dropped, empty), make_episode(1, 0.0, make_completion((1,), (5,))))
    assert [sample.token_ids for sample in samples_from_groups([group], baseline="leave_one_out")] == [(1, 5)]


def test_group_without_gradient_gives_no_sample() -> None:
    equal = make_group(*(make_episode(i, 1.0, make_completion((1,), (2,))) for i in range(3)))
    alone = make_group(make_episode(0, 1.0, make_completion((1,), (2,))))
    assert samples_from_groups([equal, alone], baseline="leave_one_out") == ()


def test_samples_survive_the_wire() -> None:
    samples = [
        TrainSample((1, 2, 3), (False, True, True), (0.0, -0.25, -1 / 3), (0.0, 0.1, 0.1), 0.7),
        TrainSample((9,), (False,), (0.0,), (0.0,), is_current=True),
    ]
    batch = SampleBatch.from_bytes(SampleBatch.from_samples(samples).to_bytes())
    assert [row.tolist() for row in batch.sequences()] == [[1, 2, 3], [9]]
    assert batch.logprobs_F.tolist() == [0.0, -0.25, -1 / 3, 0.0]
    assert batch.mask_F.tolist() == [False, True, True, False]
    assert batch.temperatures_S.tolist() == [0.7, 1.0]
    assert batch.is_current_S.tolist() == [False, True]


def test_batches_of_demonstrations_survive_the_wire() -> None:
    first = [Demonstration((1, 2), (0.0, 1.0)), Demonstration((3,), (0.0,))]
    second = [Demonstration((4, 5, 6), (0.0, 0.1, 1.0))]
    batches = unpack_demonstrations(pack_demonstrations([first, second]))
    assert [[row.tolist() for row in batch.sequences()] for batch in batches] == [[[1, 2], [3]], [[4, 5, 6]]]
    assert batches[1].weights_F.tolist() == [0.0, 0.1, 1.0]


@pytest.mark.parametrize("body", [b"", b"not npz", b"PK\x03\x04 broken"])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(TrainerError, match="not an npz archive"):
        SampleBatch.from_bytes(body)


def test_pickled_objects_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, lengths_S=np.array([{"code": 1}], dtype=object))
    with pytest.raises(TrainerError, match="not an npz archive"):
        SampleBatch.from_bytes(buffer.getvalue())


def test_streams_of_different_lengths_are_refused() -> None:
    batch = SampleBatch.from_samples([TrainSample((1, 2), (False, True), (0, -1.0), (0, 1.0))])
    with pytest.raises(TrainerError, match="must have 2 entries"):
        SampleBatch(**{**vars(batch), "mask_F": np.array([False])})


def test_logprobs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(TrainerError, match="must be finite"):
        SampleBatch.from_samples([TrainSample((1, 2), (False, True), (0, float("-inf")), (0, 1.0))])


def test_empty_batch_is_refused() -> None:
    with pytest.raises(TrainerError, match="at least one sequence"):
        unpack_demonstrations(pack_demonstrations([]))


def test_conductors_side_of_the_trainer_leaves_torch_out() -> None:
    modules = "trunkline.trainer.client, trunkline.trainer.samples, trunkline.trainer.config, trunkline.trainer.batch"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- rewards along the way --------------------------------------------------------------------------------------------


def two_calls(attempt: int, reward: float, **steps: float) -> Episode:
    """An attempt of two calls; `at_0` and `at_1` are what the calls earned by themselves."""
    episode = make_episode(attempt, reward, make_completion((1,), (2, 3)), make_completion((1, 2, 3, 4), (5,)))
    earned = tuple(Reward("process.format", value, "made up", int(name.removeprefix("at_"))) for name, value in steps.items())
    return replace(episode, rewards=(*episode.rewards, *earned))


def credit_of(*episodes: Episode, baseline: str = "leave_one_out") -> list[float]:
    return [sample.advantages[-1] for sample in samples_from_groups([make_group(*episodes)], baseline=baseline)]


def test_a_call_is_credited_with_what_came_from_it_on_less_the_mean_of_the_other_attempts() -> None:
    # Returns 0.75 and 0; the first call of attempt 0 lost 0.25, which its second call has nothing to do with.
    assert credit_of(two_calls(0, 1.0, at_0=-0.25), two_calls(1, 0.0)) == [0.75, 1.0, -0.75, -0.75]


def test_what_the_last_call_earned_counts_for_all_before_it_too() -> None:
    assert credit_of(two_calls(0, 1.0, at_1=-0.25), two_calls(1, 0.0)) == [0.75, 0.75, -0.75, -0.75]


def test_equal_sums_with_different_steps_have_a_gradient() -> None:
    early, late = two_calls(0, 0.0, at_0=-0.5), two_calls(1, 0.0, at_1=-0.5)
    assert make_group(early, late).has_gradient
    assert credit_of(early, late) == [0.0, 0.5, 0.0, 0.0]
    assert not make_group(late, late).has_gradient


def test_normalised_credit_of_steps_stays_small_where_all_attempts_earn_the_same() -> None:
    credit = credit_of(two_calls(0, 1.0, at_0=-0.01), two_calls(1, 1.0, at_1=-0.01), baseline="group_normalised")
    assert max(map(abs, credit)) <= 1.0 and credit[1] > 0.9


def credit_of_whole_attempts(rewards: list[float], baseline: str) -> list[float]:
    """The formulas for attempts that earn only at their end, as they stood before single steps could earn."""
    rewards_G = np.asarray(rewards, dtype=np.float64)
    if baseline == "leave_one_out":
        return ((rewards_G - rewards_G.mean()) * (len(rewards_G) / (len(rewards_G) - 1))).tolist()
    return ((rewards_G - rewards_G.mean()) / (rewards_G.std() + 1e-6)).tolist()


@pytest.mark.parametrize("baseline", ["leave_one_out", "group_normalised"])
def test_without_rewards_of_steps_samples_are_the_same_to_the_bit(baseline: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        rewards = rng.choice([0.0, 1.0, 1 / 3, -0.1, rng.random()], size=rng.integers(2, 17)).tolist()
        found = credit_of(*(two_calls(attempt, reward) for attempt, reward in enumerate(rewards)), baseline=baseline)
        expected = credit_of_whole_attempts(rewards, baseline) if len(set(rewards)) > 1 else []
        assert np.array(found).tobytes() == np.repeat(expected, 2).astype(np.float64).tobytes()


# --- recorded routes --------------------------------------------------------------------------------------------------


def record(first: int, *experts: int) -> RoutedExperts:
    """One layer, one expert a token."""
    return RoutedExperts(first, 1, 1, np.array(experts, "<u2").tobytes())


def routed(
    name: str,
    prompt: tuple[int, ...],
    response: tuple[int, ...],
    routes: RoutedExperts | None,
    *,
    parent: str | None = None,
    shared: int = 0,
) -> Completion:
    call = make_completion(prompt, response)
    return replace(call, completion_id=name, generation=replace(call.generation, routes=routes), parent_id=parent, num_shared=shared)


def routes_of(*completions: Completion) -> list[tuple[RoutedExperts, ...]]:
    group = make_group(make_episode(0, 1.0, *completions), make_episode(1, 0.0, make_completion((1,), (9,))))
    samples = samples_from_groups([group], baseline="leave_one_out")
    assert samples[-1].routes == ()
    return [sample.routes for sample in samples[:-1]]


FIRST = routed("a", (1, 2), (3, 4, 5), record(2, 13, 14))
SECOND = routed("b", (1, 2, 3, 4, 5, 6), (7, 8), record(6, 17), parent="a", shared=5)
THIRD = routed("c", (1, 2, 3, 4, 5, 6, 7, 8, 9), (10, 11), record(7, 18, 19, 20), parent="b", shared=8)


def test_a_sample_has_the_routes_of_its_own_call_and_those_of_its_ancestors_as_the_same_objects() -> None:
    one, two, three = (call.generation.routes for call in (FIRST, SECOND, THIRD))
    expected = [(one,), (one, two), (one, two, three)]
    assert routes_of(FIRST, SECOND, THIRD) == expected
    for found, wanted in zip(routes_of(FIRST, SECOND, THIRD), expected, strict=True):
        assert all(left is right for left, right in zip(found, wanted, strict=True))


def test_ancestors_that_are_not_trained_and_calls_in_another_order_give_their_routes_all_the_same() -> None:
    dropped = replace(FIRST, drop_reason="greedy")
    one, two, three = (call.generation.routes for call in (FIRST, SECOND, THIRD))
    assert routes_of(THIRD, dropped, SECOND) == [(one, two, three), (one, two)]


def test_of_a_parent_only_what_is_shared_is_inherited_cut_once_for_all_that_share_so_much() -> None:
    cousins = [routed(name, (1, 2, 3, 6), (7,), record(4), parent="a", shared=3) for name in "xy"]
    grandchild = routed("z", (1, 2, 3, 6, 7), (8,), record(5), parent="x", shared=5)
    _, left, right, below = routes_of(FIRST, *cousins, grandchild)
    assert left == right == below == (record(2, 13),)
    assert left[0] is right[0]
    assert below[0] is left[0]


def test_a_call_without_a_record_between_two_that_have_one_is_passed_over() -> None:
    bare = replace(SECOND, generation=replace(SECOND.generation, routes=None))
    assert routes_of(FIRST, bare, THIRD)[-1] == (FIRST.generation.routes, THIRD.generation.routes)


def test_a_call_that_inherits_another_version_s_routes_is_not_current() -> None:
    older = replace(FIRST.generation, version_spans=(VersionSpan(0, 3, PolicyVersion(1, 0)),))
    newer = replace(SECOND.generation, version_spans=(VersionSpan(0, 2, PolicyVersion(1, 1)),))
    for parent, is_current in ((older, False), (replace(older, routes=None), True)):
        calls = replace(FIRST, generation=parent), replace(SECOND, generation=newer)
        group = make_group(make_episode(0, 1.0, *calls), make_episode(1, 0.0, make_completion((1,), (9,))))
        samples = samples_from_groups([group], baseline="leave_one_out", version=PolicyVersion(1, 1))
        assert [sample.is_current for sample in samples] == [False, is_current, False]


def test_a_batch_lays_each_record_out_once_and_points_every_token_to_its_row() -> None:
    group = make_group(make_episode(0, 1.0, FIRST, SECOND, THIRD), make_episode(1, 0.0, make_completion((1,), (9,))))
    batch = SampleBatch.from_samples(samples_from_groups([group], baseline="leave_one_out"))
    assert batch.routes_RLK[:, 0, 0].tolist() == [13, 14, 17, 18, 19, 20]
    rows = [-1, -1, 0, 1, -1]
    assert batch.route_of_F.tolist() == [*rows, *rows, -1, 2, -1, *rows, -1, 2, 3, 4, 5, -1, -1, -1]
    again = SampleBatch.from_bytes(batch.to_bytes())
    assert (again.route_of_F.tolist(), again.routes_RLK.dtype) == (batch.route_of_F.tolist(), np.uint16)
    assert np.array_equal(again.routes_RLK, batch.routes_RLK)


def test_where_records_overlap_the_first_counts() -> None:
    ids, flags, zeros = (1, 2, 3, 4), (False, True, True, True), (0.0,) * 4
    batch = SampleBatch.from_samples([TrainSample(ids, flags, zeros, zeros, routes=(record(0, 10, 11), record(1, 21, 22)))])
    assert batch.routes_RLK[batch.route_of_F[:3], 0, 0].tolist() == [10, 11, 22]
    assert batch.route_of_F[3] == -1


def test_a_dense_batch_has_no_routes_and_sends_none() -> None:
    batch = SampleBatch.from_samples([TrainSample((1, 2), (False, True), (0, -1.0), (0, 1.0))])
    assert batch.route_of_F.tolist() == [-1, -1]
    assert len(batch.routes_RLK) == 0
    with np.load(io.BytesIO(batch.to_bytes())) as archive:
        assert not [name for name in archive if "route" in name]
    assert SampleBatch.from_bytes(batch.to_bytes()).route_of_F.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ((record(0, 1), RoutedExperts(1, 2, 1, bytes(4))), "two models"),
        ((record(1, 5, 6),), r"a sample of 2 tokens has routes of the places 1\.\.2"),
    ],
)
def test_routes_that_cannot_be_the_samples_are_refused(routes: tuple[RoutedExperts, ...], message: str) -> None:
    sample = TrainSample((1, 2), (False, True), (0, -1.0), (0, 1.0), routes=routes)
    with pytest.raises(TrainerError, match=message):
        SampleBatch.from_samples([sample])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"route_of_F": np.array([0])}, "must have 2 entries"),
        ({"route_of_F": np.array([0, 7])}, r"must lie in -1\.\.0, got 0\.\.7"),
        ({"routes_RLK": np.zeros((1, 1, 1), np.int64)}, "uint16"),
        ({"routes_RLK": np.zeros((1, 1), np.uint16)}, r"shape \(1, 1\)"),
    ],
)
def test_routes_on_the_wire_that_fit_no_token_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    batch = SampleBatch.from_samples([TrainSample((1, 2), (False, True), (0, -1.0), (0, 1.0), routes=(record(0, 3),))])
    with pytest.raises(TrainerError, match=message):
        SampleBatch(**{**vars(batch), **change})
