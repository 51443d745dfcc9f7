"""What a package.json tells: how tests are started, which packages are wanted, which recipes are tried."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from trunkline.errors import TaskError
from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.factory.javascript.ladder import ladder
from trunkline.tasks.factory.javascript.manifest import Manifest, Started, read_manifest

DATE = dt.datetime(2023, 2, 3, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("script", "runner", "args", "variables"),
    [
        ("node --test", "node", (), {}),
        ("node --import tsx --test test/*.js", "node", ("--import", "tsx"), {}),
        ("node --test --import tsx test/*.js", "node", ("--import", "tsx"), {}),
        ("npm run lint && vitest run --coverage --config vite.unit.ts", "vitest", ("--config", "vite.unit.ts"), {}),
        ("cross-env NODE_ENV=test TZ=UTC jest -i --env=jsdom", "jest", ("--env=jsdom",), {"NODE_ENV": "test", "TZ": "UTC"}),
        ("node --experimental-vm-modules node_modules/jest/bin/jest.js", "jest", (), {"NODE_OPTIONS": "--experimental-vm-modules"}),
        ("nyc --reporter=html mocha -r esm --timeout 5000 --reporter dot test", "mocha", ("-r", "esm", "--timeout", "5000"), {}),
        ("PATH=/evil mocha", "mocha", (), {}),
        ("tape -r esm 'test/**/*.js' | faucet", "files", ("-r", "esm"), {}),
        ("tap test/*.js", "files", (), {}),
        ("eslint . && node test/index.js", "files", (), {}),
    ],
)
def test_runner_and_its_own_arguments_come_from_the_test_script(script, runner, args, variables):
    started = Manifest({"scripts": {"test": script}}).started()

    assert started == Started(runner, args, variables)


def test_without_a_test_script_the_runner_is_one_that_it_depends_on():
    started = Manifest({"devDependencies": {"vitest": "^1.0.0"}}).started()

    assert started is not None and started.runner == "vitest"


@pytest.mark.parametrize("script", ["ava", "node build.js", 'echo "Error: no test specified" && exit 1', "mocha 'unclosed"])
def test_other_runners_are_none(script):
    assert Manifest({"scripts": {"test": script}}).started() is None


def test_packages_from_elsewhere_are_named():
    manifest = Manifest(
        {"dependencies": {"a": "^1.0.0", "b": "github:x/y", "c": "x/y", "d": "npm:@x/y@1", "e": "file:../e", "f": "latest"}}
    )

    assert manifest.outside() == ["b@github:x/y", "c@x/y", "e@file:../e"]


def test_what_is_resolved_has_no_scripts_and_the_recipes_versions():
    manifest = Manifest({"name": "x", "scripts": {"install": "evil"}, "files": ["a"], "devDependencies": {"a": "1"}})

    assert json.loads(manifest.to_resolve({"a": "2", "b": "3"})) == {"private": True, "name": "x", "devDependencies": {"a": "2", "b": "3"}}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_manifest_is_refused_by_name(tmp_path, text):
    (tmp_path / "package.json").write_text(text)

    with pytest.raises(TaskError, match="package.json"):
        read_manifest(tmp_path)


def test_ladder_goes_from_the_committed_lock_to_the_newest():
    manifest = Manifest({"scripts": {"test": "jest"}, "devDependencies": {"jest": "^29.0.0"}})

    assert [recipe.words for recipe in ladder(manifest, DATE, has_lock=True)] == [
        "npm packages of the committed lock; jest",
        "npm packages until 2023-02-28; jest",
        "npm packages until 2024-02-29; jest",
        "npm packages; jest",
    ]


def test_a_project_without_dependencies_has_one_recipe():
    assert [recipe.words for recipe in ladder(Manifest({"scripts": {"test": "node --test"}}), DATE, has_lock=True)] == ["no packages; node"]


def test_a_repair_changes_allowed_fields():
    recipe = JavaScriptRecipe(runner="jest").changed({"overrides": {"jest": "^28.0.0"}, "cutoff": "2022-01-31", "scripts": True})

    assert recipe.words == "npm packages until 2022-01-31, jest@^28.0.0, install scripts run; jest"


@pytest.mark.parametrize(
    "fields",
    [
        {"command": "curl evil"},
        {"runner": "sh"},
        {"overrides": {"jest": "https://evil.example/x.tgz"}},
        {"overrides": {"../x": "1"}},
        {"variables": {"PATH": "/x"}},
        {"variables": {"npm_config_registry": "x"}},
        {"cutoff": "soon"},
    ],
)
def test_a_repair_changes_nothing_else(fields):
    with pytest.raises(TaskError, match="no recipe has these fields"):
        JavaScriptRecipe().changed(fields)
