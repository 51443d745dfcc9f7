"""Evaluates arithmetic expressions exactly, with names and a few functions."""

from abacus.evaluate import evaluate
from abacus.tokens import CalcError, Token, tokenize

__all__ = ["CalcError", "Token", "evaluate", "tokenize"]
