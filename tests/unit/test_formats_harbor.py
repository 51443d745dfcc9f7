"""Harbor's task directories: each field read with its default and check, written back the same, refused where we cannot honour it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.errors import TaskError, VerifierError
from trunkline.tasks.formats.harbor import HarborTask, read_harbor, write_harbor
from trunkline.tasks.formats.harbor_config import HarborConfig
from trunkline.tasks.formats.harbor_honoured import network_lines, notices, refusals, role_environment
from trunkline.tasks.formats.harbor_reward import read_reward

FULL = """
schema_version = "1.4"
source = "https://example.com/tasks"
multi_step_reward_strategy = "final"
artifacts = ["/workspace/report.txt", {source = "/var/log", destination = "logs", exclude = ["*.gz"], service = "db"}]

[task]
name = "org/name"
version = "2"
description = "What it is"
keywords = ["a", "b"]
[[task.authors]]
name = "Ann"
email = "ann@example.com"

[metadata]
difficulty = "hard"
made = 2026-01-02
[metadata.trunkline]
workspace = "workspace"

[environment]
build_timeout_sec = 30
docker_image = "image:tag"
os = "Linux"
cpus = 2.0
memory_mb = 512
storage_mb = 1024
gpus = 1
gpu_types = ["H100"]
skills_dir = "/skills"
workdir = "/app"
network_mode = "allowlist"
allowed_hosts = ["Example.com.", "*.example.org", "192.0.2.1", "2001:DB8:0::1", "192.0.2.0/24"]
env = {MODE = "x", KEY = "${KEY}"}
tpu = {type = "v6e", topology = "2x4"}
[environment.healthcheck]
command = "true"
retries = 5
[[environment.mcp_servers]]
name = "one"
transport = "http"
url = "http://127.0.0.1/mcp"
headers = {Authorization = "Bearer ${TOKEN}", X-Mode = "plain"}
[[environment.mcp_servers]]
name = "two"
transport = "stdio"
command = "serve"
args = ["-v"]

[agent]
timeout_sec = 60
user = 1000
network_mode = "no-network"

[verifier]
timeout_sec = 20
env = {SEED = "${SEED:-7}"}
user = "root"
environment_mode = "separate"
network_mode = "public"
[verifier.environment]
memory = "1.5G"
allow_internet = false
[[verifier.collect]]
command = "dump"
service = "db"

[solution]
env = {A = "b"}

[[steps]]
name = "first"
min_reward = 0.5
agent = {timeout_sec = 5}
artifacts = ["/x"]
[[steps]]
name = "second"
min_reward = {reward = 1, style = 0.5}
verifier = {timeout_sec = 5}
healthcheck = {command = "true"}
"""
SCRIPT = "#!/bin/sh\necho 1 > /logs/verifier/reward.txt\n"


def made(folder: Path, config: str = "", files: dict[str, str] | None = None) -> Path:
    """A task's directory with this task.toml."""
    texts = {"task.toml": config, "instruction.md": "Do it.", "tests/test.sh": SCRIPT, "environment/workspace/one.py": "", **(files or {})}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


OURS = '[metadata.trunkline]\nworkspace = "workspace"\n'


def refused(folder: Path, config: str, files: dict[str, str] | None = None) -> str:
    return "\n".join(refusals(read_harbor(made(folder, config + OURS, files))))


def test_every_field_is_read_and_written_back_the_same(tmp_path: Path) -> None:
    task = read_harbor(made(tmp_path / "one", FULL))
    config = task.config
    assert (task.name, config.environment.os, config.environment.cpus) == ("org/name", "linux", 2)
    assert config.environment.allowed_hosts == ("example.com", "*.example.org", "192.0.2.1", "2001:db8::1", "192.0.2.0/24")
    assert config.environment.mcp_servers[0].transport == "streamable-http"
    assert config.verifier.environment is not None
    assert (config.verifier.environment.memory_mb, config.verifier.environment.network_mode) == (1536, "no-network")
    script = {"tests/test.sh": SCRIPT}
    written = write_harbor(
        tmp_path / "two", instruction="Go.", config=config, files={"environment/Dockerfile": "FROM x", "tests/test.sh": SCRIPT}
    )
    assert written.config == config
    again = write_harbor(tmp_path / "three", instruction="Go.", config=written.config, files=script)
    assert (again.folder / "task.toml").read_bytes() == (written.folder / "task.toml").read_bytes()
    assert (written.folder / "tests/test.sh").stat().st_mode & 0o111, "scripts may be executed"


