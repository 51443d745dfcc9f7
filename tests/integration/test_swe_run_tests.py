"""Sheets run by real pytest in real sealed sandboxes: what is reported, what surrounds a test, and what forgers get."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

import pytest

from tests.integration.sandbox_scene import open_folder
from trunkline.errors import VerifierError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.outcomes import TestRun, biting_probes, mismatches
from trunkline.tasks.swe.perturb import candidate_probes
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.run_tests import run_sheet
from trunkline.tasks.swe.sheets import Sheet, function_of, make_sheets, plain_sheet, probe_sheet
from trunkline.tasks.swe.task import CodeSettings

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def place(anyio_backend):
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        yield VerdictPlace(sandboxes, verdict_environment())


def lay(folder: Path, files: dict[str, str]) -> Path:
    """A tree that any user can write in, as lay_tree makes it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    return folder


async def run(place: VerdictPlace, tests: dict[str, str] | Sheet, files: dict[str, str] | None = None, **options) -> TestRun:
    """Runs tests, or a sheet, over a tree with these files."""
    sheet = tests if isinstance(tests, Sheet) else plain_sheet({name: textwrap.dedent(text) for name, text in tests.items()})
    timeout_s = options.pop("timeout_s", 30.0)
    with open_folder() as folder:
        tree = lay(folder, files or {})
        return await run_sheet(place, sheet, trees=(tree,), settings=CodeSettings(**options), timeout_s=timeout_s)


async def test_every_kind_of_end_is_reported(place):
    done = await run(
        place,
        {
            "tests/test_ends.py": """
                import pytest, unittest

                @pytest.fixture
                def broken():
                    raise KeyError("x")

                @pytest.fixture
                def breaks_later():
                    yield
                    raise OSError

                def test_pass(): pass
                def test_fail(): assert 1 == 2
                def test_fail_called(): pytest.fail("so")
                def test_raise(): {}["x"]
                def test_exit(): raise SystemExit(0)
                def test_setup(broken): pass
                def test_teardown(breaks_later): pass
                def test_skip(): pytest.skip("no")
                @pytest.mark.xfail
                def test_xfail(): assert False
                @pytest.mark.xfail
                def test_xpass(): pass
                @pytest.mark.xfail(strict=True)
                def test_strict(): pass
                @pytest.mark.parametrize("text", ["a b", "[x]::y", "é\\n"])
                def test_table(text): pass
                def test_not_raised():
                    with pytest.raises(ValueError): pass

                class TestParts(unittest.IsolatedAsyncioTestCase):
                    async def test_async(self): self.assertEqual(1, 1)
                    def test_parts(self):
                        for number in (1, 2):
                            with self.subTest(number=number): self.assertEqual(number, 1)
                    def test_skipped_part(self):
                        with self.subTest(): raise unittest.SkipTest("no")
                    def test_good_parts(self):
                        with self.subTest(): pass
                """,
            "tests/test_cannot_be_imported.py": "from nowhere import nothing",
        },
    )
    assert done.complaint == ""
    assert dict(done.faults) == {"tests/test_cannot_be_imported.py": "ModuleNotFoundError: No module named 'nowhere'"}
    found = {name.removeprefix("tests/test_ends.py::"): (one.outcome, one.error, one.is_assertion) for name, one in done.outcomes.items()}
    assert found == {
        "test_pass": ("passed", "", False),
        "test_fail": ("failed", "AssertionError", True),
        "test_fail_called": ("failed", "Failed", True),
        "test_raise": ("failed", "KeyError", False),
        "test_exit": ("failed", "SystemExit", False),
        "test_setup": ("error", "KeyError", False),
        "test_teardown": ("error", "OSError", False),
        "test_skip": ("skipped", "Skipped", False),
        "test_xfail": ("xfailed", "AssertionError", False),
        "test_xpass": ("xpassed", "", False),
        "test_strict": ("failed", "", False),
        "test_table[a b]": ("passed", "", False),
        "test_table[[x]::y]": ("passed", "", False),
        "test_table[\\xe9\\n]": ("passed", "", False),
        "test_not_raised": ("failed", "Failed", True),
        "TestParts::test_async": ("passed", "", False),
        "TestParts::test_parts": ("failed", "AssertionError", True),
        "TestParts::test_skipped_part": ("skipped", "Skipped", False),
        "TestParts::test_good_parts": ("passed", "", False),
    }


async def test_the_project_s_settings_and_conftest_files_are_in_force_but_every_test_runs(place):
    files = {
        "pyproject.toml": """
            [tool.pytest.ini_options]
            addopts = "-x --strict-markers"
            pythonpath = ["lib"]
            markers = ["mine: a mark"]
            python_functions = ["check_*"]
            """,
        "lib/shelf.py": "BOOKS = 3",
        "lib/random.py": "raise OSError('not the one of Python')",
        "conftest.py": "import pytest\n@pytest.fixture\ndef outer(): return 1\n",
        "tests/conftest.py": "import pytest\n@pytest.fixture\ndef inner(outer): return outer + 1\n",
        "tests/test_data.txt": "data",
    }
    tests = """
        import random
        from pathlib import Path
        import pytest, shelf
        from local import near

        def check_failing(): assert False
        @pytest.mark.mine
        def check_fixtures(inner): assert (inner, shelf.BOOKS, near) == (2, 3, 4)
        def check_data(): assert (Path(__file__).parent / "test_data.txt").read_text() == "data"
        """
    done = await run(place, {"tests/test_it.py": tests}, files | {"tests/local.py": "near = 4"})
    assert (done.complaint, dict(done.faults)) == ("", {})
    assert {name.rpartition("::")[2]: one.outcome for name, one in done.outcomes.items()} == {
        "check_failing": "failed",
        "check_fixtures": "passed",
        "check_data": "passed",
    }


