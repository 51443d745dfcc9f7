"""The budgets: what counts as a code line, what fails, what is only reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import budgets


def function(num_statements: int, *, name: str = "work") -> str:
    """A function of 1 + num_statements code lines."""
    return f"def {name}():\n" + "    x = 1\n" * num_statements


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "package"


def write(folder: Path, source: str, *, name: str = "window.py") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(source)
    return path


def test_blank_lines_comments_and_docstrings_are_free() -> None:
    source = '"""Doc\nof two lines."""\n\n# comment\nx = 1  # counts\n\n\nclass A:\n    y: int\n    """Field."""\n'
    assert budgets.code_lines(source) == {5, 8, 9}


def test_every_line_of_a_long_expression_or_string_counts() -> None:
    assert budgets.code_lines('x = (\n    1,\n\n    2,\n)\ny = """a\n\nb"""\n') == {1, 2, 4, 5, 6, 7, 8}


def test_a_function_holds_its_decorators_signature_and_inner_functions() -> None:
    source = '@decorate\ndef outer(\n    a,\n):\n    """Doc."""\n    def inner():\n        return a\n\n    return inner\n'
    assert len(budgets.code_lines(source)) == 7


@pytest.mark.parametrize(("num_statements", "status"), [(79, 0), (80, 1)])
def test_a_function_of_81_code_lines_fails(folder: Path, num_statements: int, status: int) -> None:
    write(folder, function(num_statements))
    assert budgets.main([str(folder)]) == status


@pytest.mark.parametrize(("num_lines", "status"), [(500, 0), (501, 1)])
def test_a_file_of_501_code_lines_fails(folder: Path, num_lines: int, status: int) -> None:
    write(folder, '"""Doc."""\n' + "x = 1\n\n" * num_lines)
    assert budgets.main([str(folder)]) == status


def test_the_breach_names_place_size_and_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, "y = 2\n" + function(90, name="long_one"))
    budgets.main([str(folder)])
    assert f"{path}:2 long_one(): 91 code lines, a function may have 80; split it" in capsys.readouterr().err


def test_soft_limits_are_reported_only_when_asked_and_never_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, function(45))
    assert budgets.main([str(folder)]) == 0
    assert "work()" not in capsys.readouterr().out
    assert budgets.main([str(folder), "--report"]) == 0
    assert "work(): 46 code lines" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["utils.py", "helpers.py", "core.py"])
def test_names_that_name_no_idea_fail(folder: Path, name: str) -> None:
    write(folder, "x = 1\n", name=name)
    assert budgets.main([str(folder)]) == 1


def test_a_folder_named_common_fails(tmp_path: Path) -> None:
    write(tmp_path / "common", "x = 1\n")
    assert budgets.main([str(tmp_path)]) == 1


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        budgets.main([str(tmp_path / "nowhere")])