def test_an_empty_file_has_the_defaults_of_the_format(tmp_path: Path) -> None:
    task = read_harbor(made(tmp_path / "plain", ""))
    config = task.config
    assert (task.name, task.instruction, config.schema_version, config.steps) == ("plain", "Do it.", "1.4", None)
    environment, verifier = config.environment, config.verifier
    assert (environment.network_mode, environment.build_timeout_sec, environment.os) == ("public", 600, "linux")
    assert (verifier.timeout_sec, verifier.mode, config.agent.timeout_sec) == (600, "shared", None)
    assert HarborConfig.model_validate({"verifier": {"environment": {}}}).verifier.mode == "separate"
    health = HarborConfig.model_validate({"environment": {"healthcheck": {"command": "x"}}}).environment.healthcheck
    assert health is not None
    assert (health.interval_sec, health.timeout_sec, health.start_period_sec, health.start_interval_sec, health.retries) == (5, 30, 0, 5, 3)


def test_what_older_tasks_write_is_understood() -> None:
    old = {"version": "1.0", "environment": {"memory": "2G", "storage": "512M", "allow_internet": True}}
    config = HarborConfig.model_validate(old)
    assert (config.schema_version, config.environment.memory_mb, config.environment.storage_mb) == ("1.0", 2048, 512)
    assert config.environment.network_mode == "public"
    both = {"environment": {"allow_internet": True, "network_mode": "no-network"}}
    assert HarborConfig.model_validate(both).environment.network_mode == "no-network", "the newer field wins"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[environment]\ncpu = 2", "environment.cpu is no field of Harbor's format 1.4, got 2"),
        ("[verifier.environment]\nmemroy_mb = 2", "verifier.environment.memroy_mb is no field"),
        ("[[steps]]\nname = 'a'\nx = 1", "steps.0.x is no field"),
        ("schema_version = '2.0'", "schema_version is one of 1.0, 1.1, 1.2, 1.3, 1.4, got '2.0'"),
        ("[task]\nname = 'noslash'", "task.name: a task's name is 'org/name'"),
        ("[task]\nname = 'org/..name'", "without '..', got 'org/..name'"),
        ("[task]\nversion = '1'", "task.name is missing; add it"),
        ("[environment]\nallowed_hosts = ['example.com']", "allowed_hosts goes with network_mode = 'allowlist' only"),
        ("[agent]\nallowed_hosts = []", "got network_mode = None"),
        (
            "[environment]\nnetwork_mode = 'allowlist'\nallowed_hosts = ['http://example.com']",
            "no URL, port or path, got 'http://example.com'",
        ),
        ("[environment]\nnetwork_mode = 'allowlist'\nallowed_hosts = ['a.*.com']", "'*.' only in front"),
        ("[environment]\nnetwork_mode = 'allowlist'\nallowed_hosts = ['*.192.0.2.1']", "a '*.' stands before a host name"),
        ("[environment]\nnetwork_mode = 'allowlist'\nallowed_hosts = ['192.0.2.1/24']", "has host bits set"),
        ("[environment]\nmemory = '2G'\nmemory_mb = 5", "memory = '2G' and memory_mb = 5 differ"),
        ("[environment]\nmemory = 2", "memory is a text such as '2G', got 2"),
        ("[environment]\nstorage = 'big'", "a size is a number and G, M or K, such as '2G', got 'big'"),
        ("[environment]\ncpus = nan", "cpus is a positive number, got nan"),
        ("[environment]\nos = 'beos'", "environment.os: Input should be 'linux' or 'windows', got 'beos'"),
        ("[environment]\ntpu = {type = 'v6e', topology = '2'}", "such as '2x4', got '2'"),
        ("[environment]\nenv = {A = 1}", "environment.env.A: Input should be a valid string, got 1"),
        ("[verifier]\nenvironment_mode = 'shared'\nenvironment = {}", "contradicts [verifier.environment]"),
        ("[[verifier.collect]]\ncommand = 'x'\nservice = '-a'", "a service's name is made of letters"),
        ("[[steps]]\nname = 'Á'\n[[steps]]\nname = 'á'", "must differ, also without regard to case and Unicode form, got ['Á', 'á']"),
        ("[[steps]]\nname = 'nul.txt'", "must be a directory's name on every system, got 'nul.txt'"),
        ("[[steps]]\nname = 'a/b'", "must be a directory's name"),
        ("artifacts = ['../x']", "an artifact's source has no '..'"),
        ("artifacts = [{source = 'a', destination = '/abs'}]", "a relative path with '/'"),
        ("artifacts = [{source = 'a', destination = 'manifest.json'}]", "is kept for the list of artifacts"),
        ("artifacts = [{source = 'a', service = 'db'}]", "must be an absolute path"),
        ("[[environment.mcp_servers]]\nname = 'a'", "transport 'sse' needs a url"),
        ("[[environment.mcp_servers]]\nname = 'a'\ntransport = 'stdio'", "transport 'stdio' needs a command"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(tmp_path: Path, config: str, words: str) -> None:
    with pytest.raises(TaskError) as caught:
        read_harbor(made(tmp_path, config))
    assert str(caught.value).startswith(str(tmp_path / "task.toml"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "is_allowed"),
    [
        ("Authorization", "Bearer ${TOKEN}", True),
        ("Authorization", "Bearer ${TOKEN:-}", True),
        ("Authorization", "Basic ${ID}:${PASS}", True),
        ("Authorization", "Bearer abc", False),
        ("Authorization", "${TOKEN} abc", False),
        ("Authorization", "Bearer ${TOKEN:-abc}", False),
        ("Cookie", "session=1", False),
        ("X-Api-Key", "", True),
        ("X-Mode", "text ${TOKENS:-5}", True),
        ("X-Mode", "${SECRET:-abc}", False),
        ("X-Mode", "${broken", False),
        ("X Mode", "a", False),
    ],
)
def test_a_header_holds_no_credential(name: str, value: str, is_allowed: bool) -> None:
    data = {"environment": {"mcp_servers": [{"name": "a", "url": "http://b", "headers": {name: value}}]}}
    if is_allowed:
        HarborConfig.model_validate(data)
    else:
        with pytest.raises(ValueError, match="header|name"):
            HarborConfig.model_validate(data)


def test_missing_files_are_named_with_what_they_are_for(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="task.toml: No such file"):
        read_harbor(tmp_path)
    for name, words in (("instruction.md", "instruction.md"), ("tests/test.sh", "/logs/verifier/reward.txt")):
        folder = made(tmp_path / Path(name).name)
        (folder / name).unlink()
        with pytest.raises(TaskError, match=words):
            read_harbor(folder)
    with pytest.raises(TaskError, match="no TOML"):
        read_harbor(made(tmp_path / "broken", "a = "))


def test_a_link_that_leads_out_of_the_task_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "task")
    (folder / "environment/workspace/inner").symlink_to("one.py")
    read_harbor(folder)
    (folder / "environment/workspace/outer").symlink_to("/etc/passwd")
    with pytest.raises(TaskError, match="outer is a link that leads out of the task"):
        read_harbor(folder)


