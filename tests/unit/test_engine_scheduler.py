"""Scheduling without a model: what is computed, what is reused, and how requests end."""

from __future__ import annotations

import numpy as np
import pytest

from trunkline.engine.scheduler import Finished, Scheduler
from trunkline.errors import EngineError
from trunkline.types import GenerationRequest, PolicyVersion, SamplingParams, VersionSpan

V1, V2 = PolicyVersion(1, 1), PolicyVersion(1, 2)


def _scheduler(*, num_slots: int = 256, max_batch: int = 8, max_step_tokens: int = 64, max_context: int = 64) -> Scheduler:
    return Scheduler(V1, max_context, max_batch, num_slots, max_step_tokens)


def _request(name: str, token_ids: tuple[int, ...], max_tokens: int = 3, stop: tuple[int, ...] = ()) -> GenerationRequest:
    return GenerationRequest(name, token_ids, SamplingParams(max_tokens, stop_token_ids=stop))


def _step(scheduler: Scheduler, token_id: int = 9) -> list[Finished]:
    """Every row that samples samples `token_id`."""
    step = scheduler.schedule()
    assert step is not None
    num = len(step.sampling_rows_N)
    return scheduler.postprocess(step, np.full(num, token_id), np.full(num, -0.5))


def _step_each(scheduler: Scheduler, token_ids: dict[str, int]) -> dict[str, Finished]:
    """Every row that samples samples its request's token."""
    step = scheduler.schedule()
    assert step is not None
    names = [scheduler.rows.running[row].request.request_id for row in step.sampling_rows_N]
    assert sorted(names) == sorted(token_ids)
    finished = scheduler.postprocess(step, np.array([token_ids[name] for name in names]), np.full(len(names), -0.5))
    return {one.request_id: one for one in finished}


def _drain(scheduler: Scheduler) -> dict[str, Finished]:
    finished: dict[str, Finished] = {}
    while scheduler.has_work:
        finished |= {one.request_id: one for one in _step(scheduler)}
    return finished


def _check_nothing_is_lost(scheduler: Scheduler) -> None:
    assert len(scheduler.free) + scheduler.tree.num_evictable == scheduler.num_slots


def test_equal_prompts_admitted_together_are_computed_once() -> None:
    scheduler = _scheduler()
    for name in "abcd":
        scheduler.add(_request(name, tuple(range(20))))
    _step(scheduler)
    assert scheduler.stats.num_computed == 20
    assert scheduler.stats.num_reused == 3 * 20
    _drain(scheduler)
    assert scheduler.stats.num_computed == 20 + 2  # all of them sampled the same tokens
    assert scheduler.stats.num_merged == 3 * 2
    _check_nothing_is_lost(scheduler)


def test_the_next_turn_computes_only_its_new_tokens() -> None:
    scheduler = _scheduler()
    scheduler.add(_request("turn 1", (1, 2, 3, 4)))
    reply = _drain(scheduler)["turn 1"].generation.token_ids
    before = scheduler.stats.num_computed
    scheduler.add(_request("turn 2", (1, 2, 3, 4, *reply, 5, 6), max_tokens=1))
    _drain(scheduler)
    # The last sampled token of a turn has no keys yet: it is computed with the new ones.
    assert scheduler.stats.num_computed - before == 1 + 2


def test_a_stop_token_ends_a_completion_and_belongs_to_it() -> None:
    scheduler = _scheduler()
    scheduler.add(_request("a", (1, 2), max_tokens=5, stop=(8, 9)))
    generation = _drain(scheduler)["a"].generation
    assert (generation.token_ids, generation.logprobs, generation.finish_reason) == ((9,), (-0.5,), "stop")
    assert generation.version_spans == (VersionSpan(0, 1, V1),)