async def test_what_lies_beside_tests_can_be_imported_from_packages_and_plain_folders(place):
    files = {
        "checks/__init__.py": "",
        "checks/deep/__init__.py": "",
        "checks/deep/local.py": "NEAR = 1",
        "plain/local.py": "NEAR = 2",
        "plain/conftest.py": "import pytest\nSEEN = 3\n@pytest.fixture\ndef seen(): return SEEN\n",
        "conftest.py": "",
        "top.py": "FAR = 4",
    }
    tests = {
        "checks/deep/test_it.py": "from .local import NEAR\nfrom checks.deep import local\ndef test_it(): assert NEAR == 1",
        "plain/test_it.py": "from local import NEAR\ndef test_it(): assert NEAR == 2",
        "plain/test_other.py": "from local import NEAR\nimport top\ndef test_it(seen): assert (NEAR, seen, top.FAR) == (2, 3, 4)",
    }
    done = await run(place, tests, files)
    assert (done.complaint, dict(done.faults)) == ("", {})
    assert done.passed == {"checks/deep/test_it.py::test_it", "plain/test_it.py::test_it", "plain/test_other.py::test_it"}


async def test_what_surrounds_a_test_is_fixed_and_work_can_stand_in_for_no_module_of_python(place):
    trap = "raise OSError('the one of the workspace')"
    files = {"src/area/__init__.py": "ME = 1", "src/colorsys.py": trap, "src/pytest.py": trap, "src/pluggy.py": trap, "wave.py": trap}
    tests = """
        import colorsys, os, subprocess, sys, time, wave
        import pytest
        from pathlib import Path

        def test_seeds():
            assert sys.flags.hash_randomization == 0 and os.environ["TZ"] == "UTC" and time.tzname[0] == "UTC"
        def test_children_find_the_code():
            code = "import area, sys; print(area.ME)"
            assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\\n"
        def test_files_can_be_written(tmp_path):
            for folder in (tmp_path, Path(), Path(__file__).parent):
                (folder / "note").write_text("x")
        def test_no_cache(): assert not list(Path().rglob("*.pyc")) and not Path(".pytest_cache").exists()
        def test_exit_is_there():
            with pytest.raises(SystemExit): exit(3)
        def test_arguments(): assert len(sys.argv) == 1
        def test_the_report_is_not_offered(): assert "TRUNKLINE_REPORT_FD" not in os.environ
        """
    done = await run(place, {"tests/test_it.py": tests}, files, import_roots=("src",))
    assert (done.complaint, dict(done.faults)) == ("", {})
    assert {name for name, one in done.outcomes.items() if one.outcome != "passed"} == set()
    assert len(done.outcomes) == 7


async def test_a_task_s_own_arguments_are_used(place):
    done = await run(place, {"test_it.py": "def test_a(): pass\ndef test_b(): pass\n"}, pytest_args=("-k", "test_b"))
    assert done.passed == {"test_it.py::test_b"}


async def test_no_test_a_broken_conftest_and_an_early_end_are_complaints(place):
    for tests, files, words in (
        ("", {}, "no tests"),
        ("def test_it(): pass", {"conftest.py": "import nowhere"}, "conftest.py that cannot be loaded"),
        ("import os\ndef test_it(): os._exit(0)", {}, "before its report did"),
        ("import sys\nsys.exit(0)\ndef test_it(): pass", {}, "internal error"),
        ("import pytest\ndef test_it(): pytest.exit('so', 0)", {}, "not setup, call, teardown"),
    ):
        assert words in (await run(place, {"test_it.py": tests}, files)).complaint


async def test_a_run_that_takes_too_long_is_no_verdict(place):
    with pytest.raises(VerifierError, match="within 1 s; no verdict"):
        await run(place, {"test_it.py": "def test_it():\n    while True: pass\n"}, timeout_s=1.0)


FILE = "tests/test_area.py"
SOURCES = {
    FILE: textwrap.dedent(
        """
        import unittest
        import pytest
        from area import area, sides

        def test_square():
            assert area(3) == 9

        @pytest.mark.parametrize("side, wanted", [(4, 16), (1, 1)])
        def test_table(side, wanted):
            assert area(side) == wanted

        def test_negative():
            with pytest.raises(ValueError, match="side 7"):
                area(-7)

        class TestMore(unittest.TestCase):
            def test_sides(self):
                self.assertEqual(sides([16, 25]), [4, 5])

            def test_text(self):
                self.assertEqual(str(area(12)), "144")
        """
    )
}
BROKEN = """
    def area(side):
        return side * 4

    def sides(areas):
        return [round(one ** 0.5) for one in areas]
    """
