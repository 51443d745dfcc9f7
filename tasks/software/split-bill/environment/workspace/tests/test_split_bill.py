import pytest
from split_bill import split


def test_an_even_bill_is_shared_evenly():
    assert split(900, 3) == [300, 300, 300]


def test_one_person_pays_everything():
    assert split(1234, 1) == [1234]


def test_nobody_cannot_pay():
    with pytest.raises(ValueError):
        split(900, 0)
