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


if __name__ == "__main__":
    unittest.main()
