from intervals import contains, free, length


def test_the_length_counts_each_integer_once():
    assert length([(0, 3), (2, 5)]) == 5


def test_the_end_is_not_contained():
    assert contains([(2, 4)], 3)
    assert not contains([(2, 4)], 4)


def test_what_is_free_in_a_window():
    assert free([(2, 4), (6, 7)], window=(0, 10)) == [(0, 2), (4, 6), (7, 10)]
