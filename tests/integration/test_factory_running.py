"""Which tests a change turns, found by running them in real sandboxes; small projects, one fault each."""

from __future__ import annotations

import datetime as dt
import textwrap
from pathlib import Path

import pytest

from tests.plain_python import PlainPython, PlainRecipe
from trunkline.sandbox.isolated import IsolatedSandboxes, SandboxConfig
from trunkline.tasks.factory import running
from trunkline.tasks.factory.candidate import Candidate, Rejection, SourceText
from trunkline.tasks.factory.language import Recipe
from trunkline.tasks.factory.running import Found, find_tests

SHOP = "def total(prices):\n    return sum(prices)\n"
CURED = "def total(prices):\n    return max(0, sum(prices))\n"
TEST = "from shop import total\n\ndef test_total():\n    assert total([1, 2]) == 3\n"
MORE = TEST + "\ndef test_never_below_0():\n    assert total([-1]) == 0\n"
BEFORE = {"shop.py": SHOP, "tests/test_shop.py": TEST}
AFTER = {"shop.py": CURED, "tests/test_shop.py": MORE}

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def python(anyio_backend):
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        yield PlainPython(sandboxes)


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


async def found_in(python: PlainPython, folder: Path, before: dict[str, str], after: dict[str, str], **options) -> Found:
    title = options.pop("title", "Fix totals")
    candidate = Candidate("shop-1", "shop", "1", "2", dt.datetime(2021, 3, 1, tzinfo=dt.UTC), (SourceText("commit", title, ""),))
    trees = lay(folder / "before", before), lay(folder / "after", after)
    return await find_tests(python, candidate, *trees, **({"timeout_s": 20.0, "cap_s": 20.0} | options))


async def rejection_of(python: PlainPython, folder: Path, before: dict[str, str], after: dict[str, str], **options) -> tuple[str, str]:
    with pytest.raises(Rejection) as caught:
        await found_in(python, folder, before, after, **options)
    return caught.value.stage, caught.value.cause


async def test_tests_that_turn_and_tests_that_hold_are_told_apart(python, tmp_path):
    found = await found_in(python, tmp_path, BEFORE, AFTER)
    assert found.tested.fail_to_pass == ("tests/test_shop.py::test_never_below_0",)
    assert found.tested.pass_to_pass == ("tests/test_shop.py::test_total",)
    assert (found.tested.new_tests, found.test_files, found.kind) == ((), ("tests/test_shop.py",), "bug")
    assert [change.path for change in found.change.solution] == ["shop.py"]
    assert [change.path for change in found.change.hidden_tests] == ["tests/test_shop.py"]


async def test_near_test_files_of_others_are_judged_too(python, tmp_path):
    others = {"tests/test_other.py": "def test_holds(): pass\n", "benchmarks/test_speed.py": "def test_speed(): pass\n"}
    found = await found_in(python, tmp_path, BEFORE | others, AFTER | others)
    assert found.test_files == ("tests/test_shop.py", "tests/test_other.py")
    assert "tests/test_other.py::test_holds" in found.tested.pass_to_pass


@pytest.mark.slow
async def test_a_slow_file_of_others_is_left_out_by_name(python, tmp_path):
    slow = {"tests/test_slow.py": "import time\ndef test_slow(): time.sleep(2.5)\n"}
    found = await found_in(python, tmp_path, BEFORE | slow, AFTER | slow)
    assert (found.test_files, found.facts["left_out"]) == (("tests/test_shop.py",), "tests/test_slow.py")


