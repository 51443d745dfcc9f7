"""Files of an isolated sandbox, run for real: read and written, forked, kept, compared with their base."""

from __future__ import annotations

import asyncio
import os
import stat
import time

import pytest

from tests.integration.sandbox_scene import created, printed, python_command, shell
from trunkline.errors import FileAccessError, SandboxError
from trunkline.types import Command, FileChange, FileEntry

pytestmark = pytest.mark.anyio

BASE = {"README": "read me\n", "src/a.py": "a = 1\n", "src/b.py": "b = 1\n", "old/x": "x", "old/deep/y": "y", "keep/z": "z"}
ODD_FILES = r"""
set -e
mkdir -p made/empty closed && echo content > made/file && chmod 640 made/file
ln -s file made/relative && ln -s /etc/shadow made/absolute && ln -s nowhere made/dangling
ln made/file made/second && mkfifo made/pipe
echo secret > closed/inside && chmod 000 closed/inside && chmod 000 closed
rm README src/a.py && rm -r old && mkdir old && echo new > old/new
python3 -c 'import os; os.setxattr("made/file", "user.note", b"a\0b"); os.setxattr("made", "user.label", b"dir")'
truncate -s 100M made/sparse && touch -d '2001-02-03 04:05:06' made/empty
echo h > ~/in-home && echo t > /tmp/in-tmp
"""
LOOK = r"""
chmod 700 closed && chmod 600 closed/inside
find . /home/agent /tmp -mindepth 1 -printf '%p %y %m %l %s %n\n' | sort
stat -c %Y made/empty && cat closed/inside old/new src/b.py && [ $(stat -c %b made/sparse) -eq 0 ] && [ made/file -ef made/second ]
python3 -c 'import os; print(os.getxattr("made/file", "user.note"), os.getxattr("made", "user.label"))'
"""


@pytest.fixture
def source(tmp_path):
    """A small repository of the host."""
    for path, content in BASE.items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_text(content)
    return tmp_path / "repo"


