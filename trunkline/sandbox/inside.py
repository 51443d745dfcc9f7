"""The server inside a sandbox, its process 1: runs commands, moves files, forwards doors. Owns no limit and no mount.

    python inside.pyc FD|PATH       a stream socket to the host (wire.py): a descriptor, or a Unix socket to connect to

Every attempt waits for its start, so it imports built-in and C modules only (json alone costs more than all of these).
A frame is two big-endian 32-bit lengths, a head and a body of bytes. Heads from the host are marshalled, for we trust it;
heads to the host are JSON, for it does not trust us: commands run under the same user and may have taken us over.

host ──head, body──► _serve ─► run, start ─► fork, exec ─► pipes ─► _Process ─► reply
                        ├────► read, write, list ─► reply
                        └────► freeze, thaw: everything but us stands still
127.0.0.1:PORT ──► _Link ◄──► Unix socket of a door
"""

from __future__ import annotations

import _signal
import _socket
import errno
import marshal
import os
import resource
import select
import stat
import sys
import time
from _json import encode_basestring_ascii

TYPE_CHECKING = False  # typing's own costs an import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CHUNK = 65536
MAX_QUEUED = 4 * CHUNK
MAX_LINKS = 384
"""Connections to doors: two descriptors each, of the 1,024 that a process usually has; commands need some too."""
LINGER_S = 0.05
"""After a command's end: for output on its way; what it left running may hold its pipes for ever."""
MAX_NAMES = 10_000
"""In one reply, whose head may have 16 MiB: each is 255 bytes at most, and a byte 6 in JSON."""
PR_SET_DUMPABLE = 4
STOPPED = "TtZX"
VFORK_S = 0.3
"""In state D for so long: it waits for a child of its vfork(), which stands still, or for a disk; not for a writer's pause (0.2 s)."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Serves until the host hangs up; then everything in this process namespace is killed by the kernel."""
    if sys.version_info < (3, 9):  # noqa: UP036  (an image's own)
        sys.exit(f"python3 is {sys.version.split()[0]} here, and the server of a sandbox needs 3.9 or newer")
    set_dumpable(0)  # no other process of our user may read or write our memory
    os.umask(0o022)  # what commands make must not depend on who started us
    Server(connect(sys.argv[1])).serve()
    os._exit(0)


def connect(address: str) -> int:
    """The descriptor of the socket to the host."""
    if address.isdigit():
        return int(address)
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    control.connect(address)
    return control.detach()


def set_dumpable(value: int) -> None:
    """Whether processes of the same user may look into this one (prctl(2), PR_SET_DUMPABLE)."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, value, 0, 0, 0)


def to_json(value: Any) -> str:
    """JSON of what our heads are made of: dicts, lists, strings, integers, floats, booleans, None."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(key)}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)