def test_a_completion_ends_at_the_models_context() -> None:
    scheduler = _scheduler(max_context=10)
    scheduler.add(_request("a", tuple(range(7)), max_tokens=100))
    generation = _drain(scheduler)["a"].generation
    assert (len(generation.token_ids), generation.finish_reason) == (3, "length")


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers() -> None:
    scheduler = _scheduler(max_context=10)
    with pytest.raises(EngineError, match=r"1\.\.9 tokens .* got 10"):
        scheduler.add(_request("a", tuple(range(10))))
    with pytest.raises(EngineError, match="got 0"):
        scheduler.add(_request("a", ()))


def test_a_request_that_could_never_get_its_slots_is_refused() -> None:
    scheduler = _scheduler(num_slots=16)
    with pytest.raises(EngineError, match="29 cache slots, there are 16"):
        scheduler.add(_request("a", tuple(range(20)), max_tokens=10))


def test_a_request_id_in_use_is_refused() -> None:
    scheduler = _scheduler()
    scheduler.add(_request("a", (1, 2)))
    with pytest.raises(EngineError, match="unique"):
        scheduler.add(_request("a", (1, 2)))
    _step(scheduler)
    with pytest.raises(EngineError, match="unique"):
        scheduler.add(_request("a", (1, 2)))
    _drain(scheduler)
    scheduler.add(_request("a", (1, 2)))


def test_requests_wait_in_order_for_slots_and_all_finish() -> None:
    scheduler = _scheduler(num_slots=24, max_batch=8)
    for index in range(12):
        scheduler.add(_request(str(index), tuple(range(index * 10, index * 10 + 8)), max_tokens=4))
    most = 0
    order: list[str] = []
    while scheduler.has_work:
        order += [one.request_id for one in _step(scheduler)]
        most = max(most, scheduler.rows.num_rows)
    assert order == [str(index) for index in range(12)]
    assert most == 2  # 11 slots each
    _check_nothing_is_lost(scheduler)


def test_a_long_prompt_is_computed_in_chunks_while_others_decode() -> None:
    scheduler = _scheduler(max_step_tokens=8, max_batch=4)
    scheduler.add(_request("short", (1, 2), max_tokens=10))
    scheduler.add(_request("long", tuple(range(10, 40)), max_tokens=2))
    _step(scheduler)
    assert scheduler.stats.num_computed == 8
    finished = _drain(scheduler)
    assert len(finished["short"].generation.token_ids) == 10
    assert len(finished["long"].generation.token_ids) == 2
    assert scheduler.stats.num_computed == 2 + 30 + 9 + 1
    _check_nothing_is_lost(scheduler)


def test_a_row_that_falls_behind_follows_what_another_computed_until_they_differ() -> None:
    scheduler = _scheduler()
    scheduler.add(_request("ahead", (1, 2, 3), max_tokens=6))
    for token_id in (5, 6, 7):
        _step(scheduler, token_id)
    scheduler.add(_request("behind", (1, 2, 3), max_tokens=4))
    before = scheduler.stats.num_computed
    _step_each(scheduler, {"ahead": 8, "behind": 5})
    _step_each(scheduler, {"ahead": 8, "behind": 6})
    _step_each(scheduler, {"ahead": 8, "behind": 4})
    assert scheduler.stats.num_computed - before == 3  # those of "ahead" alone
    finished = _step_each(scheduler, {"behind": 4})
    assert scheduler.stats.num_computed - before == 4
    assert finished["behind"].generation.token_ids == (5, 6, 4, 4)
    _check_nothing_is_lost(scheduler)


def test_rows_that_live_through_an_update_share_nothing_any_more() -> None:
    scheduler = _scheduler()
    for name in "ab":
        scheduler.add(_request(name, (1, 2, 3), max_tokens=6))
    _step(scheduler)
    scheduler.change_version(V2)
    before = scheduler.stats.num_computed
    _step(scheduler)
    _step(scheduler)
    assert scheduler.stats.num_computed - before == 2 * 2
    _drain(scheduler)
    _check_nothing_is_lost(scheduler)


def test_an_equal_long_prompt_reuses_the_chunks_of_the_one_ahead() -> None:
    scheduler = _scheduler(max_step_tokens=8, max_batch=4)
    scheduler.add(_request("a", tuple(range(30)), max_tokens=1))
    scheduler.add(_request("b", tuple(range(30)), max_tokens=1))
    _drain(scheduler)
    assert scheduler.stats.num_computed == 30
    _check_nothing_is_lost(scheduler)


