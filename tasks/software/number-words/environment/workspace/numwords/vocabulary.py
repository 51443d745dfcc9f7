"""The words that numbers are made of."""

SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
"""Words of 0 to 19."""

TENS = dict(zip(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True))
"""Values of the words of whole tens."""

SCALES = {"billion": 10**9, "million": 10**6, "thousand": 10**3}
"""Values of the words that follow a group of three digits, from the largest down."""

LIMIT = 10**12
"""Numbers of this size, or beyond, have no words here."""