class Output:
    """What is kept of a stream: the first half and the last half of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = max(limit, 2)
        self.head = bytearray()
        self.tail = bytearray()
        self.num_bytes = 0

    def add(self, data: bytes) -> None:
        """Takes more of it."""
        self.num_bytes += len(data)
        room = self.limit // 2 - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        self.tail += data
        if len(self.tail) > 2 * self.limit:
            self._trim()

    def kept(self) -> bytes:
        """The stream, or its two halves with a line between them that says what is missing."""
        self._trim()
        missing = self.num_bytes - len(self.head) - len(self.tail)
        gap = b"\n[%d bytes left out here]\n" % missing if missing else b""
        return bytes(self.head) + gap + bytes(self.tail)

    def _trim(self) -> None:
        excess = len(self.tail) - (self.limit - self.limit // 2)
        if excess > 0:
            del self.tail[:excess]


class Process:
    """A started command: its pipes, what it wrote, how it ended. `outputs` is one stream or two."""

    def __init__(self, number: int, pid: int, outputs: list[Output], *, ends_at: float | None) -> None:
        self.number, self.pid = number, pid
        self.outputs = outputs
        self.ends_at = ends_at
        self.started_at = time.monotonic()
        self.status: int | None = None
        self.seconds, self.is_timeout, self.open_pipes = 0.0, False, 0
        self.linger_until: float | None = None
        self.waiting: int | None = None
        """The request that waits for its end."""


class Server:
    """All state; one thread, one poll."""

    def __init__(self, control: int) -> None:
        self.control = control
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[int], object]] = {}
        self.polled: set[int] = set()
        self.processes: dict[int, Process] = {}
        self.by_pid: dict[int, Process] = {}
        self.inbox, self.outbox = bytearray(), bytearray()
        self.limits: list[tuple[int, int, int]] = []
        self.environment: dict[str, str] = {}
        self.workspace, self.num_links = "/", 0
        self.standing_still: list[int] = []
        self.operations: dict[str, Callable[..., None]] = {
            "hello": self.hello, "run": self.run, "start": self.start, "peek": self.peek, "stop": self.stop,
            "read": self.read, "write": self.write, "list": self.names, "freeze": self.freeze, "thaw": self.thaw,
            "usage": self.usage,
        }  # fmt: skip

    # --- the loop -----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until the host hangs up."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # none reaches process 1 that it does not handle: nobody inside can end us
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        os.set_blocking(self.control, False)
        os.set_inheritable(self.control, False)
        self.watch(wake_read, select.EPOLLIN, lambda _: os.read(wake_read, CHUNK))
        self.watch(self.control, select.EPOLLIN, self.on_control)
        while self.control in self.handlers:
            for fd, events in self.poll.poll(self.time_left()):
                handler = self.handlers.get(fd)
                if handler is not None:
                    handler(events)
            self.reap()
            self.expire()

    def watch(self, fd: int, events: int, handler: Callable[[int], object]) -> None:
        """Calls `handler` with the events of `fd`; again to change them. With none it is not polled: a hang-up would never end."""
        self.handlers[fd] = handler
        if not events:
            self.mute(fd)
        elif fd in self.polled:
            self.poll.modify(fd, events)
        else:
            self.poll.register(fd, events)
            self.polled.add(fd)

    def mute(self, fd: int) -> None:
        """Polls `fd` no more."""
        if fd in self.polled:
            self.polled.remove(fd)
            self.poll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Closes `fd`."""
        if self.handlers.pop(fd, None) is not None:
            self.mute(fd)
            os.close(fd)

    def time_left(self) -> float:
        """Seconds until something expires; -1 if nothing does."""
        moments = [moment for one in self.processes.values() for moment in (one.ends_at, one.linger_until) if moment is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else -1

    def on_control(self, events: int) -> None:
        """Frames come in, replies go out."""
        if events & select.EPOLLOUT:
            self.send()
        if not events & ~select.EPOLLOUT:
            return
        data = os.read(self.control, 4 * CHUNK)
        if not data:
            self.forget(self.control)
            return
        self.inbox += data
        while len(self.inbox) >= 8:
            head_size, body_size = int.from_bytes(self.inbox[:4], "big"), int.from_bytes(self.inbox[4:8], "big")
            if len(self.inbox) < 8 + head_size + body_size:
                return
            head = marshal.loads(self.inbox[8 : 8 + head_size])
            body = bytes(self.inbox[8 + head_size : 8 + head_size + body_size])
            del self.inbox[: 8 + head_size + body_size]
            self.perform(head, body)

    def perform(self, head: dict[str, Any], body: bytes) -> None:
        """Answers a request; an error of the system is an answer too."""
        request = head.pop("id")
        try:
            self.operations[head.pop("op")](request, body, **head)
        except OSError as error:
            self.reply(request, {"errno": error.errno or 0, "error": os.strerror(error.errno) if error.errno else str(error)})
        except (ValueError, KeyError) as error:
            self.reply(request, {"errno": errno.EINVAL, "error": str(error)})

    def reply(self, request: int, head: dict[str, Any], body: bytes = b"") -> None:
        """Queues an answer."""
        text = to_json({"id": request, **head}).encode()
        self.outbox += len(text).to_bytes(4, "big") + len(body).to_bytes(4, "big") + text + body
        self.send()

    def send(self) -> None:
        """Writes what the host takes now."""
        try:
            drain(self.outbox, self.control)
        except OSError:
            os._exit(0)  # the host is gone
        self.watch(self.control, select.EPOLLIN | (select.EPOLLOUT if self.outbox else 0), self.on_control)

    # --- commands -----------------------------------------------------------------------------------------------------

    def hello(self, request: int, body: bytes, *, workspace: str, environment: dict[str, str], limits: list[tuple[int, int, int]],
              doors: list[tuple[int, str]]) -> None:  # fmt: skip
        """Takes the settings, opens the doors, and says that it is ready."""
        self.workspace, self.environment, self.limits = workspace, environment, limits
        for port, path in doors:
            self.open_door(port, path)
        self.reply(request, {"ready": True})

    def run(self, request: int, body: bytes, **command: Any) -> None:
        """Starts a command; the reply is its end."""
        process = self.spawn(request, body, is_service=False, **command)
        process.waiting = request

    def start(self, request: int, body: bytes, **command: Any) -> None:
        """Starts a command; the reply is that it runs."""
        self.spawn(request, body, is_service=True, **command)
        self.reply(request, {"ready": True})

    def peek(self, request: int, body: bytes, *, process: int) -> None:
        """What a service wrote so far."""
        one = self.processes[process]
        self.reply(request, {"status": one.status}, one.outputs[0].kept())

    def stop(self, request: int, body: bytes, *, process: int) -> None:
        """Ends a service, or a command whose waiter has gone; the reply is its end."""
        one = self.processes[process]
        one.waiting = request
        if one.status is None:
            self.kill_session(one.pid)
        self.finish_if_done(one)

    def spawn(self, number: int, stdin: bytes, *, argv: list[str], cwd: str, environment: dict[str, str], timeout: float | None,
              max_output: int, is_service: bool) -> Process:  # fmt: skip
        """Forks and executes. Raises OSError with the errno of what failed."""
        ends: list[tuple[int, int]] = [os.pipe2(os.O_CLOEXEC) for _ in range(3 if is_service else 4)]
        (in_read, in_write), (told_read, told_write), *outs = ends
        writers = [outs[0][1], outs[-1][1]]
        try:
            pid = os.fork()
        except OSError:
            for fd in (fd for pair in ends for fd in pair):
                os.close(fd)
            raise
        if pid == 0:
            self.become(argv, self.inside(cwd), {**self.environment, **environment}, [in_read, *writers], told_write)
        for fd in {in_read, told_write, *writers}:
            os.close(fd)
        failure = os.read(told_read, 16)
        os.close(told_read)
        if failure:
            for fd in (in_write, *(read for read, _ in outs)):
                os.close(fd)
            os.waitpid(pid, 0)
            raise OSError(int(failure), "")
        ends_at = None if timeout is None else time.monotonic() + timeout
        process = Process(number, pid, [Output(max_output) for _ in outs], ends_at=ends_at)
        self.processes[number] = self.by_pid[pid] = process
        for (read, _), output in zip(outs, process.outputs):  # noqa: B905  (strict= came with Python 3.10, an image may have 3.9)
            self.collect(process, read, output)
        self.feed(in_write, stdin)
        return process

    def become(self, argv: list[str], cwd: str, environment: dict[str, str], streams: list[int], told: int) -> None:
        """The child's way to exec; never returns. What fails is told by its errno."""
        try:
            os.setsid()
            _signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
            self.be_killed_first()
            for number, fd in enumerate(streams):
                os.dup2(fd, number)
            os.chdir(cwd)
            for kind, soft, hard in self.limits:
                resource.setrlimit(kind, (soft, hard))
            os.execvpe(argv[0], argv, environment)
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            os.write(told, b"%d" % (getattr(error, "errno", None) or errno.EINVAL))
        os._exit(127)

    def be_killed_first(self) -> None:
        """When memory is spent, a command goes before the server does."""
        try:
            set_dumpable(1)  # else our files in /proc are not ours
            with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
                file.write(b"500")
        except OSError:
            pass

    def collect(self, process: Process, fd: int, output: Output) -> None:
        """Reads a pipe to its end."""
        os.set_blocking(fd, False)
        process.open_pipes += 1

        def on_ready(_: int) -> None:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                return
            if data:
                output.add(data)
                return
            self.forget(fd)
            process.open_pipes -= 1
            self.finish_if_done(process)

        self.watch(fd, select.EPOLLIN, on_ready)

    def feed(self, fd: int, data: bytes) -> None:
        """Writes a command's stdin as it reads it, then closes it."""
        left = memoryview(data)
        os.set_blocking(fd, False)

        def on_ready(_: int) -> None:
            nonlocal left
            try:
                left = left[os.write(fd, left[:CHUNK]) :] if left else left
            except BlockingIOError:
                return
            except OSError:
                left = left[:0]
            if not left:
                self.forget(fd)

        self.watch(fd, select.EPOLLOUT, on_ready)

    def reap(self) -> None:
        """Takes in every process that ended: commands, and orphans that came to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self.by_pid.pop(pid, None)
            if process is not None:
                process.status = os.waitstatus_to_exitcode(status)
                process.seconds = time.monotonic() - process.started_at
                process.ends_at = None
                process.linger_until = time.monotonic() + LINGER_S
                self.finish_if_done(process)

    def expire(self) -> None:
        """Ends what is out of time, and stops waiting for output of what has ended."""
        now = time.monotonic()
        for process in list(self.processes.values()):
            if process.ends_at is not None and now >= process.ends_at:
                process.ends_at = None
                process.is_timeout = True
                self.kill_session(process.pid)
            if process.linger_until is not None and now >= process.linger_until:
                process.linger_until = None
                self.finish_if_done(process)

    def finish_if_done(self, process: Process) -> None:
        """Replies to who waits, once the command and its output have ended. A pipe that stays open is drained, not kept."""
        if process.status is None or (process.open_pipes and process.linger_until is not None):
            return
        process.linger_until = None
        if process.waiting is None:
            return
        self.processes.pop(process.number, None)
        kept = [output.kept() for output in process.outputs]
        head = {
            "status": process.status,
            "is_timeout": process.is_timeout,
            "seconds": process.seconds,
            "num_bytes": [output.num_bytes for output in process.outputs],
            "sizes": [len(part) for part in kept],
        }
        request, process.waiting = process.waiting, None
        self.reply(request, head, b"".join(kept))

    def kill_session(self, leader: int) -> None:
        """SIGKILL to all processes of a command's session; those that left it stay, within the sandbox."""
        # Its first group at once: who forks without end is gone from a list before the list is used.
        signal_all([-leader, *(pid for pid, _, session in each_process() if session == leader)], _signal.SIGKILL)

    # --- files --------------------------------------------------------------------------------------------------------

    def inside(self, path: str) -> str:
        """A relative path starts at the workspace."""
        return os.path.join(self.workspace, path)

    def read(self, request: int, body: bytes, *, path: str, max_bytes: int) -> None:
        """A regular file's content."""
        fd = os.open(self.inside(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(fd, "rb", buffering=0) as file:
            self.check_regular(fd)
            content = file.read(max_bytes + 1) or b""
        if len(content) > max_bytes:
            raise OSError(errno.EFBIG, "")
        self.reply(request, {"ready": True}, content)

    def write(self, request: int, body: bytes, *, path: str, mode: int) -> None:
        """Writes a regular file, with the directories above it."""
        whole = self.inside(path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        fd = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode)
        with open(fd, "wb", buffering=0) as file:
            self.check_regular(fd)
            os.ftruncate(fd, 0)
            left = memoryview(body)
            while left:
                left = left[file.write(left) :]
            os.fchmod(fd, mode)
        self.reply(request, {"ready": True})

    def check_regular(self, fd: int) -> None:
        """A pipe would hang, a device do anything."""
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "")

    def names(self, request: int, body: bytes, *, path: str) -> None:
        """The names in a directory."""
        entries: list[list[Any]] = []
        with os.scandir(self.inside(path)) as names:
            for entry in names:
                if len(entries) >= MAX_NAMES:
                    raise OSError(errno.E2BIG, "")
                kind = "symlink" if entry.is_symlink() else "directory" if entry.is_dir() else "file" if entry.is_file() else "other"
                entries.append([entry.name, kind, entry.stat(follow_symlinks=False).st_size])
        self.reply(request, {"entries": entries})

    def usage(self, request: int, body: bytes) -> None:
        """What no walk over files shows: bytes of files that are deleted and still open, and memory of all processes."""
        deleted: dict[tuple[int, int], int] = {}
        resident = 0
        for pid, _, _ in each_process():
            try:
                with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
                    resident += int(file.read(256).split()[1]) * PAGE
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    found = os.stat(f"/proc/{pid}/fd/{fd}")
                    if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                        deleted[found.st_dev, found.st_ino] = found.st_blocks * 512
            except OSError:  # it ended meanwhile, or is a server of ours
                continue
        self.reply(request, {"deleted_bytes": sum(deleted.values()), "resident_bytes": resident})

    # --- standing still -----------------------------------------------------------------------------------------------

    def freeze(self, request: int, body: bytes) -> None:
        """Stops every process but this one, and remembers which stood still before."""
        before = {pid for pid, state, _ in each_process() if state in STOPPED}
        started = ran_at = time.monotonic()
        while True:
            signal_all([-1], _signal.SIGSTOP)  # to all but us at once, whoever forks meanwhile
            processes = [pid for pid, _, _ in each_process() if pid != 1]
            moving = {state for pid in processes for _, state, _ in each_process(f"/proc/{pid}/task")}.difference(STOPPED)
            now = time.monotonic()
            ran_at = ran_at if moving <= {"D"} else now
            if not moving or now - ran_at > VFORK_S:
                break
            if now - started > 10.0:
                self.release(before)
                raise OSError(errno.EBUSY, "")
            time.sleep(0.001)
        self.standing_still = sorted(before)
        self.reply(request, {"ready": True})

    def thaw(self, request: int, body: bytes) -> None:
        """Lets go on what `freeze` stopped."""
        self.release(set(self.standing_still))
        self.reply(request, {"ready": True})

    def release(self, kept: set[int]) -> None:
        """SIGCONT to all but `kept`."""
        signal_all([pid for pid, _, _ in each_process() if pid != 1 and pid not in kept], _signal.SIGCONT)

    # --- doors --------------------------------------------------------------------------------------------------------

    def open_door(self, port: int, path: str) -> None:
        """Serves 127.0.0.1:port."""
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        fd = listener.detach()
        self.watch(fd, select.EPOLLIN, lambda _: self.accept(fd, path))

    def accept(self, listener: int, path: str) -> None:
        """Joins a connection to the door's socket; if nobody is there it is closed."""
        try:
            caller, _ = _socket.socket(fileno=os.dup(listener))._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        target = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        try:
            if self.num_links >= MAX_LINKS:
                raise OSError(errno.EMFILE, "")
            target.connect(path)
        except OSError:
            target.close()
            os.close(caller)
            return
        self.num_links += 1
        os.set_blocking(caller, False)
        Link(self, caller, target.detach())


class Link:
    """Two connected sockets: what comes from one goes to the other, until both have ended."""

    def __init__(self, server: Server, one: int, other: int) -> None:
        self.server = server
        self.peer = {one: other, other: one}
        self.queued = {one: bytearray(), other: bytearray()}
        """Bytes to be written to each."""
        self.has_ended = {one: False, other: False}
        """Nothing more comes from it."""
        self.is_shut = {one: False, other: False}
        server.watch(one, select.EPOLLIN, lambda events: self.on_ready(one, events))
        server.watch(other, select.EPOLLIN, lambda events: self.on_ready(other, events))

    def on_ready(self, fd: int, events: int) -> None:
        """Moves what can be moved."""
        try:
            if events & (select.EPOLLIN | select.EPOLLHUP) and not self.has_ended[fd]:
                self.pull(fd)
            if events & select.EPOLLOUT:
                drain(self.queued[fd], fd)
            if events & select.EPOLLERR:
                raise OSError(errno.ECONNRESET, "")
            for end in self.peer:
                self.shut_if_done(end)
        except OSError:
            self.close()
            return
        if all(self.is_shut.values()):
            self.close()
            return
        for end, other in self.peer.items():
            wanted = 0
            if not self.has_ended[end] and len(self.queued[other]) < MAX_QUEUED:
                wanted |= select.EPOLLIN
            if self.queued[end]:
                wanted |= select.EPOLLOUT
            self.server.watch(end, wanted, self.server.handlers[end])

    def pull(self, fd: int) -> None:
        """Takes bytes from `fd` for its peer, and hands on at once what the peer takes."""
        if len(self.queued[self.peer[fd]]) >= MAX_QUEUED:
            return
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        if data:
            self.queued[self.peer[fd]] += data
            drain(self.queued[self.peer[fd]], self.peer[fd])
        else:
            self.has_ended[fd] = True

    def shut_if_done(self, fd: int) -> None:
        """Ends the direction towards `fd` once its peer has ended and everything is written."""
        if self.has_ended[self.peer[fd]] and not self.queued[fd] and not self.is_shut[fd]:
            self.is_shut[fd] = True
            end = _socket.socket(fileno=os.dup(fd))
            try:
                end.shutdown(_socket.SHUT_WR)
            finally:
                end.close()

    def close(self) -> None:
        """Closes both ends."""
        for fd in self.peer:
            self.server.forget(fd)
        self.server.num_links -= 1


def drain(queue: bytearray, fd: int) -> None:
    """Writes of the queue what is taken now."""
    try:
        while queue:
            del queue[: os.write(fd, queue[: 4 * CHUNK])]
    except BlockingIOError:
        pass


def each_process(folder: str = "/proc") -> list[tuple[int, str, int]]:
    """Pid, state and session of every process here, or of every thread of one."""
    found: list[tuple[int, str, int]] = []
    try:
        names = os.listdir(folder)
    except OSError:  # it ended meanwhile
        return found
    for name in names:
        if name.isdigit():
            try:
                with open(f"{folder}/{name}/stat", "rb", buffering=0) as file:
                    fields = file.read(4096).rpartition(b")")[2].split()
            except OSError:
                continue
            if len(fields) > 3:
                found.append((int(name), fields[0].decode(), int(fields[3])))
    return found


def signal_all(pids: list[int], number: int) -> None:
    """A signal to processes that may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass


if __name__ == "__main__":
    main()