def test_a_prompt_that_a_faster_completion_overtakes_keeps_its_own_slots_and_loses_none() -> None:
    scheduler = _scheduler(max_step_tokens=2, max_batch=2)
    scheduler.add(_request("fast", (0, 1), max_tokens=10))
    for token_id in range(2, 7):
        _step(scheduler, token_id)
    scheduler.add(_request("slow", tuple(range(30)), max_tokens=2))  # computed a token a step while "fast" decodes
    for token_id in range(7, 12):
        _step(scheduler, token_id)
    assert scheduler.rows.num_rows == 1
    _drain(scheduler)
    _check_nothing_is_lost(scheduler)
    before = scheduler.stats.num_reused
    scheduler.add(_request("equal", tuple(range(30)), max_tokens=1))
    scheduler.add(_request("other", (*range(8), 13, 14), max_tokens=1))
    _drain(scheduler)
    assert scheduler.stats.num_reused - before == 30 + 8
    _check_nothing_is_lost(scheduler)


def test_a_request_that_spans_an_update_has_both_versions_and_leaves_nothing_to_reuse() -> None:
    scheduler = _scheduler()
    scheduler.add(_request("a", (1, 2, 3), max_tokens=5))
    _step(scheduler)
    _step(scheduler)
    scheduler.change_version(V2)
    scheduler.add(_request("b", (1, 2, 3), max_tokens=5))
    before = scheduler.stats.num_reused
    finished = _drain(scheduler)
    assert finished["a"].generation.version_spans == (VersionSpan(0, 2, V1), VersionSpan(2, 5, V2))
    assert finished["b"].generation.version_spans == (VersionSpan(0, 5, V2),)
    assert scheduler.stats.num_reused == before  # b computed its prompt anew
    scheduler.add(_request("c", (1, 2, 3, 9, 9), max_tokens=1))
    _drain(scheduler)
    assert scheduler.stats.num_reused == before + 5  # from b
    _check_nothing_is_lost(scheduler)
    assert scheduler.tree.versions == (V2,)


def test_a_prompt_half_computed_at_an_update_is_not_shared_either() -> None:
    scheduler = _scheduler(max_step_tokens=8, max_batch=4)
    scheduler.add(_request("a", tuple(range(30)), max_tokens=2))
    _step(scheduler)
    scheduler.change_version(V2)
    scheduler.add(_request("b", tuple(range(30)), max_tokens=2))
    finished = _drain(scheduler)
    assert finished["a"].generation.version_spans == (VersionSpan(0, 2, V2),)
    assert scheduler.stats.num_reused == 0
    _check_nothing_is_lost(scheduler)


def test_abort_ends_waiting_and_running_requests_with_what_they_have() -> None:
    scheduler = _scheduler(max_batch=2)
    for name in "abc":
        scheduler.add(_request(name, (1, 2, 3), max_tokens=5))
    _step(scheduler)
    finished = {one.request_id: one.generation for one in scheduler.abort(["a", "c", "gone"])}
    assert {name: (len(g.token_ids), g.finish_reason) for name, g in finished.items()} == {"a": (1, "abort"), "c": (0, "abort")}
    assert set(_drain(scheduler)) == {"b"}
    _check_nothing_is_lost(scheduler)


def test_rows_grow_with_their_contexts_and_their_stop_tokens() -> None:
    scheduler = _scheduler(max_context=2000, num_slots=4000, max_step_tokens=4000)
    scheduler.add(_request("short", (1, 2), max_tokens=3))
    _step(scheduler, token_id=5)
    scheduler.add(_request("long", tuple(range(1500)), max_tokens=3, stop=tuple(range(100, 120))))
    finished = _drain(scheduler)
    assert finished["short"].generation.token_ids == (5, 9, 9)
    assert finished["long"].generation.token_ids == (9, 9, 9)
