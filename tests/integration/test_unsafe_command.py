"""Programs as agents: what they are told, what comes back, and that nothing of them is left, however they end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from trunkline.agents import process_tree
from trunkline.agents.process_tree import MARK
from trunkline.agents.program import MAX_ANSWER_BYTES, MAX_PROMPT_BYTES
from trunkline.agents.unsafe_command import INHERITED, UnsafeCommandAgent
from trunkline.errors import AgentError, ConfigError
from trunkline.protocols import Assignment
from trunkline.types import Message, ToolSpec

ECHO = ToolSpec("echo", "Say it back", {"type": "object", "properties": {"text": {"type": "string"}}})
SECRET = "key-of-this-attempt-7f3a"
BASE_URL = f"http://127.0.0.1:9/s/{SECRET}/v1"


class Echo:
    """Says back what it was called with."""

    specs = (ECHO,)

    async def call(self, name, arguments):
        return f"{name}: {arguments}"


ASSIGNMENT = Assignment((Message("system", "Be brief."), Message("user", "area of Peru?")), Echo(), BASE_URL, SECRET, "tiny")


def python(code, *arguments):
    """A command that runs this code."""
    return UnsafeCommandAgent((sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)))


def answer(code, *arguments, assignment=ASSIGNMENT):
    return asyncio.run(asyncio.wait_for(python(code, *arguments).run(assignment), 60))


def alive(pids):
    """Those that still run; a zombie does not."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


async def written_pids(path, count):
    """Pids that a command has put in a file, one a line, once there are `count`."""
    while not path.exists() or path.read_text().count("\n") < count:
        await asyncio.sleep(0.02)
    return [int(line) for line in path.read_text().split()]


def all_gone(pids):
    """Waits for what was killed to vanish."""
    deadline = time.monotonic() + 20
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pids)


