"""The system calls that a sandbox refuses, as a classic BPF program for bubblewrap. Owns the list; loads nothing.

A list of what is refused, not of what is allowed: agents run whatever toolchains there are. Namespaces, dropped capabilities
and no_new_privs are the wall; this takes away what has often led through it, and what no namespace covers (vsock, keyrings).
Refused calls fail with EPERM, as they would without privileges, or with ENOSYS, as on older kernels: programs then do without.
Calls of another architecture kill the process.

Source: Linux uapi linux/filter.h, linux/seccomp.h, asm/unistd_64.h, asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; arguments are 8 bytes each, little-endian
_X32_BIT = 0x40000000

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
ALLOWED_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: those that a network namespace confines."""


@dataclass(frozen=True)
class Architecture:
    """How a machine numbers its calls."""

    audit: int
    """AUDIT_ARCH_* of linux/audit.h."""
    refused: tuple[int, ...]
    """Numbers of the calls that are refused whatever their arguments."""
    unknown: tuple[int, ...]
    """Numbers of the calls that are as if the kernel had none such."""
    ioctl: int
    """Refused for what puts characters into a terminal's input."""
    socket: int
    """Refused for families other than ALLOWED_FAMILIES."""


# Number on x86_64, on aarch64. Tracing, other processes' memory and descriptors; mounts and handles of files; namespaces; keys of the
# kernel; its code and its tracing; asynchronous calls, which no filter sees; clocks; the machine itself.
_REFUSED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "unshare": (272, 97), "setns": (308, 268), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "lookup_dcookie": (212, 18), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161), "setdomainname": (171, 162),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116), "vhangup": (153, 58),
    "fanotify_init": (300, 262), "nfsservctl": (180, 42),
}  # fmt: skip
# What tells or decides which pages of a file the kernel holds: a sandbox could leave bits there for a later one that sees the same file.
_UNKNOWN = {"fadvise64": (221, 223), "mincore": (27, 232), "readahead": (187, 213), "cachestat": (451, 451), "preadv2": (327, 286)}

ARCHITECTURES = {
    machine: Architecture(
        audit, tuple(call[at] for call in _REFUSED.values()), tuple(call[at] for call in _UNKNOWN.values()), ioctl=ioctl, socket=socket
    )
    for at, (machine, audit, ioctl, socket) in enumerate((("x86_64", 0xC000003E, 16, 41), ("aarch64", 0xC00000B7, 29, 198)))
}
"""By what `uname -m` prints."""


def build_filter(architecture: Architecture) -> bytes:
    """The program, as bubblewrap's --seccomp reads it: an array of struct sock_filter."""
    refuse = _returns(_ERRNO | errno.EPERM)
    program = [
        _loads(_ARCH_AT),
        *_unless_equal(architecture.audit, _returns(_KILL)),
        _loads(_NUMBER_AT),
        _step(_JUMP_AT_LEAST, _X32_BIT, if_true=0, if_false=1),
        _returns(_KILL),
    ]
    for number in sorted(architecture.refused):
        program += [*_if_equal(number, [refuse])]
    for number in sorted(architecture.unknown):
        program += [*_if_equal(number, [_returns(_ERRNO | errno.ENOSYS)])]
    # The kernel looks at the low 32 bits of an ioctl's number and of a family, and so do we.
    program += _if_equal(
        architecture.ioctl,
        [_loads(_FIRST_ARGUMENT_AT + 8), *_if_equal(_TIOCSTI, [refuse]), *_if_equal(_TIOCLINUX, [refuse]), _returns(_ALLOW)],
    )
    allowed = [step for family in ALLOWED_FAMILIES for step in _if_equal(family, [_returns(_ALLOW)])]
    program += _if_equal(architecture.socket, [_loads(_FIRST_ARGUMENT_AT), *allowed, _returns(_ERRNO | errno.EAFNOSUPPORT)])
    program.append(_returns(_ALLOW))
    return b"".join(program)


def _step(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _loads(offset: int) -> bytes:
    return _step(_LOAD, offset)


def _returns(action: int) -> bytes:
    return _step(_RETURN, action)


def _if_equal(value: int, steps: list[bytes]) -> list[bytes]:
    """`steps` if the loaded word is `value`; else what follows them."""
    return [_step(_JUMP_EQUAL, value, if_true=0, if_false=len(steps)), *steps]


def _unless_equal(value: int, step: bytes) -> list[bytes]:
    return [_step(_JUMP_EQUAL, value, if_true=1, if_false=0), step]
