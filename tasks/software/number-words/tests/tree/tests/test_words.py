import unittest

from numwords import to_ordinal, to_words


class ToWordsTest(unittest.TestCase):
    def test_small_numbers(self):
        self.assertEqual([to_words(number) for number in (0, 7, 13, 40, 99)], ["zero", "seven", "thirteen", "forty", "ninety-nine"])

    def test_large_numbers(self):
        self.assertEqual(to_words(1_234), "one thousand two hundred thirty-four")
        self.assertEqual(to_words(-5_000_017), "minus five million seventeen")
        self.assertEqual(to_words(100_000_000_000), "one hundred billion")

    def test_numbers_without_words(self):
        with self.assertRaises(ValueError):
            to_words(10**12)


class ToOrdinalTest(unittest.TestCase):
    def test_ordinals(self):
        self.assertEqual(
            [to_ordinal(number) for number in (1, 12, 20, 21, 100)], ["first", "twelfth", "twentieth", "twenty-first", "one hundredth"]
        )

    def test_no_zeroth(self):
        with self.assertRaises(ValueError):
            to_ordinal(0)


if __name__ == "__main__":
    unittest.main()