def test_marks_of_a_benchmark_are_not_shown_to_the_agent(tmp_path: Path) -> None:
    text = "<!-- x-canary GUID 1 -->\n# canary 2\n\nDo this.\n# a heading about a canary\n"
    assert read_harbor(made(tmp_path, files={"instruction.md": text})).instruction == "Do this.\n# a heading about a canary\n"


def test_a_directory_that_holds_something_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is not empty"):
        write_harbor(made(tmp_path), instruction="x", config=HarborConfig())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[environment]\nos = 'windows'", "environment.os is 'windows'"),
        ("[environment]\ngpus = 1", "environment.gpus"),
        ("[environment]\ntpu = {type = 'v6e', topology = '2x4'}", "environment.tpu"),
        ("[[environment.mcp_servers]]\nname = 'web'\nurl = 'http://x'", "environment.mcp_servers: servers of a task are not started (web)"),
        ("[environment]\nskills_dir = '/s'", "environment.skills_dir"),
        ("[environment.healthcheck]\ncommand = 'x'", "environment.healthcheck"),
        ("[environment]\nenv = {A = 'b'}", "environment.env"),
        ("[environment]\nworkdir = '/app'", "environment.workdir is '/app'"),
        (
            "[environment]\nnetwork_mode = 'allowlist'\nallowed_hosts = ['pypi.org']",
            "environment.network_mode is 'allowlist': no host is reached, not pypi.org",
        ),
        ("[verifier]\nnetwork_mode = 'allowlist'\nallowed_hosts = ['pypi.org']", "verifier.network_mode"),
        ("[agent]\nuser = 'root'", "agent.user is 'root'"),
        ("[verifier]\nuser = 0", "verifier.user is 0"),
        ("[verifier.env]\nKEY = 'x ${API_KEY}'", "verifier.env.KEY is 'x ${API_KEY}': API_KEY of this host is wanted"),
        ("[solution.env]\nA = 'b'", "solution.env"),
        ("[verifier.environment]\ndocker_image = 'x'", "verifier.environment: a verdict runs in the task's own environment"),
        ("[[verifier.collect]]\ncommand = 'x'", "verifier.collect"),
        ("[[steps]]\nname = 'a'", "steps: a task has one step here"),
        ("artifacts = [{source = '/a', service = 'db'}]\n", "artifacts: '/a' is of service 'db'"),
        ("artifacts = ['/var/x']\n[verifier]\nenvironment_mode = 'separate'", "artifacts: '/var/x' lies outside /workspace"),
    ],
)
def test_what_we_cannot_honour_is_refused_by_name(tmp_path: Path, config: str, words: str) -> None:
    assert words in refused(tmp_path, f"{config}\n")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"environment/docker-compose.yaml": ""}, "environment/docker-compose.yaml"),
        ({"trajectory.json": "{}"}, "trajectory.json"),
        ({"tests/.harborignore": "x"}, "tests/.harborignore"),
        ({"tests/test.sh": "set -e\napt-get update && apt-get install -y curl\n"}, "tests/test.sh, line 2, 'apt-get update"),
    ],
)
def test_files_we_cannot_honour_are_refused_by_name(tmp_path: Path, files: dict[str, str], words: str) -> None:
    assert words in refused(tmp_path, "", files)


