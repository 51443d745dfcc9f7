from intervals import contains, free, length


def test_the_length_of_nested_intervals():
    assert length([(0, 10), (2, 4)]) == 10
    assert length([(0, 10), (2, 4), (9, 12)]) == 12


def test_a_point_behind_a_nested_interval_is_contained():
    assert contains([(0, 10), (2, 4)], 7)
    assert not contains([(0, 10), (2, 4)], 10)


def test_nothing_is_free_behind_a_nested_interval():
    assert free([(0, 10), (2, 4)], window=(0, 12)) == [(10, 12)]
