"""What a project says that it needs, read from small trees of every kind."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from trunkline.tasks.environments.identity import read_identity
from trunkline.tasks.environments.layout import files_with_tests, import_roots, is_python, role_of
from trunkline.tasks.environments.plugins import needed_by_arguments
from trunkline.tasks.environments.requirements import read_asked


def lay(folder: Path, **files: str) -> Path:
    """Files by name, with '__' for a slash and '_DOT_' for a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def test_pyproject_says_dependencies_and_extras_of_tests(tmp_path):
    asked = read_asked(
        lay(
            tmp_path,
            pyproject_DOT_toml="""\
            [project]
            name = "shop"
            requires-python = ">=3.9"
            dependencies = ["money>=1", "other @ https://example.org/other.zip"]
            [project.optional-dependencies]
            tests = ["shop[fast]", "pytest-mock", "pytest-cov"]
            fast = ["quick==2.0"]
            docs = ["sphinx"]
            """,
        )
    )
    assert (asked.name, asked.requires_python, asked.dependencies) == ("shop", ">=3.9", ("money>=1",))
    assert asked.of_tests == ("quick==2.0", "pytest-mock")
    assert "an address" in asked.notes[0]


def test_groups_include_groups(tmp_path):
    asked = read_asked(
        lay(
            tmp_path,
            pyproject_DOT_toml="""\
            [dependency-groups]
            base = ["pytest", "alpha"]
            tests = [{include-group = "base"}, "beta"]
            dev = ["gamma", {include-group = "tests"}]
            """,
        )
    )
    assert asked.of_tests == ("pytest", "alpha", "beta")


def test_group_of_developers_stands_in_where_nothing_is_for_tests(tmp_path):
    asked = read_asked(lay(tmp_path, pyproject_DOT_toml='[dependency-groups]\ndev = ["pytest", "ruff", "alpha"]\n'))
    assert asked.of_tests == ("pytest", "alpha")


def test_setup_py_is_read_and_not_run(tmp_path):
    asked = read_asked(
        lay(
            tmp_path,
            setup_DOT_py="""\
            import setuptools
            raise SystemExit("it was run")
            EXTRAS = {"fast": ["quick"]}
            EXTRAS["tests"] = EXTRAS["fast"] + ["pytest"]
            if True:
                EXTRAS["tests"].extend(["alpha>1"])
            setuptools.setup(name="shop", python_requires=">=3.6", install_requires=open("x").read(), extras_require=EXTRAS)
            """,
        )
    )
    assert (asked.name, asked.requires_python, asked.of_tests) == ("shop", ">=3.6", ("quick", "pytest", "alpha>1"))
    assert asked.notes == ("setup.py computes install_requires",)


def test_setup_cfg_and_tox_name_the_extras_of_tests(tmp_path):
    asked = read_asked(
        lay(
            tmp_path,
            setup_DOT_cfg="""\
            [metadata]
            name = shop
            [options]
            install_requires =
                money>=1
            [options.extras_require]
            reco =
                quick
                simple; python_version < "4"
            """,
            tox_DOT_ini="[testenv]\nextras = reco\ndeps =\n    py38: alpha\n    -r requirements/extra.txt\n",
            requirements__extra_DOT_txt="beta==1.0  # a comment\n--index-url https://example.org\n-e .\n",
        )
    )
    assert asked.dependencies == ("money>=1",)
    assert asked.of_tests == ("alpha", "beta==1.0", "quick", 'simple; python_version < "4"')


def test_requirements_files_do_not_lead_out_of_the_tree(tmp_path):
    tree = lay(tmp_path / "tree", requirements_test_DOT_txt="-r ../secret.txt\npytest\n")
    lay(tmp_path, secret_DOT_txt="alpha\n")
    (tree / "requirements_test.txt").rename(tree / "requirements-test.txt")
    assert read_asked(tree).of_tests == ("pytest",)


def test_arguments_of_pytest_bring_the_plugins_that_they_need(tmp_path):
    needed = needed_by_arguments(lay(tmp_path, setup_DOT_cfg="[tool:pytest]\naddopts = -ra --cov=shop -n auto\n"))
    assert needed.requirements == ("pytest-cov", "pytest-xdist")
    assert needed.arguments == ("--no-cov", "-n0")


def test_quiet_arguments_need_no_plugin(tmp_path):
    assert not needed_by_arguments(lay(tmp_path, pytest_DOT_ini="[pytest]\naddopts = -ra --no-header\n")).requirements


@pytest.mark.parametrize(
    ("text", "version"),
    [('[project]\nname = "shop"\nversion = "1.2"\n', "1.2"), ('[project]\nname = "shop"\ndynamic = ["version"]\n', "3.4.dev1")],
)
def test_version_is_found_where_the_project_says_it(tmp_path, text, version):
    tree = lay(tmp_path, pyproject_DOT_toml=text, src__shop____init___DOT_py='"""Shop."""\n__version__ = "3.4.dev1"\n')
    (tree / "src/shop").mkdir(parents=True, exist_ok=True)
    (tree / "src/shop/__init__.py").write_text('"""Shop."""\n__version__ = "3.4.dev1"\n')
    assert read_identity(tree, "shop").version == version


def test_entry_points_are_part_of_the_metadata(tmp_path):
    tree = lay(tmp_path, pyproject_DOT_toml='[project.entry-points.pytest11]\nshop = "shop.plugin"\nodd = "x\\n[y]"\n')
    files = read_identity(tree, "my-shop").files()
    assert files["my_shop-0.dist-info/entry_points.txt"] == "[pytest11]\nshop = shop.plugin\n"


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("src/shop/basket.py", "source"),
        ("shop/tests/data.json", "test"),
        ("tests/helpers.py", "test"),
        ("test_shop.py", "test"),
        ("conftest.py", "test"),
        ("docs/conf.py", "other"),
        ("setup.py", "other"),
        ("README.md", "other"),
        ("benchmarks/speed.py", "other"),
        ("shop/testing.py", "source"),
    ],
)
def test_every_file_has_a_role(path, role):
    assert role_of(path) == role


def test_roots_are_where_modules_lie(tmp_path):
    for name in ("flat/shop", "src/src/shop", "lib/lib/shop", "named/python/shop"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    lay(tmp_path / "named", pyproject_DOT_toml='[tool.setuptools.package-dir]\n"" = "python"\n')
    roots = {name: import_roots(tmp_path / name) for name in ("flat", "src", "lib", "named")}
    assert roots == {"flat": (".",), "src": ("src",), "lib": ("lib",), "named": ("python",)}


def test_files_with_tests_are_listed(tmp_path):
    tree = tmp_path / "tree"
    for name in ("tests/test_a.py", "tests/helpers.py", "shop/b_test.py", ".venv/test_c.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    assert list(files_with_tests(tree)) == ["shop/b_test.py", "tests/test_a.py"]
    assert is_python(tree)
