import unittest
from fractions import Fraction

from abacus import CalcError, Token, evaluate, tokenize


class EvaluateTest(unittest.TestCase):
    def test_products_before_sums(self):
        self.assertEqual(evaluate("1 + 2 * 3 - 8 / 4"), 5)
        self.assertEqual(evaluate("(1 + 2) * 3 % 5"), 4)

    def test_values_are_exact(self):
        self.assertEqual(evaluate("0.1 + 0.2"), Fraction(3, 10))
        self.assertEqual(evaluate("2 ** 3 / 3"), Fraction(8, 3))

    def test_names_and_calls(self):
        self.assertEqual(evaluate("max(width, 3) * abs(-2)", {"width": 5}), 10)
        self.assertEqual(evaluate("floor(7 / 2) + min(1, 2)"), 4)

    def test_signs(self):
        self.assertEqual(evaluate("2 - -3"), 5)
        self.assertEqual(evaluate("--2 * -3"), -6)
        self.assertEqual(evaluate("2 ** -1"), Fraction(1, 2))

    def test_an_error_names_its_column(self):
        for text, column in (("1 + + *", 7), ("(1 + 2", 7), ("1 / 0", 3), ("one", 1), ("2 $ 3", 3), ("min(1)", 1)):
            with self.subTest(text=text), self.assertRaises(CalcError) as caught:
                evaluate(text)
            self.assertEqual(caught.exception.column, column)


class TokenizeTest(unittest.TestCase):
    def test_tokens(self):
        self.assertEqual(
            tokenize("x2**1.5"),
            [Token("name", "x2", 1), Token("sign", "**", 3), Token("number", "1.5", 5), Token("end", "", 8)],
        )

    def test_columns_after_wide_gaps(self):
        self.assertEqual([token.column for token in tokenize("  a  +\t\tbc")], [3, 6, 9, 11])
        self.assertEqual([token.column for token in tokenize("a\n  *b ")], [1, 5, 6, 8])

    def test_an_unexpected_character_after_wide_gaps(self):
        with self.assertRaises(CalcError) as caught:
            tokenize("1   + ?")
        self.assertEqual(str(caught.exception), "column 7: unexpected character ?")


class PowerTest(unittest.TestCase):
    def test_a_sign_before_a_power_belongs_to_the_power(self):
        self.assertEqual(evaluate("-2 ** 2"), -4)
        self.assertEqual(evaluate("3 - -x ** 2", {"x": 5}), 28)
        self.assertEqual(evaluate("2 * -3 ** 2"), -18)
        self.assertEqual(evaluate("(-2) ** 2"), 4)

    def test_powers_group_from_the_right(self):
        self.assertEqual(evaluate("2 ** 3 ** 2"), 512)
        self.assertEqual(evaluate("2 ** 2 ** 0 ** 3"), 2)
        self.assertEqual(evaluate("(2 ** 3) ** 2"), 64)

    def test_a_sign_in_an_exponent(self):
        self.assertEqual(evaluate("2 ** -2 ** 2"), Fraction(1, 16))
        self.assertEqual(evaluate("2 ** - - 3"), 8)
        self.assertEqual(evaluate("-2 ** -3"), Fraction(-1, 8))

    def test_other_operators_keep_their_order(self):
        self.assertEqual(evaluate("20 - 5 - 3"), 12)
        self.assertEqual(evaluate("24 / 4 / 2 * 3"), 9)
        self.assertEqual(evaluate("-7 % 3"), 2)

    def test_an_error_after_wide_gaps(self):
        for text, column, reason in (
            ("  1 /   0", 5, "division by zero"),
            ("2  **  (1/2)", 4, "exponent must be a whole number from -1000 to 1000"),
            ("max( 1,\n     y)", 14, "unknown name y"),
        ):
            with self.assertRaises(CalcError) as caught:
                evaluate(text)
            self.assertEqual(caught.exception.column, column)
            self.assertEqual(caught.exception.reason, reason)


if __name__ == "__main__":
    unittest.main()
