"""Escapes from an isolated sandbox that are tried and fail: files, network, processes, the kernel."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import signal
import socket
import time
import uuid
from pathlib import Path

import pytest

from tests.integration.sandbox_scene import (
    IS_ROOT,
    created,
    door_to,
    marked,
    new_mark,
    open_folder,
    printed,
    python,
    python_command,
    shell,
    until,
)
from trunkline.errors import LimitExceeded
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.types import Command

pytestmark = pytest.mark.anyio

# Tries each expression of a JSON list and prints a JSON list of what came of it: a value, or the name of the error.
TRY = """
import ctypes, errno, fcntl, json, mmap, os, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else f"returned {result}"

def tried(text):
    try:
        return str(eval(text))
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

print(json.dumps([tried(text) for text in json.loads(sys.argv[1])]))
"""


async def tried(box, *expressions):
    """What came of each Python expression that is evaluated inside."""
    result = await python(box, TRY, json.dumps(expressions))
    assert result.status == 0, result
    return dict(zip(expressions, json.loads(result.stdout), strict=True))


# --- files of the host ------------------------------------------------------------------------------------------------


async def test_files_of_the_host_are_not_there(box, tmp_path):
    word = f"secret-{uuid.uuid4().hex}"
    with open_folder() as folder:
        for path, mode in ((folder / f"{word}-open", 0o644), (folder / f"{word}-closed", 0o600), (tmp_path / f"{word}-tmp", 0o644)):
            path.write_text(word)
            path.chmod(mode)
        paths = [*folder.iterdir(), *tmp_path.iterdir(), Path("/etc/shadow"), Path.home() / ".bashrc", Path(__file__).resolve()]
        for path in paths:
            assert await tried(box, f"open({str(path)!r}).read()") == {f"open({str(path)!r}).read()": "ENOENT"}, path
        pruned = " -o ".join(f"-path {path}" for path in ("/proc", "/usr"))
        found = await shell(box, f"find / \\( {pruned} \\) -prune -o -name '*{word}*' -print 2>/dev/null; true")
        assert found == ""


async def test_the_roots_of_other_processes_lead_nowhere(box):
    places = ("/proc/1/root/etc/shadow", "/proc/1/cwd", "/proc/1/exe", "/proc/self/root/etc/shadow", "/proc/self/root/../../etc/shadow")
    answers = await tried(box, *(f"os.listdir({place!r})" for place in places))
    assert set(answers.values()) <= {"EACCES", "ENOENT", "EPERM"}


async def test_files_of_another_sandbox_are_not_there(sandboxes, box):
    word = f"mine-{uuid.uuid4().hex}"
    async with created(sandboxes) as other:
        await shell(other, f"echo {word} | tee ~/{word} /tmp/{word} /workspace/{word} > /dev/shm/{word}")
        found = await shell(box, f"find /home /tmp /workspace /dev /run /var /proc/*/root/tmp -name '*{word}*' 2>/dev/null; true")
        assert found == ""
        assert await tried(box, f"os.listdir({str(other.folder)!r})") == {f"os.listdir({str(other.folder)!r})": "ENOENT"}


async def test_what_only_root_may_read_stays_closed_when_root_starts_the_sandbox():
    if not IS_ROOT:
        pytest.skip("only root has files that its sandboxes' user may not read: an ordinary user's sandboxes run as that user")
    with open_folder() as folder:
        (folder / "tools").mkdir()
        (folder / "tools" / "key").write_text("for root")
        (folder / "tools" / "key").chmod(0o600)
        (folder / "tools" / "tool").write_text("for all")
        async with (
            IsolatedSandboxes.open(SandboxConfig(directory=folder, toolchain=(folder / "tools",))) as sandboxes,
            created(sandboxes) as box,
        ):
            assert await shell(box, f"cat {folder}/tools/tool") == "for all"
            assert list((await tried(box, f"open('{folder}/tools/key').read()")).values()) == ["EACCES"]
            assert await shell(box, "find /usr /etc -xdev -type f -readable ! -perm -o=r 2>/dev/null; true") == ""


async def test_the_toolchain_cannot_be_written(box):
    places = ("/usr/bin/new", "/new", "/etc/passwd", "/run/new", "/dev/new", "/home/new", f"{os.path.dirname(os.__file__)}/os.py")
    answers = await tried(box, *(f"open({place!r}, 'ab')" for place in places))
    assert set(answers.values()) <= {"EROFS", "EACCES"}


# --- network ----------------------------------------------------------------------------------------------------------


async def test_nothing_outside_is_reached(box):
    outside = ("('192.0.2.1', 80)", "('8.8.8.8', 53)", "('169.254.169.254', 80)")
    answers = await tried(box, *(f"socket.create_connection({address}, 5)" for address in outside), "os.listdir('/sys')")
    answers |= await tried(box, "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))")
    answers |= await tried(box, "socket.socket(socket.AF_INET6, socket.SOCK_STREAM).connect(('2001:db8::1', 80))")
    assert set(answers.values()) <= {"ENETUNREACH", "EADDRNOTAVAIL", "ENOENT", "EAFNOSUPPORT"}
    assert await printed(box, "import socket; print(socket.if_nameindex())") == "[(1, 'lo')]"


async def test_listeners_of_the_host_are_not_reached(box):
    with open_folder() as folder, socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        name = f"\0{uuid.uuid4().hex}"
        abstract.bind(name)
        abstract.listen()
        with socket.socket(socket.AF_UNIX) as named:
            named.bind(str(folder / "socket"))
            named.listen()
            answers = await tried(
                box,
                f"socket.create_connection({tcp.getsockname()}, 5)",
                f"socket.socket(socket.AF_UNIX).connect({name!r})",
                f"socket.socket(socket.AF_UNIX).connect({str(folder / 'socket')!r})",
            )
    assert list(answers.values()) == ["ECONNREFUSED", "ECONNREFUSED", "ENOENT"]


async def test_a_door_of_another_sandbox_is_not_reached(sandboxes, box):
    async def serve(reader, writer):
        writer.write(b"hello")
        writer.close()

    async with door_to(serve) as door:
        other = await sandboxes.create(await sandboxes.prepare(None), doors=[door])
        assert await printed(other, "import socket; print(socket.create_connection(('127.0.0.1', 8700)).recv(9))") == "b'hello'"
        answers = await tried(
            box,
            "socket.create_connection(('127.0.0.1', 8700), 5)",
            "os.listdir('/run/doors')",
            f"socket.socket(socket.AF_UNIX).connect({str(door.socket)!r})",
        )
        await other.destroy()
    assert list(answers.values()) == ["ECONNREFUSED", "ENOENT", "ENOENT"]


async def test_sockets_that_no_network_namespace_confines_are_refused(box):
    families = {"vsock": 40, "packet": 17, "alg": 38, "key": 15, "bluetooth": 31, "can": 29, "tipc": 30, "xdp": 44, "nfc": 39, "rds": 21}
    answers = await tried(box, *(f"socket.socket({family}, {kind})" for family in families.values() for kind in (1, 2, 3, 5)))
    assert set(answers.values()) == {"EAFNOSUPPORT"}
    assert await tried(box, "socket.socket(2, 3, 1)") == {"socket.socket(2, 3, 1)": "EPERM"}  # a raw one


# --- processes --------------------------------------------------------------------------------------------------------


async def test_processes_of_the_host_cannot_be_signalled(box):
    victim = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        answers = await tried(box, f"os.kill({victim.pid}, 9)", f"os.kill({os.getpid()}, 9)", f"os.pidfd_open({os.getpid()})")
        assert set(answers.values()) == {"ESRCH"}
        await box.run(Command.shell("kill -KILL -1"))
        assert victim.returncode is None
    finally:
        victim.kill()
        await victim.wait()


async def test_killing_everything_inside_leaves_the_server_at_work(sandboxes, box):
    service = await box.start(Command(("sleep", "600")))
    assert (await box.run(Command.shell("kill -KILL -1; echo survived"))).stdout == b"survived\n"
    assert (await service.stop()).status == -signal.SIGKILL
    for number in range(1, 65):
        await box.run(Command(("/bin/kill", f"-{number}", "1")))
    assert await shell(box, "echo fine") == "fine"


async def test_the_server_inside_cannot_be_read_or_written_by_its_neighbours(box):
    files = ("mem", "environ", "maps", "auxv", "stack", "syscall", "io", "fd/3", "map_files", "pagemap")
    answers = await tried(box, *(f"open('/proc/1/{name}', 'rb').read(1)" for name in files), "os.listdir('/proc/1/fd')")
    answers |= await tried(box, "open('/proc/1/mem', 'r+b')", "open('/proc/1/oom_score_adj', 'w').write('0')")
    assert set(answers.values()) <= {"EACCES", "EPERM", "ENOENT"}


async def test_what_survives_every_gentle_end_is_gone_after_destroy(sandboxes):
    mark = new_mark()
    code = """
        import os, signal, subprocess, sys, time
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN)
        def sleeper():
            while True:
                time.sleep(600)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                sleeper()
            os._exit(0)
        if os.fork() == 0:  # blocked in a write to a pipe that nobody reads
            os.setsid()
            read, write = os.pipe()
            os.write(write, b"x" * 2**22)
        if os.fork() == 0:
            os.setsid()
            os.kill(os.getpid(), signal.SIGSTOP)
        print("ready", flush=True)
        sleeper()
    """
    async with created(sandboxes) as box:
        result = await python(box, code, mark, timeout_s=1.0)
        assert result.is_timeout and result.stdout == b"ready\n"
        assert len(marked(mark)) == 3  # those that left the session
        started = time.monotonic()
        await box.destroy()
        assert time.monotonic() - started < 10
    assert await until(lambda: not marked(mark), within_s=5)


async def test_the_server_of_a_stopped_world_is_given_up_after_a_while(sandboxes, monkeypatch):
    monkeypatch.setattr("trunkline.sandbox.watchdog.SILENCE_S", 3.0)
    stopper = """
        import contextlib, os, signal
        while True:  # also what is on its way to exec, for which the server waits
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGSTOP)
    """
    mark = new_mark()
    async with created(sandboxes) as box:
        await box.start(python_command(stopper, mark, timeout_s=None))
        assert await until(lambda: marked(mark))
        with pytest.raises(LimitExceeded, match="has not answered"):
            async with asyncio.timeout(60):
                while True:
                    await box.run(Command(("true",), timeout_s=0.5))
    assert await until(lambda: not marked(mark))


# --- the kernel -------------------------------------------------------------------------------------------------------

# Numbers on x86_64, on aarch64, with arguments that would do something if the call were allowed.
CALLS = {
    "ptrace": ((101, 117), "16, 1, 0, 0"),
    "process_vm_readv": ((310, 270), "1, 0, 0, 0, 0, 0"),
    "process_vm_writev": ((311, 271), "1, 0, 0, 0, 0, 0"),
    "pidfd_getfd": ((438, 438), "3, 0, 0"),
    "mount": ((165, 40), "b'none', b'/tmp', b'tmpfs', 0, 0"),
    "umount2": ((166, 39), "b'/proc', 2"),
    "pivot_root": ((155, 41), "b'/tmp', b'/tmp'"),
    "chroot": ((161, 51), "b'/tmp'"),
    "open_tree": ((428, 428), "-100, b'/tmp', 1"),
    "move_mount": ((429, 429), "-100, b'/tmp', -100, b'/tmp', 0"),
    "fsopen": ((430, 430), "b'tmpfs', 0"),
    "mount_setattr": ((442, 442), "-100, b'/', 0, 0, 0"),
    "name_to_handle_at": ((303, 264), "-100, b'/tmp', 0, 0, 0"),
    "open_by_handle_at": ((304, 265), "-100, 0, 0"),
    "unshare of users": ((272, 97), str(0x10000000)),
    "unshare of mounts": ((272, 97), str(0x20000)),
    "setns": ((308, 268), "0, 0"),
    "add_key": ((248, 217), "b'user', b'a', b'b', 1, -2"),
    "request_key": ((249, 218), "b'user', b'a', 0, -2"),
    "keyctl": ((250, 219), "0, -3, 1"),
    "bpf": ((321, 280), "0, 0, 0"),
    "perf_event_open": ((298, 241), "0, 0, -1, -1, 0"),
    "userfaultfd": ((323, 282), "1"),
    "io_uring_setup": ((425, 425), "8, 0"),
    "io_uring_enter": ((426, 426), "0, 0, 0, 0, 0, 0"),
    "clock_settime": ((227, 112), "0, 0"),
    "settimeofday": ((164, 170), "0, 0"),
    "adjtimex": ((159, 171), "0"),
    "init_module": ((175, 105), "0, 0, b''"),
    "kexec_load": ((246, 104), "0, 0, 0, 0"),
    "reboot": ((169, 142), f"{0xFEE1DEAD}, 672274793, 0, 0"),
    "syslog": ((103, 116), "3, 0, 0"),
    "sethostname": ((170, 161), "b'other', 5"),
    "swapon": ((167, 224), "b'/tmp/swap', 0"),
    "acct": ((163, 89), "0"),
    "quotactl": ((179, 60), "0, 0, 0, 0"),
    "fanotify_init": ((300, 262), "0, 0"),
}
MACHINE = ("x86_64", "aarch64").index(platform.machine())


async def test_refused_system_calls_fail_as_they_do_without_privileges(box):
    expressions = {f"call({numbers[MACHINE]}, {arguments})": name for name, (numbers, arguments) in CALLS.items()}
    answers = await tried(box, *expressions)
    assert {expressions[text]: answer for text, answer in answers.items()} == dict.fromkeys(CALLS, "EPERM")


# With arguments that would be answered if the kernel were asked.
PAGE_CACHE = {
    "fadvise64": ((221, 223), "0, 0, 0, 4"),
    "mincore": ((27, 232), "0, 0, 0"),
    "readahead": ((187, 213), "0, 0, 0"),
    "cachestat": ((451, 451), "0, 0, 0, 0"),
    "preadv2": ((327, 286), "0, 0, 0, 0, 0, 8"),
}


async def test_nothing_can_be_told_through_which_pages_the_kernel_holds(box):
    expressions = {f"call({numbers[MACHINE]}, {arguments})": name for name, (numbers, arguments) in PAGE_CACHE.items()}
    answers = await tried(box, *expressions)
    assert {expressions[text]: answer for text, answer in answers.items()} == dict.fromkeys(PAGE_CACHE, "ENOSYS")
    assert await printed(box, "import os; print(os.preadv(os.open(os.__file__, 0), [bytearray(2)], 0))") == "2"


async def test_new_namespaces_are_refused_to_clone_as_well(box):
    code = """
        import ctypes, os, struct, sys
        libc = ctypes.CDLL(None, use_errno=True)
        def attempt(flag, *arguments):
            result = libc.syscall(*arguments)
            if result == 0:
                os._exit(0)
            if result > 0:
                print("a namespace", hex(flag))
        for flag in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
            words = struct.pack("=11Q", flag, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
            attempt(flag, 435, words, len(words))
            if flag > 0xFF:  # in the older call these bits are a signal's number
                attempt(flag, int(sys.argv[1]), ctypes.c_ulong(flag | 17), 0, 0, 0, 0)
    """
    assert await printed(box, code, (56, 220)[MACHINE]) == ""


async def test_calls_of_another_architecture_kill_the_process(box):
    if platform.machine() != "x86_64":
        pytest.skip("only x86_64 runs calls of two other kinds")
    code = """
        import ctypes, mmap, sys
        buffer = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        buffer.write(bytes.fromhex(sys.argv[1]))
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(buffer)))()
        print("survived")
    """
    getpid = {"x86_64": "b827000000 0f05 c3", "x32": "b827000040 0f05 c3", "i386": "b814000000 cd80 c3"}
    ends = {name: await python(box, code, words) for name, words in getpid.items()}
    assert (ends["x86_64"].status, ends["x86_64"].stdout) == (0, b"survived\n")  # the buffer itself works
    assert ends["x32"].status == -signal.SIGSYS
    assert ends["i386"].status in (-signal.SIGSYS, -signal.SIGSEGV)  # the latter where the kernel knows no such calls


async def test_no_device_can_be_made_or_opened(box):
    disks = [f"/dev/{name}" for name in ("vda", "sda", "nvme0n1", "mem", "kmsg", "fuse", "kvm", "net/tun", "loop-control")]
    answers = await tried(box, *(f"open({disk!r}, 'rb')" for disk in disks))
    answers |= await tried(box, "os.mknod('/tmp/disk', 0o60666, os.makedev(254, 0))", "os.mknod('/tmp/null', 0o20666, os.makedev(1, 3))")
    assert set(answers.values()) <= {"ENOENT", "EPERM"}


async def test_setuid_programs_gain_nothing(box):
    facts = await shell(box, "grep -E '^(NoNewPrivs|CapEff|CapPrm|CapBnd|CapAmb|Seccomp):' /proc/self/status | tr -d ' \\t'")
    none = "0" * 16
    assert facts.split() == [f"CapPrm:{none}", f"CapEff:{none}", f"CapBnd:{none}", f"CapAmb:{none}", "NoNewPrivs:1", "Seccomp:2"]
    script = (
        "cp $(command -v id) own; chmod 6755 own; ./own -u; for p in $(find /usr/bin -perm -4000); do echo | $p -c id 2>&1; done; id -u"
    )
    lines = (await shell(box, script, timeout_s=60)).split("\n")
    assert lines[0] == lines[-1] == "1000" and "uid=0" not in str(lines)


async def test_the_kernels_own_files_are_absent_or_closed(box):
    knobs = (
        "sys/kernel/core_pattern",
        "sys/kernel/hostname",
        "sys/vm/overcommit_memory",
        "sys/fs/file-max",
        "sys/user/max_user_namespaces",
    )
    paths = ["/proc/sysrq-trigger", "/proc/kcore", "/proc/kmsg", "/proc/mem", *(f"/proc/{knob}" for knob in knobs)]
    answers = await tried(box, *(f"open({path!r}, 'r+b')" for path in paths), "os.listdir('/sys')", "os.listdir('/sys/fs/cgroup')")
    assert set(answers.values()) <= {"EACCES", "EPERM", "ENOENT", "EROFS"}


async def test_settings_of_the_kernel_that_open_for_writing_are_the_sandboxs_own(box):
    of_a_namespace = re.compile(r"/proc/(sys/fs/mqueue/\w+|sys/kernel/(auto_msgmni|msg\w+|ns_last_pid|pid_max|sem|shm\w+)|pressure/\w+)")
    found = (await shell(box, "find /proc -path '/proc/[0-9]*' -prune -o -type f -writable -print 2>/dev/null; true")).split()
    assert [path for path in found if not of_a_namespace.fullmatch(path)] == []
    settings = [Path(path) for path in found if "/sys/" in path and not path.endswith("ns_last_pid")]
    before = [path.read_text() for path in settings]
    await shell(box, f"for f in {' '.join(map(str, settings))}; do echo 1000 > $f; done 2>/dev/null; true")
    assert [path.read_text() for path in settings] == before


async def test_characters_cannot_be_put_into_a_terminals_input(box):
    code = """
        import ctypes, errno, os, pty
        libc, (_, slave) = ctypes.CDLL(None, use_errno=True), pty.openpty()
        for number in (0x5412, 0x541C, 0x100005412, -0x100000000 + 0x5412):
            assert libc.ioctl(slave, ctypes.c_ulong(number), b"x") == -1
            print(errno.errorcode[ctypes.get_errno()])
    """
    assert (await printed(box, code)).split() == ["EPERM"] * 4
    assert list((await tried(box, "open('/dev/tty', 'r+b', buffering=0)")).values()) == ["ENXIO"]


async def test_clocks_cannot_be_set(box):
    before = time.time() - time.monotonic()
    assert list((await tried(box, "__import__('time').clock_settime(0, 1.0)")).values()) == ["EPERM"]
    await box.run(Command(("date", "-s", "2001-01-01")))
    assert abs(time.time() - time.monotonic() - before) < 60


async def test_system_v_and_posix_objects_of_the_host_are_not_seen(box):
    if not os.path.isdir("/dev/shm"):
        pytest.fail("this host has no /dev/shm to look for")
    word = f"/dev/shm/{uuid.uuid4().hex}"
    Path(word).write_text("host")
    try:
        assert list((await tried(box, f"open({word!r})")).values()) == ["ENOENT"]
        assert await shell(box, "wc -l < /proc/sysvipc/shm") == "1"
    finally:
        os.unlink(word)
