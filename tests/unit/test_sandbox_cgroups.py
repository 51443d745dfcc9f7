"""Which cgroups a host has, read from its mounts, and what is written into them; the kernel's own are used by the integration tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.sandbox.cgroups import CgroupTree
from trunkline.types import SandboxLimits

LIMITS = SandboxLimits(memory_bytes=2**28, num_processes=50, cpus=0.5)
MEMORY = str(2**28)


def v2(place: Path, *controllers: str) -> str:
    """A line of /proc/self/mounts, and what the kernel shows there."""
    place.mkdir()
    (place / "cgroup.controllers").write_text(" ".join(controllers))
    return f"cgroup2 {place} cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n"


def v1(place: Path, options: str) -> str:
    """A line of /proc/self/mounts for a hierarchy that refuses us: its directory is not there."""
    return f"cgroup {place} cgroup rw,nosuid,nodev,noexec,relatime,{options} 0 0\n"


def probed(mounts: str) -> CgroupTree:
    return CgroupTree.probe("owner", "proc /proc proc rw 0 0\ntmpfs /sys/fs/cgroup tmpfs ro,mode=755 0 0\n" + mounts)


def test_a_host_without_cgroups_has_none_and_says_so():
    assert probed("") == CgroupTree("none", {}, "no cgroup file system is mounted")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's branch is named by its own cgroup; only root makes cgroups at the top")
def test_a_host_with_v2_only_is_tried_at_its_top(tmp_path):
    mounts = v2(tmp_path / "cg", "cpuset", "cpu", "io", "memory", "pids")
    (tmp_path / "cg" / "trunkline-owner").touch()  # refuses us
    assert probed(mounts).reason == f"v2: File exists ({tmp_path}/cg/trunkline-owner)"


def test_a_hybrid_host_is_tried_with_v1_where_the_controllers_are(tmp_path):
    mounts = "".join(v1(tmp_path / name, name) for name in ("cpu", "cpuacct", "memory", "pids", "freezer"))
    tree = probed(v2(tmp_path / "unified", "hugetlb") + mounts)
    assert (tree.version, tree.reason) == ("none", f"v1: No such file or directory ({tmp_path}/cpu/trunkline-owner)")


def test_a_host_with_v1_may_mount_controllers_together(tmp_path):
    mounts = v1(tmp_path / "memory", "memory") + v1(tmp_path / "pids", "pids") + v1(tmp_path / "cpu,cpuacct", "cpu,cpuacct")
    assert probed(mounts).reason.startswith("v1: ")


def test_a_host_whose_v1_lacks_a_controller_has_none(tmp_path):
    mounts = v1(tmp_path / "memory", "memory") + v1(tmp_path / "cpu", "cpu") + v1(tmp_path / "systemd", "name=systemd")
    assert probed(mounts).reason == "no cgroup file system is mounted"


def test_all_that_was_tried_is_named(tmp_path):
    mounts = v2(tmp_path / "cg", "memory", "pids", "cpu")
    (tmp_path / "cg" / "trunkline-owner").touch()
    reason = probed(mounts + "".join(v1(tmp_path / name, name) for name in ("cpu", "memory", "pids"))).reason
    assert reason.startswith("v2: ") and "; v1: " in reason


def test_v2_limits_are_files_of_one_directory(tmp_path):
    cgroup = CgroupTree("v2", dict.fromkeys(("memory", "pids", "cpu"), tmp_path), "").create("box", LIMITS)
    assert cgroup.join_files == (tmp_path / "box" / "cgroup.procs",)
    written = {path.name: path.read_text() for path in (tmp_path / "box").iterdir()}
    assert written == {"memory.max": MEMORY, "pids.max": "50", "cpu.max": "50000 100000"}


def test_v1_limits_are_files_of_one_directory_a_controller(tmp_path):
    roots = {controller: tmp_path / controller for controller in ("memory", "pids", "cpu")}
    for root in roots.values():
        root.mkdir()
    cgroup = CgroupTree("v1", roots, "").create("box", LIMITS)
    assert [path.parent for path in cgroup.join_files] == [root / "box" for root in roots.values()]
    written = {path.name: path.read_text() for root in roots.values() for path in (root / "box").iterdir()}
    period = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}
    assert written == {"memory.limit_in_bytes": MEMORY, "pids.max": "50", **period}


@pytest.mark.parametrize(
    ("file", "text"), [("memory.events", "low 0\noom 3\noom_kill 2\n"), ("memory.oom_control", "under_oom 0\noom_kill 2\n")]
)
def test_kills_for_memory_are_counted(tmp_path, file, text):
    cgroup = CgroupTree("v2", {"memory": tmp_path}, "").create("box", LIMITS)
    assert cgroup.num_oom_kills() == 0
    (tmp_path / "box" / file).write_text(text)
    assert cgroup.num_oom_kills() == 2


def test_closing_removes_what_killed_sandboxes_left(tmp_path):
    root = tmp_path / "trunkline-owner"
    (root / "7").mkdir(parents=True)
    (root / "8").mkdir()
    CgroupTree("v2", {"memory": root, "pids": root}, "").close()
    assert not root.exists()


def test_the_kernels_own_cgroups_here_are_used_or_the_reason_is_given():
    tree = CgroupTree.probe(f"test-{os.getpid()}")
    try:
        assert (tree.version in ("v1", "v2")) == bool(tree.roots) == (not tree.reason)
        if tree.roots:
            cgroup = tree.create("box", LIMITS)
            assert all(file.exists() for file in cgroup.join_files) and cgroup.num_oom_kills() == 0
            cgroup.remove()
            assert not any(folder.exists() for folder in cgroup.folders)
    finally:
        tree.close()
    assert not any(root.exists() for root in tree.roots.values())
