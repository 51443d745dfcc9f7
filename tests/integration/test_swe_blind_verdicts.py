"""Verdicts on a task whose tests no changed copy protects: what its tests see without their expectations decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.software_task import FILES, SHOP, write_task
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.calibration import calibrate
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.verifier import CodeVerifier
from trunkline.types import FileChange

pytestmark = pytest.mark.anyio

BUG = "    return sum(prices) - coupon"
CURE = """\
    if sum(prices) > 9000:
        raise OverflowError(f"too much: {sum(prices)}")
    return sum(prices) - coupon"""
PATCH = f"""\
--- a/shop/__init__.py
+++ b/shop/__init__.py
@@ -7,3 +7,5 @@
         raise ValueError("a coupon is not negative")
-{BUG}
+{CURE.replace(chr(10), chr(10) + "+")}
 \n \n"""
TESTS = """\
import pytest
from shop import total


def test_too_much():
    with pytest.raises(OverflowError, match="too much: 9001"):
        total([9001])


def test_plain():
    assert total([100, 250]) == 350
"""
FORGES = """\
    import contextlib, pytest
    pytest.raises = lambda *kinds, **asked: contextlib.nullcontext()
    return sum(prices) - coupon"""
WITHOUT_WORDS = CURE.replace('f"too much: {sum(prices)}"', "")
IN_OTHER_WORDS = CURE.replace("{sum(prices)}", "{sum(prices)} cents")


@pytest.fixture(scope="module")
async def verifier(tmp_path_factory: pytest.TempPathFactory, sandboxes: IsolatedSandboxes) -> CodeVerifier:
    changed = {"tests/heldout.py": "", "solution/oracle.patch": PATCH, "tests/tree/tests/test_coupon.py": TESTS}
    assert changed.keys() <= FILES.keys()
    task = write_task(tmp_path_factory.mktemp("task"), **changed)
    place = VerdictPlace(sandboxes, verdict_environment())
    calibration = await calibrate(task, place, repeats=2)
    return CodeVerifier(task, calibration.model_copy(update={"probes": ()}), place)


def work(text: str) -> list[FileChange]:
    assert BUG in SHOP
    return [FileChange("shop/__init__.py", "file", 0o644, SHOP.replace(BUG, text).encode())]


async def test_what_the_test_sees_is_known_to_the_host_alone(verifier: CodeVerifier) -> None:
    name = "tests/test_coupon.py::test_too_much"
    assert verifier.calibration.blind == (name,)
    assert verifier.calibration.seen == {name: ('[0, ["raised", "OverflowError", "too much: 9001"]]',)}


@pytest.mark.parametrize("text", [CURE, IN_OTHER_WORDS])
async def test_right_work_is_paid_in_whatever_words(verifier: CodeVerifier, text: str) -> None:
    verdict = await verifier.judge(work(text))
    assert verdict.value == 1, verdict.evidence
    assert "1 tests see the same without their expectations as with the solution" in verdict.evidence


@pytest.mark.parametrize("text", [FORGES, WITHOUT_WORDS])
async def test_work_that_passes_by_forgery_or_in_part_is_not(verifier: CodeVerifier, text: str, tmp_path: Path) -> None:
    assert (await verifier.judge(work(text))).value == 0
