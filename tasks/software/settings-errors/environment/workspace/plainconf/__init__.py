"""Reads settings from a plain text format with sections, typed values and continued lines."""

from plainconf.errors import SettingsError
from plainconf.parser import parse

__all__ = ["SettingsError", "parse"]
