"""What the conformance kit accepts as a record of its draws, and what it says of each way to get one wrong."""

import dataclasses

import pytest

from trunkline.bench.conformance.engine import Draw
from trunkline.bench.conformance.record import Dropped, Record, Row, problems

FIRST = Draw(0, (1, 2, 3), (10, 11, 12), (-0.5, -0.25, -0.125), "stop", 1.0, 1.0)
SECOND = Draw(1, (1, 2, 3, 10, 11, 12, 4), (20, 21), (-1.5, -1.25), "stop", 1.0, 1.0)


def row(drawn, **changes):
    return dataclasses.replace(Row.of_call(drawn.prompt_ids, drawn.token_ids, drawn.logprobs), **changes)


def merged():
    """Both draws in one row, as a trainer of whole branches has them."""
    tokens = (*SECOND.prompt_ids, *SECOND.token_ids)
    trained = (False,) * 3 + (True,) * 3 + (False,) + (True,) * 2
    return Row(tokens, trained, (0.0,) * 3 + FIRST.logprobs + (0.0,) + SECOND.logprobs)


def only_problem(draws, *rows, dropped=()):
    (found,) = problems(draws, Record(rows, dropped))
    return found


def test_a_row_for_each_call_is_exact():
    assert problems([FIRST, SECOND], Record((row(SECOND), row(FIRST)))) == []


def test_a_row_for_a_whole_branch_is_exact_too():
    assert problems([FIRST, SECOND], Record((merged(),))) == []


def test_tokens_in_a_context_that_the_engine_never_saw_are_named_with_the_place():
    retokenised = dataclasses.replace(FIRST, prompt_ids=(1, 9, 3))
    assert "context that the engine never saw (it differs from token 1 on)" in problems([FIRST], Record((row(retokenised),)))[0]


def test_tokens_that_were_not_sampled_are_named():
    assert "did not sample" in problems([FIRST], Record((row(dataclasses.replace(FIRST, token_ids=(10, 99, 12))),)))[0]


def test_a_trained_prompt_token_is_no_sample():
    spread = row(FIRST, trained=(False, False, True, True, True, True))
    assert "did not sample" in problems([FIRST], Record((spread,)))[0]


@pytest.mark.parametrize("wrong", [-0.2501, float("nan"), 0.0])
def test_other_logprobs_are_named(wrong):
    changed = dataclasses.replace(FIRST, logprobs=(-0.5, wrong, -0.125))
    assert "log-probabilities of 3 trained tokens differ" in problems([FIRST], Record((row(changed),)))[0]


def test_training_a_draw_twice_is_named():
    assert "a second time" in only_problem([FIRST], row(FIRST), row(FIRST))


def test_equal_draws_are_told_apart_by_their_logprobs():
    again = dataclasses.replace(FIRST, number=2, logprobs=(-3.5, -3.25, -3.125))
    assert problems([FIRST, again], Record((row(again), row(FIRST)))) == []
    assert "a second time" in problems([FIRST, again], Record((row(again), row(again))))[0]


def test_a_draw_that_is_nowhere_is_named_unless_it_is_counted():
    assert "2 sampled tokens are neither trained nor counted" in only_problem([FIRST, SECOND], row(FIRST))
    for counted in (Dropped("aborted", 2), Dropped("failed call", None)):
        assert problems([FIRST, SECOND], Record((row(FIRST),), (counted,))) == []
    assert "(1 are counted)" in only_problem([FIRST, SECOND], row(FIRST), dropped=(Dropped("aborted", 1),))


def test_a_sample_may_end_early_if_the_rest_is_counted():
    """As after a stop string of the client's."""
    short = Row.of_call(FIRST.prompt_ids, FIRST.token_ids[:2], FIRST.logprobs[:2])
    assert "1 sampled tokens are neither" in only_problem([FIRST], short)
    assert problems([FIRST], Record((short,), (Dropped("after a stop string", 1),))) == []


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 0.5)])
def test_tokens_of_another_distribution_may_be_kept_but_not_trained(temperature, top_p):
    drawn = dataclasses.replace(FIRST, temperature=temperature, top_p=top_p)
    assert "trains tokens drawn at temperature" in only_problem([drawn], row(drawn))
    untrained = Row.of_call(drawn.prompt_ids, drawn.token_ids, drawn.logprobs, is_trained=False)
    assert problems([drawn], Record((untrained,), (Dropped("greedy", 3),))) == []


def test_a_row_without_all_its_logprobs_is_refused():
    with pytest.raises(ValueError, match="one length"):
        Row.of_call((1, 2), (3, 4), (-0.5,))
    with pytest.raises(ValueError, match="not a record"):
        Record.from_json({"rows": [{"token_ids": [1]}]})
