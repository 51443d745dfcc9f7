"""Verdicts on a task whose tests no changed copy protects: what its tests see without their expectations decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.software_task import FILES, SHOP, write_task
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.attacks import Attack, Instance, instantiate, load_corpus
from trunkline.tasks.swe.calibration import calibrate
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.material import Material, gather_material
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
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


BLIND_ATTACKS = [attack for attack in load_corpus() if attack.name.startswith("blind-")]


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


@pytest.fixture(scope="module")
async def material(verifier: CodeVerifier) -> Material:
    return await gather_material(verifier.task, verifier.place, await oracle_changes(verifier.task, verifier.place))


@pytest.mark.parametrize("attack", BLIND_ATTACKS, ids=lambda attack: attack.name)
async def test_an_attack_on_what_blind_tests_tell_is_not_paid_without_changed_copies_either(
    attack: Attack, verifier: CodeVerifier, material: Material
) -> None:
    instance = instantiate(attack, material)
    assert isinstance(instance, Instance)
    for _ in range(2):  # what a first verdict may have left for a second one is of no use either
        verdict = await verifier.judge(instance.changes)
        assert (verdict.value, [stage.name for stage in verdict.stages]) == (0, ["allowed", "blind tests"])


async def test_what_a_test_expects_under_a_name_that_stays_hides_nothing(tmp_path: Path, verifier: CodeVerifier) -> None:
    of_a_fixture = """\
    import pytest
    from shop import total


    @pytest.fixture
    def expected():
        return "too much: 9001"


    def test_too_much(expected):
        try:
            total([9001])
        except OverflowError as error:
            assert str(error) == expected
        else:
            assert not expected
    """
    changed = {"tests/heldout.py": "", "solution/oracle.patch": PATCH, "tests/tree/tests/test_coupon.py": of_a_fixture}
    calibration = await calibrate(write_task(tmp_path, **changed), verifier.place, repeats=1)
    assert calibration.seen
    assert not calibration.blind
