from rolling import rolling_max, rolling_median, rolling_min


class Weighed:
    """A value that can only be compared, and counts how often it is."""

    num_comparisons = 0

    def __init__(self, weight):
        self.weight = weight

    def _compared(self):
        Weighed.num_comparisons += 1
        return self.weight

    def __lt__(self, other):
        return self._compared() < other.weight

    def __le__(self, other):
        return self._compared() <= other.weight

    def __gt__(self, other):
        return self._compared() > other.weight

    def __ge__(self, other):
        return self._compared() >= other.weight

    def __eq__(self, other):
        return self._compared() == other.weight

    __hash__ = None


def measured(function, weights, size):
    """The weights of the result, and how many comparisons it took for each value."""
    Weighed.num_comparisons = 0
    result = function([Weighed(weight) for weight in weights], size)
    return [value.weight for value in result], Weighed.num_comparisons / len(weights)


def mixed(count):
    return [(place * 7919 + place * place) % 211 for place in range(count)]


def test_the_largest_of_wide_windows():
    weights, comparisons = measured(rolling_max, mixed(400), 90)
    assert weights[:4] == [205, 205, 205, 205]
    assert sum(weights) == 64797
    assert len(weights) == 311
    assert comparisons <= 4


def test_the_smallest_of_wide_windows():
    weights, comparisons = measured(rolling_min, mixed(400), 24)
    assert weights[:5] == [0, 6, 6, 1, 1]
    assert sum(weights) == 1972
    assert comparisons <= 4


def test_the_largest_of_falling_values():
    weights, comparisons = measured(rolling_max, range(300, 0, -1), 100)
    assert weights == list(range(300, 99, -1))
    assert comparisons <= 4


def test_the_smallest_of_rising_values():
    weights, comparisons = measured(rolling_min, range(300), 100)
    assert weights == list(range(201))
    assert comparisons <= 4


def test_the_largest_of_equal_values():
    weights, comparisons = measured(rolling_max, [7] * 200, 50)
    assert weights == [7] * 151
    assert comparisons <= 4


def test_the_middle_of_wide_windows():
    weights, comparisons = measured(rolling_median, mixed(400), 128)
    assert weights[:6] == [100, 102, 100, 100, 100, 102]
    assert sum(weights) == 26498
    assert len(weights) == 273
    assert comparisons <= 40


def test_the_middle_of_falling_values():
    weights, comparisons = measured(rolling_median, range(500, 0, -1), 201)
    assert weights[0] == 400
    assert weights[-1] == 101
    assert comparisons <= 40


def test_the_leftmost_of_equal_values_counts():
    values = [Weighed(weight) for weight in (3, 5, 5, 1, 5)]
    places = [next(place for place, value in enumerate(values) if value is found) for found in rolling_max(values, 3)]
    assert places == [1, 1, 2]
    places = [next(place for place, value in enumerate(values) if value is found) for found in rolling_min(values[::-1], 2)]
    assert places == [3, 3, 2, 0]
