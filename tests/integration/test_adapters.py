"""Adapters end to end: installing (whole or not at all), a small program in every role, and one published agent as it is."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.in_process import trunkline
from tests.scripted_scene import WORD, OneTask, in_turn, installed_or_skipped, says, work
from trunkline.agents.adapter import find_adapter, load_adapter
from trunkline.agents.installation import RECEIPT, install, installation_folder, installed_folder, is_installed
from trunkline.errors import ConfigError, InfraError

PROGRAM = """
import json, os, pathlib, sys, urllib.request

def main():
    told = json.loads(pathlib.Path("~/.tiny/config.json").expanduser().read_text())
    assert not os.access(told["install"], os.W_OK), "an installation is shared by all attempts"
    prompt = {"stdin": sys.stdin.read, "argument": lambda: sys.argv[2], "file": lambda: open(sys.argv[2]).read()}[told["prompt"]]()
    body = json.dumps({"model": told["model"], "messages": [{"role": "user", "content": prompt}]}).encode()
    request = urllib.request.Request(told["url"] + "/chat/completions", body, {"authorization": "Bearer " + os.environ["TINY_KEY"]})
    said = json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
    kind = sys.argv[1]
    if kind == "stdout":
        print(said)
    elif kind == "json":
        print("a line of a log")
        print(json.dumps({"messages": [{"content": "x"}, {"content": said}]}))
    elif kind == "json-file":
        pathlib.Path("/tmp/out.json").write_text(json.dumps({"result": said}, indent=1))
    elif kind == "file":
        pathlib.Path("~/out.txt").expanduser().write_text(said)
    elif kind == "workspace":
        pathlib.Path("said.txt").write_text(said)
