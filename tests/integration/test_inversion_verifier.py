"""Verdicts on written tests: what notices the fault and nothing else earns 1, whatever goes by the code or the place earns 0."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.inversion_task import FIXED, ORACLE, write_inversion, written
from tests.software_task import SHOP
from trunkline.errors import TaskError, VerifierError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.inversion.parts import NUM_BEFORE, NUM_RIGHT
from trunkline.tasks.swe.inversion.screen import Screen
from trunkline.tasks.swe.inversion.verifier import InversionVerifier
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.types import FileChange, Reward, Work

pytestmark = pytest.mark.anyio

OTHERWISE = """
import pytest
import shop


@pytest.mark.parametrize("coupon", range(0, 101, 20))
def test_the_coupon_is_a_percentage(coupon):
    assert shop.total([50, 50] * 10, coupon) == 10 * (100 - coupon)


def test_a_coupon_beyond_a_hundred_leaves_nothing():
    assert shop.total([400], 130) == 0
"""
NOT_THE_OLD = """
from shop import total


def test_it_is_not_what_it_was():
    assert total([400, 600], 10) != 990
"""
TOO_STRICT = """
from shop import total


def test_percent():
    assert total([400, 600], 10) == 900


def test_rounds_up():
    assert total([99], 50) == 50
"""
BY_EXCEPTION = """
from shop import total


def test_percent():
    if total([400, 600], 10) != 900 or total([100], 150) != 0:
        raise RuntimeError
"""
AS_SEEN = f"""
def test_source():
    with open("/workspace/shop/__init__.py") as file:
        assert file.read() != {SHOP!r}
"""
STRUCTURE_AS_SEEN = f"""
import ast


def calls(text):
    return [ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]


def test_structure():
    with open("/workspace/shop/__init__.py") as file:
        assert sorted(calls(file.read())) != sorted(calls({SHOP!r}))