def test_a_command_is_told_the_model_and_the_task_and_nothing_else_of_the_host(monkeypatch):
    monkeypatch.setenv("HOST_SECRET", "not for agents")
    seen = json.loads(
        answer("""
            import json, os
            here = os.getcwd()
            print(json.dumps({"env": dict(os.environ), "task": json.load(open(os.environ["TRUNKLINE_TASK"])), "cwd": here,
                              "files": os.listdir(here), "mode": os.stat(os.path.dirname(here)).st_mode & 0o777}))
        """)
    )
    env, task = seen["env"], seen["task"]
    told = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "TRUNKLINE_PROMPT")
    assert [env[name] for name in told] == [BASE_URL, SECRET, "tiny", "area of Peru?"]
    assert set(env) <= {*told, *INHERITED, "HOME", "TMPDIR", "TRUNKLINE_TASK", MARK}
    assert env["HOME"] == seen["cwd"] and seen["files"] == [] and seen["mode"] == 0o700
    assert task["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "area of Peru?"}]
    assert task["tools"][0]["function"]["name"] == "echo"
    assert task["mcp_url"] == task["tools_url"].removesuffix("/tools") + "/mcp"
    assert not Path(seen["cwd"]).parent.exists(), "the attempt's directory is removed"


def test_a_command_calls_its_tools_over_http():
    said = answer("""
        import json, os, urllib.request
        task = json.load(open(os.environ["TRUNKLINE_TASK"]))
        headers = {"authorization": "Bearer " + task["tools_key"]}
        print(json.load(urllib.request.urlopen(urllib.request.Request(task["tools_url"] + "/echo", b'{"text": "hi"}', headers)))["result"])
    """)
    assert said == 'echo: {"text": "hi"}'


def test_a_failing_command_is_an_agent_error_with_its_last_words_and_no_secret():
    with pytest.raises(AgentError, match="exit status 3") as caught:
        answer("""
            import os, sys
            sys.stderr.write("x" * 100_000 + " cannot reach " + os.environ["OPENAI_BASE_URL"] + " with " + os.environ["OPENAI_API_KEY"])
            sys.exit(3)
        """)
    assert str(caught.value).endswith("cannot reach *** with ***") and SECRET not in str(caught.value)
    assert len(str(caught.value)) < 5000
    with pytest.raises(AgentError, match="killed by SIGABRT"):
        answer("import os; os.abort()")


def test_a_command_that_cannot_be_executed_is_the_users_mistake(tmp_path):
    (tmp_path / "plain").write_text("no program")
    for command in ("no-such-program", str(tmp_path / "plain"), str(tmp_path / "plain" / "x")):
        with pytest.raises(ConfigError, match="cannot run"):
            asyncio.run(UnsafeCommandAgent((command,)).run(ASSIGNMENT))


def test_an_endless_answer_is_cut_and_says_so():
    said = answer(f"print('y' * {MAX_ANSWER_BYTES * 40})")
    assert said.startswith("y" * MAX_ANSWER_BYTES + "\n[cut here: ") and len(said) < MAX_ANSWER_BYTES + 200


def test_a_prompt_too_long_for_a_variable_is_in_the_task_file_alone():
    long = replace(ASSIGNMENT, prompt=(Message("user", "é" * MAX_PROMPT_BYTES),))
    code = """
        import json, os
        task = json.load(open(os.environ["TRUNKLINE_TASK"]))
        print(os.environ.get("TRUNKLINE_PROMPT"), len(task["messages"][0]["content"]))
    """
    assert answer(code, assignment=long) == f"None {MAX_PROMPT_BYTES}"


SPAWN = """
    import os, signal, subprocess, sys, time
    pids, mode = sys.argv[1], sys.argv[2]
    if mode != "exits":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    children = [subprocess.Popen(sleeper), subprocess.Popen(sleeper, start_new_session=True)]
    with open(pids, "w") as file:
        file.write("".join(f"{pid}\\n" for pid in (os.getpid(), *(child.pid for child in children))))
    if mode != "exits":
        time.sleep(600)
    print("done")
"""


def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    assert answer(SPAWN, tmp_path / "pids", "exits") == "done", "although its children still hold its stdout"
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 3 and all_gone(pids)


def test_a_cancelled_command_ends_with_all_it_started_even_if_it_ignores_sigterm(tmp_path, monkeypatch):
    monkeypatch.setattr(process_tree, "TERM_GRACE_S", 0.1)

    async def scenario():
        working = asyncio.create_task(python(SPAWN, tmp_path / "pids", "stays").run(ASSIGNMENT))
        pids = await written_pids(tmp_path / "pids", 3)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return pids

    assert all_gone(asyncio.run(asyncio.wait_for(scenario(), 60)))


def test_a_command_cancelled_twice_is_killed_at_once(tmp_path):
    async def scenario():
        working = asyncio.create_task(python(SPAWN, tmp_path / "pids", "stays").run(ASSIGNMENT))
        pids = await written_pids(tmp_path / "pids", 3)
        working.cancel()
        await asyncio.sleep(0.05)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return pids

    assert all_gone(asyncio.run(asyncio.wait_for(scenario(), 60)))


def test_a_command_may_clean_up_at_sigterm(tmp_path):
    code = """
        import signal, sys, time
        def tidy(*_):
            open(sys.argv[2], "w").write("tidied")
            sys.exit(0)
        signal.signal(signal.SIGTERM, tidy)
        open(sys.argv[1], "w").write("0\\n")
        time.sleep(600)
    """

    async def scenario():
        working = asyncio.create_task(python(code, tmp_path / "ready", tmp_path / "tidied").run(ASSIGNMENT))
        await written_pids(tmp_path / "ready", 1)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert (tmp_path / "tidied").read_text() == "tidied"


def test_attempts_side_by_side_share_nothing_and_leave_no_descriptor():
    async def scenario():
        agent = python("import os; open('mine', 'x').close(); print(os.getcwd())")
        await agent.run(ASSIGNMENT)  # the event loop opens what it keeps
        before = psutil.Process().num_fds()
        folders = await asyncio.gather(*(agent.run(ASSIGNMENT) for _ in range(8)))
        assert len(set(folders)) == 8 and not any(map(os.path.exists, folders))
        assert psutil.Process().num_fds() <= before

    asyncio.run(asyncio.wait_for(scenario(), 60))