"""
ADAPTER = """
name = "tiny"
description = "A program for tests"
wire = "chat"
command = ["{{install}}/bin/tiny", "{kind}", "{argument}"]
stdin = "{stdin}"
environment = {{ TINY_KEY = "{{api_key}}" }}
[files]
"~/.tiny/config.json" = '{{ "url": "{{base_url}}", "model": "{{model}}", "prompt": "{how}", "install": "{{install}}" }}'
[answer]
{answer}
[install]
installer = "pip"
package = "tiny-agent"
version = "1.0"
check = ["{{install}}/bin/python", "-c", "import tiny_agent"]
"""
ANSWERS = {
    "stdout": 'from = "stdout"',
    "json": 'from = "json"\nvalue = "messages.-1.content"',
    "json-file": 'from = "json"\nfile = "/tmp/out.json"\nvalue = "result"',
    "file": 'from = "file"\nfile = "~/out.txt"',
    "workspace": 'from = "workspace"',
}
PROMPTS = {"stdin": ("-", "{prompt}"), "argument": ("{prompt}", ""), "file": ("{prompt_file}", "")}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels instead of a registry, and a cache folder of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    about = "Metadata-Version: 2.1\nName: tiny-agent\nVersion: 1.0\n"
    with zipfile.ZipFile(folder / "tiny_agent-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_agent.py", PROGRAM)
        wheel.writestr("tiny_agent-1.0.dist-info/METADATA", about)
        wheel.writestr("tiny_agent-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny_agent-1.0.dist-info/entry_points.txt", "[console_scripts]\ntiny = tiny_agent:main\n")
        wheel.writestr("tiny_agent-1.0.dist-info/RECORD", "")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "TRUNKLINE_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def adapter_in(folder: Path, *, kind: str = "stdout", how: str = "stdin", more: str = ""):
    argument, stdin = PROMPTS[how]
    path = folder / "tiny.toml"
    path.write_text(ADAPTER.format(kind=kind, how=how, argument=argument, stdin=stdin, answer=ANSWERS[kind]) + more)
    return load_adapter(path)


def quietly(adapter, **options):
    return install(adapter, lambda title, log: None, **options)


@pytest.mark.parametrize(
    ("kind", "how"), [("stdout", "stdin"), ("json", "argument"), ("json-file", "file"), ("file", "stdin"), ("workspace", "stdin")]
)
def test_a_program_is_told_its_task_and_read_in_every_way(index, kind, how):
    adapter = adapter_in(index, kind=kind, how=how)
    quietly(adapter)
    seen = asyncio.run(work(adapter, in_turn(says(f"it is {WORD}")), index))
    seen.require_success()
    expected = f"it is {WORD}" if kind != "workspace" else json.dumps({"said.txt": f"it is {WORD}"})
    assert seen.answer == f"the answer is {expected!r}"
    assert [call.facts.wire for call in seen.calls] == ["chat"]


def test_an_answer_that_is_not_where_it_should_be_is_the_agents_failure(index):
    adapter = adapter_in(index, kind="file")
    adapter.path.write_text(adapter.path.read_text().replace("~/out.txt", "~/elsewhere.txt"))
    adapter = load_adapter(adapter.path)
    quietly(adapter)
    seen = asyncio.run(work(adapter, in_turn(says("x")), index))
    assert seen.episode.failure.boundary == "agent"
    assert "without its answer in /home/agent/elsewhere.txt" in seen.episode.failure.message


def test_an_installation_is_made_once_and_says_what_is_in_it(index):
    adapter = adapter_in(index)
    with pytest.raises(ConfigError, match=r"'tiny' is not installed; run: trunkline agent install .*tiny\.toml"):
        installed_folder(adapter)
    steps = []
    folder = install(adapter, lambda title, log: steps.append(title))
    assert steps[-1].startswith("checking") and is_installed(adapter)
    assert json.loads((folder / RECEIPT).read_text()) == {"requirements": ["tiny-agent==1.0"], "installed": ["tiny_agent==1.0"]}
    written = (folder / RECEIPT).stat().st_mtime_ns
    assert quietly(adapter) == folder and (folder / RECEIPT).stat().st_mtime_ns == written
    assert quietly(adapter, replace=True) == folder and (folder / RECEIPT).stat().st_mtime_ns > written


def test_a_killed_installation_counts_as_none_and_the_next_one_begins_anew(index):
    flag = index / "go-on"
    adapter = adapter_in(index, more=f'after = [["/bin/sh", "-c", "test -e {flag} || sleep 600"]]\n')
    command = [sys.executable, "-m", "trunkline.run.cli", "agent", "install", str(adapter.path)]
    folder = installation_folder(adapter)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as installing:
        ends_at = time.monotonic() + 120
        while not (folder / "bin" / "tiny").exists() and time.monotonic() < ends_at:
            time.sleep(0.05)
        installing.send_signal(signal.SIGKILL)
    assert (folder / "bin" / "tiny").exists() and not is_installed(adapter)
    flag.touch()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert is_installed(adapter) and "agent.adapter=" in done.stdout


def test_two_installations_at_once_are_one(index):
    adapter = adapter_in(index)
    command = [sys.executable, "-m", "trunkline.run.cli", "agent", "install", str(adapter.path)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0] and is_installed(adapter)
    assert sum("pip install" in text for text in said) == 1


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ('version = "1.0"', 'version = "9.9"', InfraError, "the registry was not reached|from versions: 1.0"),
        ("import tiny_agent", "import tinier_agent", InfraError, "checking .*tinier_agent"),
    ],
)
def test_a_failed_installation_says_why_and_leaves_nothing(index, old, new, kind, said):
    adapter = adapter_in(index)
    adapter.path.write_text(adapter.path.read_text().replace(old, new))
    adapter = load_adapter(adapter.path)
    with pytest.raises(kind, match=said):
        quietly(adapter)
    assert not installation_folder(adapter).exists()


def test_without_npm_it_is_said_what_to_install(index, monkeypatch):
    monkeypatch.setenv("PATH", str(index))
    with pytest.raises(ConfigError, match=r"no 'npm' on PATH.*nodejs\.org"):
        quietly(find_adapter("codex"))


def test_list_and_show_say_what_is_there(index, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    listed = trunkline("agent", "list").stdout
    assert "claude-code" in listed and "messages" in listed
    shown = trunkline("agent", "show", "codex").stdout
    assert 'wire = "responses"' in shown and "not installed; goes to" in shown


@pytest.mark.timeout(900)  # the first time it is installed
def test_openai_agents_unmodified_works_through_a_whole_episode(tmp_path, users_home):
    adapter = installed_or_skipped("openai-agents")
    task = OneTask()
    script = in_turn(
        says("", ("shell", {"command": f"printf {WORD} > note.txt"})),
        says("Both.", ("shell", {"command": "cat note.txt"}), ("colour", {"word": WORD})),
        says(f"It holds {WORD}."),
    )
    seen = asyncio.run(work(adapter, script, tmp_path, task=task))
    seen.require_success()
    seen.require_exact_tokens()
    assert seen.lineage == {"first": 1, "extension": 2} and {call.facts.wire for call in seen.calls} == {"responses"}
    assert f"<tool_response>\n{WORD}\n[exit status 0]" in seen.prompts[2] and "its colour is violet" in seen.prompts[2]
    assert task.num_tool_calls == 1
