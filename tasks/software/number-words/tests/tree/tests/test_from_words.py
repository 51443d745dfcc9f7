import unittest

import numwords


class FromWordsTest(unittest.TestCase):
    def read(self, text):
        return numwords.from_words(text)

    def test_the_new_names_can_be_imported(self):
        self.assertTrue(callable(getattr(numwords, "from_words", None)))
        self.assertTrue(callable(getattr(numwords, "WordsError", None)))

    def test_small_numbers(self):
        self.assertEqual(self.read("zero"), 0)
        self.assertEqual(self.read("nineteen"), 19)
        self.assertEqual(self.read("forty"), 40)
        self.assertEqual(self.read("ninety-nine"), 99)

    def test_hundreds(self):
        self.assertEqual(self.read("three hundred"), 300)
        self.assertEqual(self.read("seven hundred eleven"), 711)
        self.assertEqual(self.read("one hundred twenty-two"), 122)

    def test_scales(self):
        self.assertEqual(self.read("one thousand two hundred thirty-four"), 1_234)
        self.assertEqual(self.read("minus five million seventeen"), -5_000_017)
        self.assertEqual(self.read("nine hundred ninety-nine billion one"), 999_000_000_001)

    def test_it_undoes_to_words(self):
        for number in (0, 10, 101, 999, 1_000, 20_030, 300_300, 999_999, 7_000_000, 12_013_014_015, 10**12 - 1):
            self.assertEqual(numwords.from_words(numwords.to_words(number)), number)
            self.assertEqual(numwords.from_words(numwords.to_words(-number)), -number)

    def test_case_and_blanks_do_not_matter(self):
        self.assertEqual(self.read("  Two   HUNDRED\nfifty-Six "), 256)

    def test_the_hyphen_may_be_a_blank(self):
        self.assertEqual(self.read("eighty one thousand thirty three"), 81_033)

    def test_and_after_hundred(self):
        self.assertEqual(self.read("two hundred and six"), 206)
        self.assertEqual(self.read("two hundred and six thousand nine hundred and ninety"), 206_990)

    def test_and_before_a_last_group_below_a_hundred(self):
        self.assertEqual(self.read("one thousand and five"), 1_005)
        self.assertEqual(self.read("four million and seventy-two"), 4_000_072)


class WordsErrorTest(unittest.TestCase):
    def word(self, text):
        with self.assertRaises(numwords.WordsError) as caught:
            numwords.from_words(text)
        self.assertIsInstance(caught.exception, ValueError)
        return caught.exception.word

    def test_unknown_words(self):
        self.assertEqual(self.word("two dozen"), "dozen")
        self.assertEqual(self.word("Umpteen thousand"), "umpteen")

    def test_words_in_the_wrong_place(self):
        self.assertEqual(self.word("two three"), "three")
        self.assertEqual(self.word("twenty eleven"), "eleven")
        self.assertEqual(self.word("ten hundred"), "hundred")
        self.assertEqual(self.word("one thousand two million"), "million")
        self.assertEqual(self.word("thousand"), "thousand")
        self.assertEqual(self.word("one thousand two thousand"), "thousand")

    def test_zero_stands_alone(self):
        self.assertEqual(self.word("zero thousand"), "thousand")
        self.assertEqual(self.word("twenty zero"), "zero")
        self.assertEqual(self.word("minus zero"), "zero")

    def test_and_in_the_wrong_place(self):
        self.assertEqual(self.word("and five"), "and")
        self.assertEqual(self.word("twenty and five"), "and")
        self.assertEqual(self.word("one thousand and five hundred"), "hundred")
        self.assertEqual(self.word("one million and five thousand"), "thousand")
        self.assertEqual(self.word("two hundred and thousand"), "thousand")

    def test_what_is_not_finished(self):
        self.assertEqual(self.word(""), "")
        self.assertEqual(self.word("minus"), "")
        self.assertEqual(self.word("two hundred and"), "")

    def test_hyphens_join_tens_and_units_only(self):
        self.assertEqual(self.word("two-hundred"), "two-hundred")
        self.assertEqual(self.word("five-six"), "five-six")
        self.assertEqual(self.word("twenty-"), "twenty-")


if __name__ == "__main__":
    unittest.main()