def test_a_script_for_windows_alone_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path, OURS, {"tests/test.bat": ""})
    (folder / "tests/test.sh").unlink()
    assert refusals(read_harbor(folder)) == ["tests/test.bat: only tests/test.sh is run, and it is missing"]


def test_a_task_without_workspace_needs_an_image(tmp_path: Path) -> None:
    task = read_harbor(made(tmp_path / "none", ""))
    assert task.needs_image
    assert "there is no environment/Dockerfile, no environment.docker_image" in refusals(task)[0]
    assert refusals(read_harbor(made(tmp_path / "image", "[environment]\ndocker_image = 'x'"))) == []
    assert refusals(read_harbor(made(tmp_path / "built", "", {"environment/Dockerfile": "FROM x"}))) == []


def test_artifacts_in_the_image_s_own_directory_are_given_to_a_verdict(tmp_path: Path) -> None:
    config = "artifacts = ['/app/out.json']\n[verifier]\nenvironment_mode = 'separate'\n"
    task = read_harbor(made(tmp_path / "app", config, {"environment/Dockerfile": "FROM x\nWORKDIR /opt\nWORKDIR /app\n"}))
    assert refusals(task) == []
    task = read_harbor(made(tmp_path / "opt", config, {"environment/Dockerfile": "FROM x\nWORKDIR /opt\n"}))
    assert refusals(task) == ["artifacts: '/app/out.json' lies outside /opt, and a verdict is given nothing else of the agent's"]


