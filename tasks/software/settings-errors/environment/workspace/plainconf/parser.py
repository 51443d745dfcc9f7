"""Puts the settings of a text together.

    # comment
    name = Trunk                 a string
    [server]                     the settings that follow are those of the section "server"
    port: int = 8080             a number: type between colon and equals sign
    hosts: list = alpha, \\
        beta                     continued

Types: str (the default), int, float, switch, list.
"""

import re

from plainconf.errors import SettingsError
from plainconf.lines import logical_lines
from plainconf.values import READERS, Value, read_value

SECTION = re.compile(r"\[\s*([A-Za-z][\w.-]*)\s*\]")
SETTING = re.compile(r"([A-Za-z][\w-]*)\s*(?::\s*(\w+)\s*)?=\s*(.*)")


def parse(text: str) -> dict[str, dict[str, Value]]:
    """The settings of `text` by section and name; those before the first section are in section "".

    A section may be opened again to add settings to it. Raises SettingsError for an entry that is neither a section nor a
    setting, for an unknown type and for a name that is set twice in a section.
    """
    settings: dict[str, dict[str, Value]] = {"": {}}
    section = settings[""]
    for line, entry in logical_lines(text):
        if match := SECTION.fullmatch(entry):
            section = settings.setdefault(match[1], {})
        elif match := SETTING.fullmatch(entry):
            name, kind, value = match[1], match[2] or "str", match[3]
            if kind not in READERS:
                raise SettingsError(line, f"unknown type {kind}")
            if name in section:
                raise SettingsError(line, f"{name} is set twice")
            section[name] = read_value(kind, value)
        else:
            raise SettingsError(line, f"neither a section nor a setting: {entry}")
    return settings
