"""When the window itself holds training up: what is finished stands outside, and nothing inside can be taken."""

from __future__ import annotations

from trunkline.pool.window import Window


def window_with(*finished: int, has_gradient: bool = True) -> Window:
    """Six slots of which two are in the window; these groups are finished."""
    window = Window(capacity=6, window=2)
    for _ in range(6):
        window.submit()
    for index in finished:
        window.finish(index, has_gradient=has_gradient)
    return window


def test_a_finished_group_outside_the_window_is_one_stall_however_often_one_asks() -> None:
    window = window_with(4)
    assert [window.take(), window.take()] == [None, None]
    assert window.num_stalls == 1


def test_a_stall_ends_when_something_can_be_taken_and_the_next_one_counts_again() -> None:
    window = window_with(4)
    window.take()
    window.finish(1, has_gradient=True)
    assert window.take() == 1
    assert window.num_stalls == 1
    assert window.take() is None
    assert window.num_stalls == 2


def test_waiting_for_groups_that_still_run_is_no_stall() -> None:
    window = window_with()
    assert window.take() is None
    assert window.num_stalls == 0


def test_a_group_without_gradient_outside_the_window_holds_nobody_up() -> None:
    window = window_with(4, has_gradient=False)
    assert window.take() is None
    assert window.num_stalls == 0