RIGHT = """
    def area(side):
        if side < 0:
            raise ValueError(f"side {-side} below nothing")
        return sum([side] * side)

    def sides(areas):
        return [int(one ** 0.5) for one in areas]
    """
JUDGED = [
    f"{FILE}::{name}"
    for name in ("test_square", "test_table[4-16]", "test_table[1-1]", "test_negative", "TestMore::test_sides", "TestMore::test_text")
]
FORGERS = {
    "turns every report into a pass": """
        import _pytest.reports
        made = _pytest.reports.TestReport.from_item_and_call.__func__
        def forged(cls, item, call):
            call.excinfo = None
            return made(cls, item, call)
        _pytest.reports.TestReport.from_item_and_call = classmethod(forged)
        """,
    "returns what equals everything": """
        class Anything(int):
            def __eq__(self, other): return True
            __ne__ = lambda self, other: False
            __str__ = lambda self: Text()
        class Text(str):
            __eq__ = Anything.__eq__
            __ne__ = Anything.__ne__
        def area(side):
            if side < 0: raise ValueError("side 7")
            return Anything()
        """,
    "takes the answer out of the test": """
        import sys
        def area(side):
            frame = sys._getframe(1)
            if side < 0: raise ValueError("side 7")
            if "wanted" in frame.f_locals: return frame.f_locals["wanted"]
            return [one for one in frame.f_code.co_consts if isinstance(one, (int, str)) and one != side][-1]
        """,
    "runs no test": "import pytest; pytest.skip('no', allow_module_level=True)",
    "skips in a test": "import pytest\ndef area(side): pytest.skip('no')\n",
    "leaves at once": "import os; os._exit(0)",
    "leaves with the status of failure": "import os; os._exit(1)",
    "writes a report of its own": """
        import ast, json, os
        settings = json.loads(open("/proc/self/cmdline").read().split("\\0")[-2])
        environment = dict(one.split("=", 1) for one in open("/proc/self/environ").read().split("\\0") if one)
        lines = []
        def tell(name):
            for when in ("setup", "call", "teardown"):
                lines.append({"id": name, "when": when, "outcome": "passed", "error": "", "is_assertion": False, "seconds": 0.1})
        for file in settings["files"]:
            for node in ast.parse(open(file).read()).body:
                for part in node.body if isinstance(node, ast.ClassDef) else [node]:
                    if isinstance(part, ast.FunctionDef):
                        prefix = f"{node.name}::" if part is not node else ""
                        endings = ["[4-16]", "[1-1]"] if part.decorator_list else [""]
                        for ending in endings:
                            tell(f"{file}::{prefix}{part.name}{ending}")
        lines.append({"status": 0, "num_lines": len(lines)})
        os.write(int(environment["TRUNKLINE_REPORT_FD"]), "".join(json.dumps(line) + "\\n" for line in lines).encode())
        os._exit(0)
        """,
}


def work(text: str) -> dict[str, str]:
    return {"area.py": textwrap.dedent(BROKEN) + textwrap.dedent(text)}


@pytest.fixture(scope="module")
async def probes(place):
    found = [
        probe
        for function in dict.fromkeys(map(function_of, JUDGED))
        for probe in candidate_probes(SOURCES[FILE], file=FILE, qualname=function.partition("::")[2], rng=random.Random(function))
    ]
    sheet = probe_sheet(SOURCES, found)
    return biting_probes(sheet, await run(place, sheet, work(RIGHT)))


@pytest.fixture
def sheet(probes):
    to_probe = set(map(function_of, JUDGED))
    (sheet,) = make_sheets(SOURCES, judged=JUDGED, to_probe=to_probe, probes=probes, rng=random.Random(7), num_sheets=1)
    return sheet


async def test_every_function_has_probes_that_bite_and_the_right_solution_is_as_expected(place, probes, sheet):
    assert {probe.function for probe in probes} == set(map(function_of, JUDGED))
    assert mismatches(sheet, JUDGED, await run(place, sheet, work(RIGHT))) == []


async def test_another_right_solution_is_as_expected_too(place, sheet):
    other = """
        def area(side):
            if side != abs(side):
                raise UnicodeError(f"bad side {abs(side)}")
            return side ** 2
        """
    assert mismatches(sheet, JUDGED, await run(place, sheet, work(other))) == []


async def test_work_that_does_not_solve_the_task_is_told_by_the_names_of_the_tests(place, sheet):
    found = mismatches(sheet, JUDGED, await run(place, sheet, work("")))
    assert f"{FILE}::test_square failed (AssertionError)" in found
    assert not any("TestMore::test_sides" in one for one in found)
    assert not any(name.partition("::")[2] in one for name in sheet.expected for one in found)


@pytest.mark.parametrize("forger", FORGERS)
async def test_a_forger_is_found_out_who(forger, place, sheet):
    assert mismatches(sheet, JUDGED, await run(place, sheet, work(FORGERS[forger]))) != []