def test_an_ordinary_task_is_taken_and_what_differs_is_said(tmp_path: Path) -> None:
    ordinary = (
        "[agent]\ntimeout_sec = 60\n[environment]\nmemory_mb = 64\n[verifier]\nnetwork_mode = 'public'\nenv = {A = '${A:-b}', C = 'd'}\n"
    )
    task = read_harbor(made(tmp_path, ordinary + OURS))
    assert refusals(task) == []
    said = "\n".join(notices(task))
    for words in (
        "environment.network_mode is not set, which means public: the task runs without network",
        "verifier.network_mode is 'public': it runs without network",
        "verifier.environment_mode is 'shared': the verdict runs in another sandbox",
        "agent.timeout_sec is 60",
        "environment.memory_mb holds for the verdict",
        "verifier.env.A: this host's A is never read",
    ):
        assert words in said
    assert role_environment(task.config.verifier.env) == {"A": "b", "C": "d"}


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("pip install pytest==8", True),
        ("python3 -m pip install -q x", True),
        ("pip install --no-index --find-links /wheels x", False),
        ("# pip install x", False),
        ("curl -LsSf https://astral.sh/uv/install.sh | sh", True),
        ("curl http://localhost:8000/health", False),
        ("uvx --with pytest==8.4.1 pytest /tests", True),
        ("git clone https://github.com/a/b", True),
        ("apt-get -qq install -y jq", True),
        ("echo 'pip installs'", False),
        ("python -m pytest tests && echo 1 > /logs/verifier/reward.txt", False),
    ],
)
def test_a_line_that_needs_a_network_is_seen(line: str, needs: bool) -> None:
    assert bool(network_lines(line)) == needs


def test_rewards_are_read_from_json_first() -> None:
    assert read_reward({"reward.json": b'{"reward": 1, "style": 0.5}', "reward.txt": b"0"}) == {"reward": 1.0, "style": 0.5}
    assert read_reward({"reward.txt": b" 0.25\n", "log": b""}) == {"reward": 0.25}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"other": b"1"},
        {"reward.txt": b""},
        {"reward.txt": b"yes"},
        {"reward.txt": b"1 2"},
        {"reward.txt": b"nan"},
        {"reward.txt": b"inf"},
        {"reward.json": b"", "reward.txt": b"1"},
        {"reward.json": b"1"},
        {"reward.json": b"{}"},
        {"reward.json": b"[1]"},
        {"reward.json": b'{"reward": NaN}'},
        {"reward.json": b'{"reward": 1e999}'},
        {"reward.json": b'{"reward": 1' + b"0" * 400 + b"}"},
        {"reward.json": b'{"reward": true}'},
        {"reward.json": b'{"reward": "1"}'},
        {"reward.json": b'{"reward": null}'},
        {"reward.json": b"\xff"},
    ],
)
def test_a_reward_file_that_says_no_number_is_no_verdict(files: dict[str, bytes]) -> None:
    with pytest.raises(VerifierError):
        read_reward(files)


def test_a_task_knows_what_it_is_made_of(tmp_path: Path) -> None:
    task = HarborTask(made(tmp_path, files={"environment/Dockerfile": ""}), "a", "b", HarborConfig())
    assert task.has_dockerfile
