"""Tricks with files of a sandbox: links, swaps, odd names and deep trees never lead to the host's files nor stay behind."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.integration.sandbox_scene import created, open_folder, printed, python_command, shell, until
from trunkline.errors import FileAccessError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.types import Command, FileChange

pytestmark = pytest.mark.anyio


@pytest.fixture
def victim():
    """A directory of the host with files that anybody may read, and a word that is in all of them."""
    word = f"secret-{uuid.uuid4().hex}"
    with open_folder() as folder:
        for name in ("one", "two"):
            (folder / name).write_text(word)
            (folder / name).chmod(0o666)
        folder.chmod(0o777)
        yield folder
        assert sorted(path.name for path in folder.iterdir()) == ["one", "two"]
        assert {path.read_text() for path in folder.iterdir()} == {word}


async def test_links_that_point_to_the_host_lead_to_nothing(box, victim):
    await shell(box, f"ln -s {victim}/one direct; ln -s {victim} folder; ln -s ../../../../../../../..{victim}/one up; ln -s / root")
    for path in (
        "direct",
        "folder/one",
        "up",
        f"root{victim}/one",
        f"../../../..{victim}/one",
        f"/proc/self/root{victim}/one",
        f"{victim}/one",
    ):
        with pytest.raises(FileAccessError, match="No such file"):
            await box.files.read(path)
        with pytest.raises(FileAccessError):
            await box.files.write(path, b"overwritten")
        with pytest.raises(FileAccessError):
            await box.files.list(os.path.dirname(path) + "/" if "/" in path else path)


async def test_a_file_swapped_for_a_link_while_it_is_read_and_written_shows_nothing_of_the_host(box, victim):
    swap = f"""
        import os
        while True:
            for target in (None, "{victim}/one", "/etc/passwd"):
                if target is None:
                    open("new", "w").write("mine")
                else:
                    os.symlink(target, "new")
                os.rename("new", "x")
    """
    service = await box.start(python_command(swap, timeout_s=None))
    seen = set()
    for _ in range(200):
        try:
            await box.files.write("x", b"host")
            seen.add((await box.files.read("x"))[:4])
        except FileAccessError:
            pass
    assert (await service.peek())[0] is None
    assert seen <= {b"mine", b"host", b"root", b""}  # /etc/passwd inside is the sandbox's own


async def test_a_directory_swapped_for_a_link_while_it_is_watched_forked_and_removed_leads_nowhere(sandboxes, victim):
    swap = f"""
        import os
        os.makedirs("real/deep"); open("real/deep/file", "w").write("mine"); os.symlink("{victim}", "link")
        while True:
            for one, other in (("real", "d"), ("d", "real"), ("link", "d"), ("d", "link")):
                os.rename(one, other)
    """
    async with created(sandboxes) as box:
        await asyncio.gather(
            *(box.start(python_command(swap, cwd=place, timeout_s=None)) for place in ("/workspace", "/tmp", "/home/agent"))
        )
        assert await until(lambda: (box.folder / "tmp" / "link").is_symlink() or (box.folder / "tmp" / "d").is_symlink())
        for _ in range(5):
            await asyncio.sleep(0.1)
            child = await sandboxes.fork(box)
            assert "secret" not in await shell(child, "cat */* */*/* 2>/dev/null; true")
            await child.destroy()
            assert all(b"secret" not in change.content or change.kind == "symlink" for change in await box.files.diff())


async def test_differences_show_a_link_never_what_it_points_to(sandboxes, victim):
    async with created(sandboxes, victim) as box:
        await shell(box, f"rm one; ln -s {victim}/one one; ln -s {victim} folder; ln one hard")
        changes = {change.path: change for change in await box.files.diff()}
    target = f"{victim}/one".encode()
    assert changes["one"] == FileChange("one", "symlink", content=target)
    assert changes["hard"] == FileChange("hard", "symlink", content=target)
    assert changes["folder"] == FileChange("folder", "symlink", content=str(victim).encode())


async def test_a_link_of_the_workspace_that_became_a_directory_does_not_list_the_host(sandboxes, victim, tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "data").symlink_to(victim)
    async with created(sandboxes, tmp_path / "repo") as box:
        await shell(box, "rm data; mkdir data data/one; echo mine > data/new")
        changes = await box.files.diff()
    assert [(change.path, change.kind) for change in changes] == [("data", "directory"), ("data/new", "file"), ("data/one", "directory")]


async def test_a_workspace_is_copied_with_its_links_not_with_what_they_point_to(sandboxes, victim, tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "link").symlink_to(victim / "one")
    async with created(sandboxes, tmp_path / "repo") as box:
        assert await shell(box, "readlink link; cat link 2>/dev/null || echo nothing") == f"{victim}/one\nnothing"


async def test_attributes_that_mean_something_to_the_overlay_cannot_be_set_from_inside(sandboxes, victim):
    code = """
        import os
        os.mkdir("d")
        for name, value in (("opaque", b"y"), ("redirect", b"/usr"), ("metacopy", b""), ("whiteout", b"y"), ("origin", b"x")):
            for prefix in ("user.overlay.", "trusted.overlay."):
                try:
                    os.setxattr("d", prefix + name, value)
                except OSError:
                    continue
                print(os.getxattr("d", prefix + name) == value)
    """
    async with created(sandboxes, victim) as box:
        assert set((await printed(box, code)).split()) <= {"True"}
        raw = os.listxattr(box.folder / "upper" / "d")
        child = await sandboxes.fork(box)
        assert await shell(child, "ls") == "d\none\ntwo"
        await child.destroy()
    assert not {"user.overlay.redirect", "user.overlay.metacopy", "trusted.overlay.redirect"} & set(raw)


async def test_names_of_all_bytes_and_of_the_greatest_length_are_compared_forked_and_removed(sandboxes):
    code = """
        import os
        every = bytes(range(1, 47)) + bytes(range(48, 256))
        for name in (b"\\xff\\xfe\\n" * 85, b"-rf", b"* ?[a]", b"\\\\", b"new\\nline", b"tab\\t", every, b"a=b"):
            open(name, "wb").write(name)
            os.mkdir(b"d" + name[:254])
            os.symlink(name, b"l" + name[:254])
        print(len(os.listdir(b".")))
    """
    async with created(sandboxes) as box:
        assert await printed(box, code) == "24"
        changes = await box.files.diff()
        assert len(changes) == len(await box.files.list()) == 24
        for change in changes:
            if change.kind == "file":
                assert os.fsencode(change.path) == change.content
                assert await box.files.read(change.path) == change.content
        child = await sandboxes.fork(box)
        assert await child.files.diff() == changes
        await child.destroy()
    assert not box.folder.exists() and not child.folder.exists()


DEEP = """
    import os, sys
    for _ in range(int(sys.argv[1])):
        os.mkdir("deep")
        os.chdir("deep")
    open("end", "w").write("end")