async def test_slow_tests_that_hold_are_not_judged(python, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_MOST_SECONDS_HOLDING", 0.25)
    slow = "\nimport pytest, time\n@pytest.mark.parametrize('seconds', [0.1, 0.2])\ndef test_slow(seconds): time.sleep(seconds)\n"
    found = await found_in(python, tmp_path, BEFORE, AFTER | {"tests/test_shop.py": MORE + slow})
    assert found.tested.pass_to_pass == ("tests/test_shop.py::test_total",)
    assert found.facts["slow"] == "tests/test_shop.py::test_slow"


async def test_others_that_never_end_cost_no_task(python, tmp_path):
    endless = {"tests/test_endless.py": "while True: pass\n"}
    found = await found_in(python, tmp_path, BEFORE | endless, AFTER | endless, cap_s=3.0)
    assert found.test_files == ("tests/test_shop.py",)
    assert "more than 3 s" in found.facts["suite_cut"]


async def test_tests_of_a_module_that_is_new_turn(python, tmp_path):
    after = BEFORE | {"basket.py": "SIZE = 3\n", "tests/test_basket.py": "from basket import SIZE\ndef test_size(): assert SIZE == 3\n"}
    found = await found_in(python, tmp_path, BEFORE, after, title="Baskets")
    assert found.tested.fail_to_pass == ("tests/test_basket.py::test_size",)
    assert found.tested.new_tests == (), "its file cannot be loaded before"


async def test_a_test_that_is_not_there_before_though_its_file_is_loaded_is_new(python, tmp_path):
    test = "import pytest, shop\n@pytest.mark.parametrize('size', shop.SIZES)\ndef test_size(size): assert size\n"
    before = {"shop.py": "SIZES = [1]\n", "tests/test_shop.py": "import shop\n"}
    found = await found_in(python, tmp_path, before, {"shop.py": "SIZES = [1, 2]\n", "tests/test_shop.py": test}, title="Sizes")
    assert found.tested.new_tests == found.tested.fail_to_pass == ("tests/test_shop.py::test_size[2]",)
    assert found.kind == "feature"


async def test_tests_that_end_otherwise_each_time_are_quarantined(python, tmp_path):
    unsteady = MORE + "\nimport os, pytest\n@pytest.mark.parametrize('a', [os.urandom(8).hex()])\ndef test_unsteady(a): pass\n"
    found = await found_in(python, tmp_path, BEFORE, AFTER | {"tests/test_shop.py": unsteady})
    assert len(found.tested.quarantined) == 2
    assert not any("unsteady" in name for name in (*found.tested.fail_to_pass, *found.tested.pass_to_pass))


async def test_a_change_of_which_only_unsteady_tests_turn_is_rejected(python, tmp_path):
    unsteady = """
        import os, pytest
        from shop import total

        @pytest.mark.parametrize("a", [os.urandom(8).hex()])
        def test_unsteady(a): assert total([-1]) == 0
        """
    assert await rejection_of(python, tmp_path, BEFORE, AFTER | {"tests/test_shop.py": unsteady}) == ("run", "tests differ between runs")


async def test_a_test_that_is_named_by_the_clock_and_holds_says_nothing_of_the_change(python, tmp_path):
    clock = TEST + "\nimport os, pytest\n@pytest.mark.parametrize('a', [os.urandom(8).hex()])\ndef test_clock(a): pass\n"
    after = {"shop.py": SHOP + "A = 1\n", "tests/test_shop.py": clock}
    assert await rejection_of(python, tmp_path, BEFORE, after) == ("run", "no test turns")


async def test_a_change_that_turns_nothing_is_rejected(python, tmp_path):
    after = {"shop.py": SHOP + "A = 1\n", "tests/test_shop.py": TEST + "\ndef test_more(): pass\n"}
    assert await rejection_of(python, tmp_path, BEFORE, after) == ("run", "no test turns")


async def test_a_faster_solution_without_a_test_that_turns_is_rejected_as_such(python, tmp_path):
    after = {"shop.py": SHOP + "A = 1\n", "tests/test_shop.py": TEST + "\ndef test_more(): pass\n"}
    assert await rejection_of(python, tmp_path, BEFORE, after, title="Speed up totals") == ("run", "speed cannot be judged")


async def test_tests_that_fail_after_the_change_are_no_task(python, tmp_path):
    wrong = AFTER | {"tests/test_shop.py": "def test_wrong(): assert False\n"}
    assert await rejection_of(python, tmp_path, BEFORE, wrong) == ("run", "touched tests fail after the change")


async def test_tests_that_cannot_be_loaded_do_not_run(python, tmp_path):
    unloadable = AFTER | {"tests/test_shop.py": "import no_such_module\n"}
    assert await rejection_of(python, tmp_path, BEFORE, unloadable) == ("run", "tests do not run")


async def test_tests_that_never_end_before_the_change_are_out_of_time(python, tmp_path):
    before = BEFORE | {"shop.py": "def total(prices):\n    while prices[0] < 0: pass\n    return sum(prices)\n"}
    assert await rejection_of(python, tmp_path, before, AFTER, timeout_s=4.0) == ("run", "out of time")


async def test_a_change_of_helpers_alone_has_no_test_to_run(python, tmp_path):
    after = {"shop.py": CURED, "tests/test_shop.py": TEST, "tests/helpers.py": "A = 1\n"}
    assert await rejection_of(python, tmp_path, BEFORE, after) == ("run", "no test is changed")


async def test_the_first_recipe_under_which_the_tests_run_is_taken(python, tmp_path):
    in_src = {"src/shop.py": SHOP, "tests/test_shop.py": TEST}, {"src/shop.py": CURED, "tests/test_shop.py": MORE}
    ladder = PlainPython(python.sandboxes, roots=("lib", ".", "src"))
    found = await found_in(ladder, tmp_path, *in_src)
    assert (found.facts["recipe"], found.facts["recipes_tried"]) == ("modules from src", "3")


async def test_without_an_environment_the_last_log_is_told(python, tmp_path):
    with pytest.raises(Rejection, match="no environment builds.*there is no directory lib"):
        await found_in(PlainPython(python.sandboxes, roots=("lib",)), tmp_path, BEFORE, AFTER)


async def test_a_repair_is_asked_for_once_the_ladder_ends(python, tmp_path):
    asked: list[tuple[Recipe, str]] = []

    async def repair(recipe: Recipe, log: str) -> Recipe | None:
        asked.append((recipe, log))
        return recipe.changed({"root": "."})

    found = await found_in(PlainPython(python.sandboxes, roots=("lib",)), tmp_path, BEFORE, AFTER, repair=repair)
    assert asked == [(PlainRecipe("lib"), "there is no directory lib")]
    assert found.environment.recipe == PlainRecipe(".")


async def test_a_repair_that_gives_up_leaves_the_rejection(python, tmp_path):
    async def repair(recipe: Recipe, log: str) -> Recipe | None:
        return None

    ladder = PlainPython(python.sandboxes, roots=("lib",))
    assert await rejection_of(ladder, tmp_path, BEFORE, AFTER, repair=repair) == ("environment", "no environment builds")
