"""Reads tokens by recursive descent and computes while it reads.

From the loosest to the tightest, each operator takes its operands from the level below:

    sum      + -        from left to right
    product  * / %      from left to right
    power    **
    sign     + -        before an operand
    atom     number, name, call, parentheses
"""

from collections.abc import Mapping
from fractions import Fraction

from abacus.functions import FUNCTIONS
from abacus.tokens import CalcError, Token, tokenize

MAX_EXPONENT = 1000


def evaluate(text: str, names: Mapping[str, int | Fraction] | None = None) -> Fraction:
    """The exact value of the expression `text`, in which `names` have the given values.

    Raises CalcError for what is no expression, for unknown names, for a division by zero and for an exponent that isn't a
    whole number between -1000 and 1000.
    """
    return Evaluator(tokenize(text), names or {}).whole()


class Evaluator:
    """Stands at one token and reads on from there."""

    def __init__(self, tokens: list[Token], names: Mapping[str, int | Fraction]) -> None:
        self.tokens = tokens
        self.names = names
        self.place = 0

    @property
    def token(self) -> Token:
        """The token that is read next."""
        return self.tokens[self.place]

    def take(self, *signs: str) -> Token | None:
        """Reads the next token if it is one of `signs`."""
        token = self.token
        if token.kind != "sign" or token.text not in signs:
            return None
        self.place += 1
        return token

    def expect(self, sign: str) -> None:
        """Reads `sign`, which must come now."""
        if self.take(sign) is None:
            raise CalcError(self.token.column, f"expected {sign}, found {self.token.text or 'the end'}")

    def whole(self) -> Fraction:
        """The value of all tokens."""
        value = self.sum()
        if self.token.kind != "end":
            raise CalcError(self.token.column, f"unexpected {self.token.text}")
        return value

    def sum(self) -> Fraction:
        """Products with + and - between them."""
        value = self.product()
        while sign := self.take("+", "-"):
            other = self.product()
            value = value + other if sign.text == "+" else value - other
        return value

    def product(self) -> Fraction:
        """Powers with *, / and % between them."""
        value = self.power()
        while sign := self.take("*", "/", "%"):
            other = self.power()
            if sign.text == "*":
                value = value * other
                continue
            if other == 0:
                raise CalcError(sign.column, "division by zero")
            value = value / other if sign.text == "/" else value % other
        return value

    def power(self) -> Fraction:
        """Operands with ** between them."""
        value = self.sign()
        while sign := self.take("**"):
            value = raised(value, self.sign(), sign)
        return value

    def sign(self) -> Fraction:
        """An operand with + and - before it."""
        if sign := self.take("+", "-"):
            value = self.sign()
            return value if sign.text == "+" else -value
        return self.atom()

    def atom(self) -> Fraction:
        """A number, a name, a call, or an expression in parentheses."""
        token = self.token
        if self.take("("):
            value = self.sum()
            self.expect(")")
            return value
        if token.kind not in ("number", "name"):
            raise CalcError(token.column, f"expected an operand, found {token.text or 'the end'}")
        self.place += 1
        if token.kind == "number":
            return Fraction(token.text)
        if token.text in FUNCTIONS:
            return self.call(token)
        if token.text not in self.names:
            raise CalcError(token.column, f"unknown name {token.text}")
        return Fraction(self.names[token.text])

    def call(self, name: Token) -> Fraction:
        """The value of the function `name`, whose arguments come now."""
        self.expect("(")
        arguments = [self.sum()]
        while self.take(","):
            arguments.append(self.sum())
        self.expect(")")
        count, function = FUNCTIONS[name.text]
        if len(arguments) != count:
            raise CalcError(name.column, f"{name.text} takes {count} arguments, not {len(arguments)}")
        return function(*arguments)


def raised(base: Fraction, exponent: Fraction, sign: Token) -> Fraction:
    """`base` to the power of `exponent`, or a CalcError at `sign`."""
    if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
        raise CalcError(sign.column, f"exponent must be a whole number from -{MAX_EXPONENT} to {MAX_EXPONENT}")
    if base == 0 and exponent < 0:
        raise CalcError(sign.column, "division by zero")
    return base**exponent