"""


async def test_a_tree_deeper_than_this_process_may_recurse_is_compared_forked_and_removed(sandboxes):
    async with created(sandboxes) as box:
        await printed(box, DEEP, 300)
        await printed(box, DEEP, 300, cwd="/tmp")
        changes = await box.files.diff()
        assert len(changes) == 301 and changes[-1].content == b"end"
        child = await sandboxes.fork(box)
        assert await child.files.diff() == changes
        await child.destroy()
    assert not box.folder.exists() and not child.folder.exists()


async def test_closed_and_sticky_things_are_removed(sandboxes):
    script = "for d in . ~ /tmp; do cd $d; mkdir -p a/b; echo x > a/b/c; mkfifo a/p; chmod 000 a/b/c a/b; chmod 1000 a; chmod 500 .; done"
    async with created(sandboxes) as box:
        await shell(box, script)
    assert not box.folder.exists()


async def test_a_socket_and_a_pipe_in_the_workspace_stop_no_copy_and_no_comparison(sandboxes):
    code = """
        import os, socket
        socket.socket(socket.AF_UNIX).bind("socket")
        os.mkfifo("pipe")
    """
    async with created(sandboxes) as box:
        await printed(box, code)
        assert [change.path for change in await asyncio.wait_for(box.files.diff(), 20) if change.path != "socket"] == ["pipe"]
        child = await asyncio.wait_for(sandboxes.fork(box), 20)
        assert [(entry.name, entry.kind) for entry in await child.files.list()] == [("pipe", "other"), ("socket", "other")]
        await child.destroy()


async def test_hard_links_to_what_is_not_the_agents_are_refused(box):
    result = await box.run(Command.shell("ln /etc/passwd hard; ln /usr/bin/env /tmp/hard; ls; ls /tmp"))
    assert b"hard" not in result.stdout


async def test_a_toolchain_below_tmp_is_visible_and_a_forks_links_do_not_lead_its_mount_astray(tmp_path):
    """A clone in /tmp is where many people try things."""
    with tempfile.TemporaryDirectory(prefix="toolchain-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "deep").mkdir()
        (Path(folder) / "deep" / "note").write_text("shown")
        target = tmp_path / "target"
        target.mkdir()
        target.chmod(0o777)
        async with IsolatedSandboxes.open(SandboxConfig(), toolchain=[Path(folder)]) as sandboxes:
            box = await sandboxes.create(await sandboxes.prepare(None))
            assert await shell(box, f"cat {folder}/deep/note") == "shown"
            assert (await box.run(Command.shell(f"echo x > {folder}/deep/note"))).status != 0
            snapshot = await box.snapshot()
            planted = Path(snapshot.location) / "tmp" / Path(folder).name
            planted.rmdir()
            planted.symlink_to(f"/oldroot{target}")
            again = await sandboxes.create(snapshot)
            assert await shell(again, f"cat {folder}/deep/note") == "shown"
        assert list(target.iterdir()) == []