def tree(folder):
    """Everything in it: names, kinds, modes, content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat()
        found[str(path.relative_to(folder))] = (stat.filemode(kind.st_mode), path.read_bytes() if path.is_file() else b"")
    return found


# --- reading, writing, listing ----------------------------------------------------------------------------------------


async def test_what_is_written_is_read_with_its_mode_and_the_directories_above_it(box):
    await box.files.write("new/deep/tool.sh", b"#!/bin/sh\necho ran\n", mode=0o755)
    assert await box.files.read("/workspace/new/deep/tool.sh") == b"#!/bin/sh\necho ran\n"
    assert await shell(box, "new/deep/tool.sh; stat -c '%a %U' new/deep/tool.sh") == "ran\n755 agent"


async def test_a_shorter_file_replaces_a_longer_one(box):
    await box.files.write("note", b"a long content")
    await box.files.write("note", b"short")
    assert await box.files.read("note") == b"short"


async def test_a_large_file_goes_both_ways(box):
    content = os.urandom(5_000_000)
    await box.files.write("large", content)
    assert await box.files.read("large") == content


async def test_files_list_names_with_their_kind_and_size(box):
    await shell(box, "echo 12345 > file; mkdir dir; ln -s dir link; mkfifo pipe; touch \"$(printf 'odd\\nname')\"")
    entries = await box.files.list()
    assert [(entry.name, entry.kind) for entry in entries] == [
        ("dir", "directory"),
        ("file", "file"),
        ("link", "symlink"),
        ("odd\nname", "file"),
        ("pipe", "other"),
    ]
    assert entries[1] == FileEntry("file", "file", 6)


@pytest.mark.parametrize(
    ("prepare", "path", "reason"),
    [
        ("true", "missing", "No such file"),
        ("mkdir d", "d", "Is a directory"),
        ("touch f", "f/below", "Not a directory"),
        ("mkfifo p", "p", "Invalid argument"),
        ("true", "/dev/zero", "Invalid argument"),
        ("touch f; chmod 000 f", "f", "Permission denied"),
        ("ln -s loop loop", "loop", "Too many levels"),
        ("head -c 1001 /dev/zero > f", "f", "File too large"),
        ("true", "nul\0byte", "null byte"),
    ],
)
async def test_what_cannot_be_read_says_why_and_never_hangs(box, prepare, path, reason):
    await shell(box, prepare)
    with pytest.raises(FileAccessError, match=reason):
        await asyncio.wait_for(box.files.read(path, max_bytes=1000), 10)


@pytest.mark.parametrize(
    ("prepare", "path", "reason"),
    [
        ("mkdir d", "d", "Is a directory"),
        ("touch f", "f/below", "Not a directory|File exists"),
        ("mkfifo p", "p", "No such device"),
        ("mkfifo p; sleep 600 < p > /dev/null 2>&1 & exec 3> p", "p", "Invalid argument"),
        ("true", "/usr/bin/new", "Read-only file system"),
        ("true", "/new", "Read-only file system"),
        ("true", "/dev/zero", "Invalid argument"),
    ],
)
async def test_what_cannot_be_written_says_why_and_never_hangs(box, prepare, path, reason):
    await shell(box, prepare)
    with pytest.raises(FileAccessError, match=reason):
        await asyncio.wait_for(box.files.write(path, b"content"), 10)


@pytest.mark.parametrize(("path", "reason"), [("missing", "No such file"), ("file", "Not a directory")])
async def test_what_cannot_be_listed_says_why(box, path, reason):
    await shell(box, "touch file")
    with pytest.raises(FileAccessError, match=reason):
        await box.files.list(path)


# --- workspaces -------------------------------------------------------------------------------------------------------


async def test_eight_sandboxes_of_one_workspace_do_not_see_each_other_and_leave_it_as_it_was(sandboxes, source, tmp_path):
    workspace = await sandboxes.prepare(source)
    before = tree(source)
    boxes = await asyncio.gather(*(sandboxes.create(workspace) for _ in range(8)))
    text = "for d in . /tmp ~; do echo $0 > $d/mine-$0; done; echo $0 >> README; rm src/a.py; ls . /tmp ~ | grep mine; tail -1 README"
    results = await asyncio.gather(*(one.run(Command(("/bin/sh", "-c", text, str(i)))) for i, one in enumerate(boxes)))
    assert [result.stdout.decode().split() for result in results] == [[f"mine-{i}"] * 3 + [str(i)] for i in range(8)]
    await asyncio.gather(*(one.destroy() for one in boxes))
    fresh = await sandboxes.create(workspace)
    assert await shell(fresh, "cat README src/a.py; find . -type f | wc -l") == f"read me\na = 1\n{len(BASE)}"
    await fresh.destroy()
    assert tree(source) == before


async def test_a_workspace_is_a_copy_that_later_changes_of_its_source_do_not_reach(sandboxes, source):
    workspace = await sandboxes.prepare(source)
    (source / "README").write_text("changed")
    fresh = await sandboxes.create(workspace)
    assert await fresh.files.read("README") == b"read me\n"
    await fresh.destroy()


async def test_a_workspace_needs_a_directory(sandboxes, source):
    for path in (source / "README", source / "missing"):
        with pytest.raises(SandboxError, match="prepared from a directory"):
            await sandboxes.prepare(path)


# --- forks and snapshots ----------------------------------------------------------------------------------------------


async def test_a_fork_has_every_kind_of_file_as_its_parent_has_it(sandboxes, source):
    async with created(sandboxes, source) as box:
        await shell(box, ODD_FILES)
        child = await sandboxes.fork(box)
        in_child, in_parent = await shell(child, LOOK), await shell(box, LOOK)
        await child.destroy()
    assert in_child == in_parent
    for line in ("./made/absolute l 777 /etc/shadow", "./made/pipe p", "./closed d", "/home/agent/in-home f", "/tmp/in-tmp f"):
        assert f"\n{line}" in f"\n{in_child}"
    assert "./old/x" not in in_child and "./README" not in in_child
    assert in_child.endswith("b'a\\x00b' b'dir'")


async def test_a_fork_and_its_parent_go_their_own_ways(sandboxes, box):
    await box.files.write("shared", b"before")
    service = await box.start(
        Command.shell("counting=0; while true; do counting=$((counting+1)); echo $counting > count; sleep 0.01; done")
    )
    child = await sandboxes.fork(box)
    await box.files.write("shared", b"parent")
    await child.files.write("shared", b"child")
    assert (await box.files.read("shared"), await child.files.read("shared")) == (b"parent", b"child")
    counted = await box.files.read("count")
    while await box.files.read("count") in (counted, b""):
        await asyncio.sleep(0.01)
    assert (await service.peek())[0] is None
    assert await shell(child, "grep -al countin[g] /proc/[0-9]*/cmdline || echo none") == "none"
    await child.destroy()


async def test_a_fork_of_a_fork_has_what_both_wrote(sandboxes, source):
    async with created(sandboxes, source) as box:
        await shell(box, "rm README; echo 1 > one")
        first = await sandboxes.fork(box)
        await shell(first, "rm one; rm -r old; echo 2 > two")
        await box.destroy()
        second = await sandboxes.fork(first)
        assert await shell(second, "ls") == "keep\nsrc\ntwo"
        await asyncio.gather(first.destroy(), second.destroy())


WRITER = """
import threading

