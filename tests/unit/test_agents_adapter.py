"""Adapter files: what is refused and how it is said, what is filled in, and that every shipped one is right."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline.agents.adapter import SHIPPED, InstalledAdapter, find_adapter, load_adapter, shipped_adapters
from trunkline.agents.launch import Places
from trunkline.errors import AgentError, ConfigError
from trunkline.run.recipe import load_recipe

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
DOCS = QUICKSTART.parents[1] / "docs" / "06-agents.md"
PLACES = Places(
    base_url="http://127.0.0.1:8700/s/KEY/v1",
    api_key="KEY",
    model="tiny",
    prompt="Say yes.",
    prompt_file="/home/agent/.trunkline/prompt.txt",
    workspace="/workspace",
    task_file="/home/agent/.trunkline/task.json",
    tools_url="http://127.0.0.1:8701/tools",
    mcp_url="http://127.0.0.1:8701/mcp",
    tools_key="TOOLS",
)
PIP = '[install]\ninstaller = "pip"\npackage = "x"\nversion = "1"\n'
NPM = PIP.replace("pip", "npm")
MINIMAL = 'name = "mine"\ndescription = "Mine"\nwire = "chat"\ncommand = ["mine", "{prompt}"]\n'


def adapter(folder: Path, text: str) -> InstalledAdapter:
    path = folder / "mine.toml"
    path.write_text(text)
    return InstalledAdapter(load_adapter(path), Path("/opt/mine"), 4096)


def test_placeholders_are_filled_in_everywhere(tmp_path):
    text = (
        MINIMAL.replace('"{prompt}"', '"{install}/x", "{here}/y"')
        + 'stdin = "{prompt}"\nenvironment = { URL = "{root_url}", SIZE = "{max_context}" }\n'
        + "files = { '~/.mine/config' = '{base_url} {{prompt}} { model } {model}', '{workspace}/a' = '{api_key}' }\n"
        + 'answer = { from = "file", file = "~/answer" }\n[install]\ninstaller = "pip"\npackage = "mine"\nversion = "1.0"\n'
    )
    launch = adapter(tmp_path, text).launch(PLACES)
    assert launch.argv == ("mine", "/opt/mine/x", f"{tmp_path}/y")
    assert launch.environment == {"URL": "http://127.0.0.1:8700/s/KEY", "SIZE": "4096"}
    assert launch.files == {
        "/home/agent/.mine/config": "http://127.0.0.1:8700/s/KEY/v1 {{prompt}} { model } tiny",
        "/workspace/a": "KEY",
    }
    assert (launch.stdin, launch.answer.file) == ("Say yes.", "/home/agent/answer")


def test_a_prompt_file_is_written_for_those_who_name_it(tmp_path):
    launch = adapter(tmp_path, MINIMAL.replace("{prompt}", "{prompt_file}")).launch(PLACES)
    assert launch.argv[1] == PLACES.prompt_file
    assert launch.files == {PLACES.prompt_file: "Say yes."}


def test_a_task_that_no_argument_can_hold_is_refused_with_the_remedy(tmp_path):
    for prompt in ("x" * 200_000, "a\0b"):
        with pytest.raises(AgentError, match="stdin or {prompt_file}"):
            adapter(tmp_path, MINIMAL).launch(replace(PLACES, prompt=prompt))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "comand = []", "unknown key 'comand'.*command"),
        (MINIMAL + PIP + "pin = 2", r"unknown key 'install.pin'.*version"),
        (MINIMAL + PIP.replace("pip", "brew"), "install.installer.*'pip' or 'npm'"),
        (MINIMAL + PIP.replace('version = "1"', ""), "'install.version' is missing"),
        (MINIMAL + PIP + 'also = ["y>=2"]', "'y>=2' is not pinned; write it as name==version"),
        (MINIMAL + NPM + 'also = ["@a/y"]', "'@a/y' is not pinned; write it as name@version"),
        (MINIMAL + NPM + 'check = ["{prompt}"]', "install.check: {prompt} is known in an attempt"),
        (MINIMAL + 'stdin = "{promt}"', "stdin: no placeholder {promt}; known: api_key,"),
        (MINIMAL + 'stdin = "{install}"', r"there is no \[install\]"),
        (MINIMAL + 'files = { "/etc/passwd" = "x" }', "'/etc/passwd' is neither below ~/"),
        (MINIMAL + 'files = { "~/../x" = "x" }', "neither below"),
        (MINIMAL + 'answer = { from = "json" }', "from = 'json' needs a value"),
        (MINIMAL + 'answer = { from = "file" }', "needs a file"),
        (MINIMAL + 'answer = { from = "stdout", file = "x" }', "has no file"),
        (MINIMAL + 'answer = { from = "email" }', "answer.from"),
        (MINIMAL.replace('"chat"', '"gemini"'), "wire.*'chat', 'responses' or 'messages'"),
        (MINIMAL.replace("mine", "My Agent", 1), "name"),
        ("name = ", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_and_the_key_named(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        adapter(tmp_path, text)


def test_an_unknown_name_gets_the_nearest_one_and_all_others():
    with pytest.raises(
        ConfigError, match=r"no adapter 'claudecode'; did you mean 'claude-code'\? shipped: claude-code, codex, .*\.toml file"
    ):
        find_adapter("claudecode")
    with pytest.raises(ConfigError, match="cannot read the adapter nowhere.toml"):
        find_adapter("nowhere.toml")


def test_every_shipped_adapter_is_right_pinned_and_named_as_its_file():
    adapters = shipped_adapters()
    assert len(adapters) >= 8
    for one in adapters:
        assert one.file.name == one.path.stem
        assert one.file.install is not None and one.file.install.check, "what is installed is proven to work"
        launch = InstalledAdapter(one, Path("/opt/x"), 4096).launch(PLACES)
        texts = [*launch.argv, *launch.environment.values(), *launch.files.values(), launch.stdin]
        assert any(PLACES.prompt in text or PLACES.task_file in text for text in texts), "it is told its task"
        for path, text in launch.files.items():
            if path.endswith(".toml"):
                assert tomllib.loads(text)["model"] == "tiny"
        assert all(path.is_file() for path in one.own_files())


def test_the_example_of_the_docs_is_right(tmp_path):
    (example,) = [text for text in re.findall(r"```toml\n(.*?)```", DOCS.read_text(), flags=re.DOTALL) if "[install]" in text]
    launch = adapter(tmp_path, example).launch(PLACES)
    assert launch.argv[1:3] == ("--task-file", PLACES.prompt_file)


def test_the_docs_table_has_every_shipped_adapter_with_its_version():
    table = DOCS.read_text()
    for one in shipped_adapters():
        assert f"| `{one.file.name}` | {one.file.install.version} | {one.file.install.installer} | {one.file.wire} |" in table


def test_the_package_carries_the_files():
    patterns = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert {path.suffix for path in SHIPPED.iterdir() if path.is_file()} == {".toml", ".py"}
    assert patterns["trunkline.agents"] == ["adapters/*.toml", "adapters/*.py"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["agent.adapter=codex", 'agent.command=["x"]'], "both name the agent"),
        (["agent.adapter=codex", "sandbox.kind=unsafe"], "runs in sandbox.kind='isolated'"),
    ],
)
def test_a_recipe_names_one_agent_in_a_place_where_it_can_run(overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_recipe(QUICKSTART, overrides)
