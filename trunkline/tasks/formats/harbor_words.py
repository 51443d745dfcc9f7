"""What Harbor's format demands of single words: hosts, names, headers, sizes, paths. Owns no table; pure, raises ValueError."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from pathlib import PurePosixPath

_HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TASK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*/[a-zA-Z0-9][a-zA-Z0-9._-]*")
_SERVICE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_TOPOLOGY = re.compile(r"[1-9]\d*(x[1-9]\d*)+")
_UNPORTABLE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³])", re.IGNORECASE)
"""Names that Windows keeps for itself, with any suffix."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, token."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")
_SECRET_NAME = re.compile(r"key|secret|token(?!s)|password|credential|auth", re.IGNORECASE)
_COOKIES = frozenset({"cookie", "set-cookie"})
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([gmk])", re.IGNORECASE)
_MEGABYTES = {"g": 1024.0, "m": 1.0, "k": 1 / 1024}
_MAX_NAME_BYTES = 255


def checked_host(text: str) -> str:
    """An entry of allowed_hosts in its normal form: a host name, '*.' and a host name, an address, or a range of addresses."""
    host = text.strip().lower().rstrip(".")
    try:
        if "/" in host:
            return ipaddress.ip_network(host, strict=True).compressed
        if ":" in host and "%" not in host:
            return ipaddress.IPv6Address(host).compressed
    except ValueError as error:
        raise ValueError(f"allowed_hosts holds host names, addresses and ranges, no URL, port or path, got {text!r}: {error}") from error
    name = host.removeprefix("*.")
    if host.startswith("*.") and _is_address(name):
        raise ValueError(f"a '*.' stands before a host name, got {text!r}")
    if not all(_HOST_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"allowed_hosts holds host names ('*.' only in front), addresses and ranges, no URL, port or path, got {text!r}")
    return host


def checked_task_name(text: str) -> str:
    """A task's name, 'org/name'."""
    if not _TASK_NAME.fullmatch(text) or ".." in text:
        raise ValueError(f"a task's name is 'org/name' of letters, digits, '.', '_' and '-', without '..', got {text!r}")
    return text


def checked_step_name(text: str) -> str:
    """A step's name, which is a directory's name on every system."""
    is_special = not text.strip() or text in {".", ".."} or text.endswith((".", " "))
    if is_special or _UNPORTABLE.search(text) or _DEVICE.fullmatch(text.partition(".")[0].rstrip(" ")):
        raise ValueError(f"a step's name must be a directory's name on every system, got {text!r}")
    if len(text.encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"a step's name has at most {_MAX_NAME_BYTES} bytes, got {len(text.encode())}")
    return text


def step_key(name: str) -> str:
    """Two names with one key are one directory on some systems."""
    return unicodedata.normalize("NFC", name).casefold()


def checked_service(text: str) -> str:
    """The name of a compose service."""
    service = text.strip()
    if not _SERVICE.fullmatch(service):
        raise ValueError(f"a service's name is made of letters, digits, '.', '_' and '-', got {text!r}")
    return service


def checked_topology(text: str) -> str:
    """Of a TPU slice, such as '2x4'."""
    if not _TOPOLOGY.fullmatch(text.strip()):
        raise ValueError(f"a topology is positive numbers with 'x' between, such as '2x4', got {text!r}")
    return text.strip()


def megabytes(text: str) -> int:
    """Of a deprecated size such as '2G' or '512M'."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"a size is a number and G, M or K, such as '2G', got {text!r}")
    return int(float(found[1]) * _MEGABYTES[found[2].lower()])


def checked_source(text: str) -> str:
    """Where an artifact lies inside."""
    if ".." in PurePosixPath(text).parts:
        raise ValueError(f"an artifact's source has no '..', got {text!r}")
    return text


def checked_destination(text: str) -> str | None:
    """Where an artifact goes, relative to the trial's artifacts; '' is none."""
    if not text:
        return None
    path = PurePosixPath(text)
    if "\\" in text or path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"an artifact's destination is a relative path with '/', without '..', got {text!r}")
    if text.rstrip("/") == "manifest.json":
        raise ValueError("'manifest.json' is kept for the list of artifacts; choose another destination")
    return text


def variables(text: str) -> list[tuple[str, str | None]]:
    """The `${NAME}` and `${NAME:-default}` in a value, as (name, default or None)."""
    return [(found[1], found[3] if found[2] else None) for found in _VARIABLE.finditer(text)]


def resolved(text: str) -> str:
    """A value with its defaults put in; this host's environment is never read. Raises ValueError where there is no default."""
    missing = [name for name, default in variables(text) if default is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} of this host is wanted, and it has no default")
    return _VARIABLE.sub(lambda found: found[3] or "", text)


def check_header(name: str, value: str) -> None:
    """An MCP server's header: a secret may only be written as ${VARIABLE}, without a default, after an optional scheme."""
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no header's name")
    if "\r" in value or "\n" in value:
        raise ValueError(f"header {name!r} holds a line break; remove it")
    found = variables(value)
    if "${" in _VARIABLE.sub(" ", value) or any("${" in (default or "") for _, default in found):
        raise ValueError(f"header {name!r} holds a broken variable; write ${{NAME}} or ${{NAME:-default}}")
    is_secret = bool(_SECRET_NAME.search(name)) or name.lower() in _COOKIES
    has_literal = any(default and (is_secret or _SECRET_NAME.search(variable)) for variable, default in found)
    if is_secret and value.strip():
        scheme, gap, rest = value.strip().partition(" ")
        bare = (rest if gap and scheme.isascii() and scheme.isalpha() else value).strip()
        is_clean = bare.startswith("${") and bare.endswith("}") and not _VARIABLE.sub("", bare).strip(" \t:-")
        has_literal = has_literal or not is_clean
    if has_literal:
        raise ValueError(f"header {name!r} holds a credential; write it as ${{VARIABLE}} without a default, such as 'Bearer ${{TOKEN}}'")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
