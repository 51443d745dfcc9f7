"""Reads and writes delimiter-separated values in a given dialect."""

from dsv.dialect import COMMA, TAB, Dialect
from dsv.reader import DsvError, read, read_records
from dsv.writer import write

__all__ = ["COMMA", "TAB", "Dialect", "DsvError", "read", "read_records", "write"]