def write():
    for number in range(10**9):
        for index in range(150):
            with open(f"f{index:03}", "w") as file:
                file.write(str(number))
"""
STARTS = {"a process": "write()", "a thread": "threading.Thread(target=write).start()"}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
async def test_a_writer_stands_still_while_its_files_are_copied(sandboxes, box, start):
    await box.start(python_command(WRITER + start))
    while len(await box.files.list()) < 150:
        await asyncio.sleep(0.02)
    for _ in range(3):
        child = await sandboxes.fork(box)
        # Written in the order of their names: an earlier file is at most one round ahead of a later one, and never behind.
        numbers = (await shell(child, "for f in f*; do echo $(cat $f); done")).split("\n")
        rounds = [int(number) for number in numbers if number]
        assert rounds == sorted(rounds, reverse=True) and max(rounds) - min(rounds) <= 1, rounds
        assert numbers.count("") <= 1
        await child.destroy()


async def test_a_command_asked_for_during_a_copy_starts_after_it(sandboxes, box):
    await shell(box, "seq 300 | xargs touch")
    forking = asyncio.create_task(sandboxes.fork(box))
    while len(list(sandboxes.host.state.glob("attempts/*/upper/*"))) < 330:  # part of the copy is there
        await asyncio.sleep(0)
    await asyncio.gather(shell(box, "for i in *; do echo late > $i; done"), *(box.files.write(f"{i}", b"late") for i in range(1, 300, 10)))
    child = await forking
    assert await shell(child, "cat *") == ""
    await child.destroy()


async def test_processes_that_an_agent_stopped_itself_stay_stopped_after_a_fork(sandboxes, box):
    code = """
        import os, signal, subprocess, time
        stopped, running = subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "600"])
        os.kill(stopped.pid, signal.SIGSTOP)
        open("pids", "w").write(f"{stopped.pid} {running.pid}")
        time.sleep(600)
    """
    await box.start(python_command(code, timeout_s=None))
    while b" " not in await shell_bytes(box, "cat pids 2>/dev/null || true"):
        await asyncio.sleep(0.02)
    await (await sandboxes.fork(box)).destroy()
    assert await shell(box, "for p in $(cat pids); do cut -d' ' -f3 /proc/$p/stat; done") == "T\nS"


async def shell_bytes(box, text):
    """What a script prints."""
    return (await box.run(Command.shell(text))).stdout


async def test_a_sandbox_created_from_a_snapshot_starts_where_it_was_taken(sandboxes, source):
    async with created(sandboxes, source) as box:
        await shell(box, ODD_FILES)
        snapshot = await box.snapshot()
        await shell(box, "rm -rf made; echo later > later")
        before = await shell(box, "ls")
    first, second = await asyncio.gather(sandboxes.create(snapshot), sandboxes.create(snapshot))
    looks = [await shell(one, LOOK) for one in (first, second)]
    assert looks[0] == looks[1] and "./made/pipe p" in looks[0] and "later" not in looks[0] and "later" in before
    await asyncio.gather(first.destroy(), second.destroy())
    await sandboxes.discard(snapshot)
    assert list(sandboxes.host.state.glob("snapshots/*")) == []


# --- differences ------------------------------------------------------------------------------------------------------


async def changes_after(sandboxes, source, script):
    """By path, what this script does to a workspace."""
    async with created(sandboxes, source) as box:
        await shell(box, script)
        return {change.path: change for change in await box.files.diff()}


async def test_an_untouched_workspace_has_no_differences(sandboxes, source):
    assert await changes_after(sandboxes, source, "cat README src/*; ls -R; echo x > ~/y; echo x > /tmp/y") == {}


async def test_differences_name_new_changed_and_deleted_files(sandboxes, source):
    script = "echo more >> README; chmod 755 src/a.py; rm src/b.py; mkdir -p new/empty; printf '\\377\\000' > new/bytes"
    assert await changes_after(sandboxes, source, script) == {
        "README": FileChange("README", "file", 0o644, b"read me\nmore\n"),
        "src/a.py": FileChange("src/a.py", "file", 0o755, b"a = 1\n"),
        "src/b.py": FileChange("src/b.py", "deleted"),
        "new": FileChange("new", "directory", 0o755),
        "new/empty": FileChange("new/empty", "directory", 0o755),
        "new/bytes": FileChange("new/bytes", "file", 0o644, b"\xff\x00"),
    }


async def test_a_directory_of_another_mode_is_a_difference(sandboxes, source):
    assert await changes_after(sandboxes, source, "chmod 700 keep; echo z > src/new; chmod 755 src") == {
        "keep": FileChange("keep", "directory", 0o700),
        "src/new": FileChange("src/new", "file", 0o644, b"z\n"),
    }


async def test_every_one_of_many_deleted_files_is_a_difference(sandboxes, source):
    found = await changes_after(sandboxes, source, "rm README src/a.py src/b.py old/x keep/z")
    assert {path: change.kind for path, change in found.items()} == dict.fromkeys(
        ("README", "src/a.py", "src/b.py", "old/x", "keep/z"), "deleted"
    )


async def test_a_replaced_directory_deletes_all_that_the_base_has_in_it(sandboxes, source):
    assert await changes_after(sandboxes, source, "rm -r old; mkdir old; echo X > old/x; echo n > old/n") == {
        "old/x": FileChange("old/x", "file", 0o644, b"X\n"),
        "old/n": FileChange("old/n", "file", 0o644, b"n\n"),
        "old/deep": FileChange("old/deep", "deleted"),
        "old/deep/y": FileChange("old/deep/y", "deleted"),
    }


async def test_links_and_special_files_are_differences_of_their_own_kind(sandboxes, source):
    script = "ln -s ../README src/link; rm -r keep; ln -s /etc/passwd keep; mkfifo pipe; ln README hard; rm -r old; echo now > old"
    found = await changes_after(sandboxes, source, script)
    assert found["src/link"] == FileChange("src/link", "symlink", content=b"../README")
    assert found["keep"] == FileChange("keep", "symlink", content=b"/etc/passwd")
    assert (found["pipe"].kind, found["old"].content) == ("other", b"now\n")
    assert (found["hard"].content, found["hard"].kind) == (b"read me\n", "file")
    assert found.keys() <= {"src/link", "keep", "pipe", "hard", "old", "README"}


async def test_differences_of_closed_files_are_read_too(sandboxes, source):
    found = await changes_after(sandboxes, source, "mkdir c; echo s > c/f; chmod 000 c/f c src; chmod 000 README")
    assert found["c/f"] == FileChange("c/f", "file", 0, b"s\n")
    assert [(found[path].kind, found[path].mode) for path in ("c", "src", "README")] == [("directory", 0), ("directory", 0), ("file", 0)]


async def test_differences_are_taken_while_writers_stand_still(sandboxes, box):
    await box.start(python_command(WRITER + "write()"))
    while len(await box.files.list()) < 150:
        await asyncio.sleep(0.02)
    rounds = [int(change.content) for change in await box.files.diff() if change.content]
    assert rounds == sorted(rounds, reverse=True) and max(rounds) - min(rounds) <= 1
    started = time.monotonic()
    assert await printed(box, "print(1)") == "1" and time.monotonic() - started < 20
