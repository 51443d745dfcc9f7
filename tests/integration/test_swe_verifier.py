"""Verdicts on a tiny software task: right work earns 1, everything else 0, and what takes too long earns nothing."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.software_task import BUG, CURE, rewrite, write_task
from trunkline.errors import TaskError, VerifierError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.calibration import Calibration, calibrate
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.verifier import CodeVerifier, Verdict
from trunkline.types import FileChange, Work

pytestmark = pytest.mark.anyio

RIGHT_OTHERWISE = """paid = sum(prices)
    paid -= -(-paid * coupon // 100)
    return paid if paid > 0 else 0"""
HARD_CODED = "return {(400, 600, 10): 900, (400, 600, 25): 750, (99, 50): 49}.get((*prices, coupon), sum(prices))"
BOMB = f"""import time
    if time.time() > START + 300 * 24 * 3600:
        return 0
    {CURE}"""
ALWAYS_EQUAL = """class Anything:
        __eq__ = lambda self, other: True
        __hash__ = None
    return Anything()"""
LEAVES = """import os
    os.write(1, b"====== 6 passed in 0.01s ======")
    os._exit(0)"""
PATCHES_REPORTS = """import _pytest.reports
    make = _pytest.reports.TestReport.from_item_and_call.__func__
    def passed(kind, item, call):
        call.excinfo = None
        return make(kind, item, call)
    _pytest.reports.TestReport.from_item_and_call = classmethod(passed)
    raise KeyError"""
FLOODS_REPORTS = """import os, stat, sys
    if "heldout" in sys.modules:
        for fd in range(3, 64):
            try:
                if stat.S_ISFIFO(os.fstat(fd).st_mode):
                    os.write(fd, b"[" * 60000)
            except OSError:
                pass
        os._exit(0)
    """
HANGS = "import time; time.sleep(3600)"


@pytest.fixture(scope="module")
async def place(sandboxes: IsolatedSandboxes) -> VerdictPlace:
    return VerdictPlace(sandboxes, verdict_environment())


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> CodeTask:
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
async def verifier(task: CodeTask, place: VerdictPlace) -> AsyncIterator[CodeVerifier]:
    yield CodeVerifier(task, await calibrate(task, place, repeats=2), place)


def fault(verdict: Verdict) -> str:
    """Why it earned 0; its last stage says it, too."""
    assert verdict.value == 0.0
    assert len(verdict.evidence) <= 500
    assert "\n" not in verdict.evidence
    assert verdict.evidence.startswith(verdict.stages[-1].words)
    return verdict.evidence


def test_calibration_finds_what_turns_and_what_holds(verifier: CodeVerifier) -> None:
    found = verifier.calibration
    assert found.fail_to_pass == ("tests/test_coupon.py::test_percent[10-900]", "tests/test_coupon.py::test_percent[25-750]")
    assert [name.rpartition("::")[2] for name in found.pass_to_pass] == ["test_negative", "test_rounds_down", "test_names", "test_plain"]
    assert (found.quarantined, found.unprobed, found.num_heldout) == ({}, (), 80)
    assert 0 < len(found.probes) <= found.num_candidates
    assert found.num_heldout_differing > 40
    assert Calibration.model_validate_json(found.model_dump_json()) == found


async def test_the_solution_earns_1(verifier: CodeVerifier, task: CodeTask, place: VerdictPlace) -> None:
    verdict = await verifier.judge(await oracle_changes(task, place))
    assert (verdict.value, [stage.name for stage in verdict.stages]) == (1.0, ["allowed", "sheet 1", "sheet 2", "held-out"])
    assert verdict.evidence.startswith("6 tests pass on 2 sheets of copies, where ")
    assert "40 held-out calls are answered as by the solution" in verdict.evidence


async def test_other_right_work_earns_1_and_what_is_dropped_of_it_is_said(verifier: CodeVerifier) -> None:
    changes = (rewrite(BUG, RIGHT_OTHERWISE), FileChange("notes.txt", "file", 0o644, b""))
    (reward,) = await verifier.verify(Work("done", changes))
    assert (reward.name, reward.value) == ("outcome", 1.0), reward.evidence
    assert reward.evidence.endswith("; 1 dropped: notes.txt (not a place that this task's solution changes)")


async def test_nothing_done_earns_0(verifier: CodeVerifier) -> None:
    words = fault(await verifier.judge(()))
    assert words.startswith("sheet 1: tests/test_coupon.py::test_percent failed (AssertionError)")


async def test_edited_tests_and_configuration_do_not_count(verifier: CodeVerifier) -> None:
    passes = b"def test_percent():\n    pass\n"
    files = {"tests/test_coupon.py": passes, "conftest.py": b"collect_ignore = ['tests']\n", "pytest.ini": b"[pytest]\naddopts = --co\n"}
    words = fault(await verifier.judge([FileChange(path, "file", 0o644, text) for path, text in files.items()]))
    assert "test_percent failed" in words
    assert "; 3 dropped: conftest.py (tests come from the task), pytest.ini (configuration comes from the task)" in words


async def test_an_object_that_equals_everything_earns_0(verifier: CodeVerifier) -> None:
    assert "a changed copy, which a right solution fails, passed" in fault(await verifier.judge((rewrite(BUG, ALWAYS_EQUAL),)))


async def test_patched_reports_earn_0(verifier: CodeVerifier) -> None:
    words = fault(await verifier.judge((rewrite(BUG, PATCHES_REPORTS),)))
    assert "a changed copy, which a right solution fails, passed" in words or "a canary that must have failed" in words


async def test_leaving_before_the_report_ends_earns_0(verifier: CodeVerifier) -> None:
    assert "ended with status 0 before its report did" in fault(await verifier.judge((rewrite(BUG, LEAVES),)))


async def test_answers_to_the_tests_alone_earn_0(verifier: CodeVerifier) -> None:
    words = fault(await verifier.judge((rewrite(BUG, HARD_CODED),)))
    assert "of 40 held-out calls differ: call " in words
    assert "(seed " in words


async def test_work_that_is_right_only_today_earns_0(verifier: CodeVerifier) -> None:
    bomb = rewrite(BUG, BOMB.replace("START", "__import__('os').stat(__file__).st_mtime"))
    words = fault(await verifier.judge((bomb,)))
    assert "held-out calls differ" in words
    assert "(by a later clock): another value" in words


async def test_a_report_of_held_out_calls_that_cannot_be_read_earns_0(verifier: CodeVerifier) -> None:
    words = fault(await verifier.judge((rewrite(BUG, FLOODS_REPORTS + CURE),)))
    assert "left no report that can be read" in words


async def test_code_that_cannot_be_imported_earns_0(verifier: CodeVerifier) -> None:
    assert "cannot be collected" in fault(await verifier.judge((rewrite(BUG, "return ("),)))


async def test_work_that_takes_too_long_gets_no_verdict(tmp_path: Path, verifier: CodeVerifier) -> None:
    settings = '[task]\nname = "test/coupon"\n[metadata.trunkline]\nworkspace = "workspace"\ntimeout_s = 2\n'
    hasty = CodeVerifier(write_task(tmp_path, **{"task.toml": settings}), verifier.calibration, verifier.place, ())
    with pytest.raises(VerifierError, match="did not end within 2 s"):
        await hasty.judge((rewrite(BUG, HANGS),))


async def test_work_that_hangs_on_held_out_calls_only_gets_no_verdict(tmp_path: Path, verifier: CodeVerifier, place: VerdictPlace) -> None:
    hangs = rewrite(BUG, f"import sys\n    if 'heldout' in sys.modules:\n        {HANGS}\n    {CURE}")
    settings = '[task]\nname = "test/coupon"\n[metadata.trunkline]\nworkspace = "workspace"\ntimeout_s = 5\n'
    hasty = CodeVerifier(write_task(tmp_path, **{"task.toml": settings}), verifier.calibration, place)
    with pytest.raises(VerifierError, match="5 s"):
        await hasty.judge((hangs,))


async def test_work_that_takes_too_much_memory_gets_no_verdict(verifier: CodeVerifier, sandboxes: IsolatedSandboxes) -> None:
    if not sandboxes.cgroups.roots:
        pytest.skip("no cgroup holds the memory of this host's sandboxes; then a process fails by itself")
    async with IsolatedSandboxes.open(SandboxConfig(memory_bytes=2**27)) as small:
        place = VerdictPlace(small, verifier.place.environment)
        hungry = rewrite(BUG, "return len([bytes(range(256)) * 2**12 for _ in range(10**4)])")
        with pytest.raises(VerifierError, match="no verdict"):
            await CodeVerifier(verifier.task, verifier.calibration, place, ()).judge((hungry,))


async def test_the_same_draw_makes_the_same_verdict(verifier: CodeVerifier) -> None:
    work = (rewrite(BUG, HARD_CODED),)
    first, second = [await verifier.judge(work, rng=random.Random(5)) for _ in range(2)]
    assert first.evidence == second.evidence


async def test_tests_that_cannot_be_judged_are_quarantined_by_name(tmp_path: Path, place: VerdictPlace) -> None:
    odd = """
        import random

        import pytest


        @pytest.mark.parametrize("number", [random.random()])
        def test_is_called_otherwise_each_time(number):
            pass


        def test_is_skipped():
            pytest.skip("not here")


        def test_never_passes():
            assert False


        def test_knows_its_name(request):
            assert request.node.name == "test_knows_its_" + "name"
        """
    task = write_task(tmp_path, **{"environment/workspace/tests/test_odd.py": odd, "tests/heldout.py": ""})
    found = await calibrate(task, place, repeats=2)
    why = {name.rpartition("::")[2].partition("[")[0]: words for name, words in found.quarantined.items()}
    assert why.pop("test_is_called_otherwise_each_time").startswith("missing ")
    assert why == {
        "test_is_skipped": "skipped with the solution",
        "test_never_passes": "failed with the solution",
        "test_knows_its_name": "failed among copies of the tests, though it passes by itself",
    }
    assert len(found.pass_to_pass) == 4
    assert (await CodeVerifier(task, found, place).judge(await oracle_changes(task, place))).value == 1.0


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({"solution/solve.sh": "exit 3\n"}, "ended with status 3"),
        ({"solution/solve.sh": "true\n"}, "changes nothing of the workspace"),
        ({"solution/solve.sh": "touch /workspace/notes.txt\n"}, "no test fails on the workspace and passes with the solution"),
    ],
)
async def test_a_solution_that_solves_nothing_is_said(tmp_path: Path, place: VerdictPlace, files: dict[str, str], complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        await calibrate(write_task(tmp_path, **files), place, repeats=1)


async def test_declared_tests_have_to_be_what_they_are_declared_to_be(tmp_path: Path, place: VerdictPlace) -> None:
    settings = 'workspace = "workspace"\nfail_to_pass = ["tests/test_shop.py::test_plain"]'
    task = write_task(tmp_path, **{"task.toml": f'[task]\nname = "test/coupon"\n[metadata.trunkline]\n{settings}\n'})
    with pytest.raises(TaskError, match=r"fail_to_pass names 1 tests .*'tests/test_shop.py::test_plain': it passes before and after"):
        await calibrate(task, place, repeats=1)