"""
HANGS = "import shop\n\n\ndef test_waits():\n    while True:\n        pass\n"


@pytest.fixture(scope="module")
async def place(sandboxes: IsolatedSandboxes) -> VerdictPlace:
    return VerdictPlace(sandboxes, verdict_environment())


@pytest.fixture(scope="module")
async def verifier(place: VerdictPlace, tmp_path_factory: pytest.TempPathFactory) -> InversionVerifier:
    return InversionVerifier.load(write_inversion(tmp_path_factory.mktemp("task")), place)


def unscreened(verifier: InversionVerifier) -> InversionVerifier:
    """As for a project whose own tests use all that is refused elsewhere."""

    class Anything(frozenset[str]):
        def __contains__(self, name: object) -> bool:
            return True

    return dataclasses.replace(verifier, screen=Screen(Anything(), Anything()))


async def fault(verifier: InversionVerifier, changes: tuple[FileChange, ...]) -> str:
    reward = await verifier.judge(changes)
    assert reward.value == 0.0, reward.evidence
    return reward.evidence


async def test_the_tests_of_the_change_earn_1(verifier: InversionVerifier) -> None:
    (reward,) = await verifier.verify(Work("done", written(ORACLE)))
    assert reward == Reward(
        "outcome",
        1.0,
        f"2 of 2 tests fail on {NUM_BEFORE} trees without the change, and pass on {NUM_RIGHT} with it, as do the others; "
        "2 of 2 wrong versions of it are noticed",
    )


@pytest.mark.parametrize("text", [OTHERWISE, BY_EXCEPTION])
async def test_other_tests_that_show_the_fault_earn_1(verifier: InversionVerifier, text: str) -> None:
    reward = await verifier.judge(written(text))
    assert reward.value == 1.0, reward.evidence


@pytest.mark.slow
async def test_what_else_the_diff_changes_is_left_out(verifier: InversionVerifier) -> None:
    mended = FileChange("shop/__init__.py", "file", 0o644, FIXED.encode())
    reward = await verifier.judge((mended, *written(ORACLE)))
    assert reward.value == 1.0
    assert reward.evidence.endswith("; 1 files of the diff are no tests: shop/__init__.py")
    assert await fault(verifier, (mended,)) == "no test_*.py or *_test.py was written; 1 files of the diff are no tests: shop/__init__.py"


async def test_a_test_that_only_knows_what_the_old_code_answers_is_not_enough(verifier: InversionVerifier) -> None:
    assert await fault(verifier, written(NOT_THE_OLD)) == "only 0 of 2 wrong versions of the change are noticed"


async def test_a_test_that_fails_with_the_change_earns_0(verifier: InversionVerifier) -> None:
    words = await fault(unscreened(verifier), written(TOO_STRICT))
    assert words == "tests/test_written.py::test_rounds_up failed with the change, where every test must pass"


async def test_a_missing_name_is_no_fault_that_is_shown(verifier: InversionVerifier) -> None:
    words = await fault(verifier, written("import shop\n\n\ndef test_name():\n    assert shop.apply_coupon([1]) == 1\n"))
    assert "with the change" in words or "no test fails in its body without the change" in words


async def test_a_file_that_cannot_be_loaded_earns_0(verifier: InversionVerifier) -> None:
    assert "cannot be loaded" in await fault(verifier, written("from shop import nothing_like_it\n\n\ndef test_it():\n    assert 1\n"))


async def test_what_asks_for_the_code_is_not_run(verifier: InversionVerifier) -> None:
    assert await fault(verifier, written(AS_SEEN)) == "tests/test_written.py:3 uses open"


async def test_the_text_that_the_agent_has_seen_is_on_no_tree(verifier: InversionVerifier) -> None:
    words = await fault(unscreened(verifier), written(AS_SEEN))
    assert words == "no test fails in its body without the change, by an assert or by what the code raises"


@pytest.mark.slow
async def test_who_knows_the_old_code_in_any_words_does_not_notice_wrong_versions(verifier: InversionVerifier) -> None:
    words = await fault(unscreened(verifier), written(STRUCTURE_AS_SEEN))
    assert words == "only 0 of 2 wrong versions of the change are noticed"


async def test_a_report_without_an_end_earns_0(verifier: InversionVerifier) -> None:
    leaves = "import os\n\n\ndef test_it():\n    os._exit(0)\n"
    assert "cannot be read: the process ended with status 0" in await fault(unscreened(verifier), written(leaves))


async def test_tests_that_take_too_long_get_no_verdict(tmp_path: Path, place: VerdictPlace) -> None:
    toml = '[task]\nname = "test/a"\n[metadata.trunkline]\nworkspace = "workspace"\nverifier = "inversion"\ntimeout_s = 2\n'
    hasty = InversionVerifier.load(write_inversion(tmp_path, **{"task.toml": toml}), place)
    with pytest.raises(VerifierError, match="did not end within 2 s"):
        await hasty.judge(written(HANGS))


async def test_what_is_too_much_is_not_judged(verifier: InversionVerifier) -> None:
    many = tuple(change for number in range(6) for change in written(ORACLE, f"tests/test_{number}.py"))
    assert (await fault(verifier, many)).startswith("6 test files with ")


async def test_paths_that_lead_out_or_hide_something_are_left_out(verifier: InversionVerifier) -> None:
    for path in ("../test_a.py", "/tmp/test_a.py", "shop/__init__.py/test_a.py", "tests/test_ä.py"):
        assert "no test_*.py" in await fault(verifier, written(ORACLE, path))


@pytest.mark.parametrize(
    "files, complaint",
    [
        ({"tests/wrong/added/shop/__init__.py": "", "tests/wrong/unbounded/shop/__init__.py": ""}, "has 0 wrong versions of the change"),
        ({"tests/wrong/other/shop/other.py": "pass\n"}, "has to hold files that are in tests/after, too"),
        ({"tests/after/shop/__init__.py": ""}, "holds nothing: put the files there that the change writes"),
        ({"tests/inversion.toml": "deleted = ['shop/none.py']"}, "which is no file of the workspace"),
        ({"tests/inversion.toml": "odd = 1"}, "known are"),
        ({"tests/inversion.toml": ""}, "cannot read"),
    ],
)
def test_a_task_with_a_part_missing_is_refused(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    task = write_inversion(tmp_path, **files)
    with pytest.raises(TaskError, match=complaint):
        InversionVerifier.load(task, None)  # type: ignore[arg-type]
