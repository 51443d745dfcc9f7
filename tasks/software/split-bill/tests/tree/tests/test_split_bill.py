import pytest
from split_bill import split


def test_an_even_bill_is_shared_evenly():
    assert split(900, 3) == [300, 300, 300]


def test_one_person_pays_everything():
    assert split(1234, 1) == [1234]


def test_nothing_is_shared_too():
    assert split(0, 2) == [0, 0]


def test_the_first_person_pays_the_odd_cent():
    assert split(1000, 3) == [334, 333, 333]


def test_every_left_over_cent_finds_a_payer():
    assert split(1001, 3) == [334, 334, 333]
    assert split(13, 5) == [3, 3, 3, 2, 2]


def test_a_bill_smaller_than_the_party():
    assert split(2, 4) == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("total_cents", "people", "first", "last"),
    [(999, 2, 500, 499), (10001, 7, 1429, 1428), (58, 12, 5, 4)],
)
def test_the_shares_add_up(total_cents, people, first, last):
    shares = split(total_cents, people)
    assert sum(shares) == total_cents
    assert len(shares) == people
    assert shares[0] == first
    assert shares[-1] == last


@pytest.mark.parametrize(("total_cents", "people"), [(900, 0), (900, -2), (-1, 3)])
def test_a_bill_that_cannot_be_split(total_cents, people):
    with pytest.raises(ValueError):
        split(total_cents, people)
