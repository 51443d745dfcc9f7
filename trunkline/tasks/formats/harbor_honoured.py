"""What of a Harbor task we honour, and what we don't. Owns the refusals and notices of an import; runs nothing.

Whatever a task says, it is run without network and its verdict in another sandbox than the agent's. What a task asks beyond that, and
what else we cannot give, is refused by name; what runs differently than its author may expect is said.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trunkline.errors import TaskError
from trunkline.tasks.formats import harbor_words as words
from trunkline.tasks.formats.harbor import DOCKERFILE, SOLVE_SCRIPT, TEST_SCRIPT, WORKSPACE, HarborTask, read_text
from trunkline.tasks.formats.harbor_config import EnvironmentConfig, HarborConfig

_OTHER_ENGINES = ("docker-compose.yaml", "docker-compose.yml", "compose.yaml", "compose.yml", "singularity-compose.yaml")
_IGNORE_FILE = ".harborignore"
_NEEDS_NETWORK = re.compile(
    r"""\b(
    (?: (apt|apt-get|apk|yum|dnf|microdnf|zypper|conda|mamba|brew) \s+ (-\S+\s+)* (install|add|update|upgrade)
    | (pip[\d.]* | uv\s+pip) \s+ (install|download)
    | uvx | npx | uv\s+(add|sync|tool|python\s+install) | uv\s+run\b.*\s(--with|-w)
    | (npm|pnpm|yarn) \s+ (install|ci|i|add)
    | cargo\s+(install|add|fetch) | go\s+(get|install) | gem\s+install | git\s+(clone|fetch|pull)
    )(?![\w'.-])
    | (curl|wget)\b .* (https?|ftp)://(?!localhost|127\.)
    )""",
    re.VERBOSE,
)
_WORKDIR = re.compile(r"^\s*WORKDIR\s+(/\S+)\s*$", re.MULTILINE | re.IGNORECASE)
_OFFLINE = ("--no-index", "--offline", "--no-build-isolation")


def refusals(task: HarborTask) -> list[str]:
    """What a task asks that we cannot give, each with the field or file that asks; empty: it can be imported."""
    return [*_environment_refusals(task), *_role_refusals(task), *_file_refusals(task)]


def notices(task: HarborTask) -> list[str]:
    """What runs differently than a task's author may expect."""
    config = task.config
    found = []
    if config.environment.network_mode == "public":
        said = "is 'public'" if "network_mode" in config.environment.model_fields_set else "is not set, which means public"
        found.append(f"environment.network_mode {said}: the task runs without network")
    found += [
        f"{role}.network_mode is 'public': it runs without network"
        for role, table in (("agent", config.agent), ("verifier", config.verifier))
        if table.network_mode == "public"
    ]
    if config.verifier.mode == "shared":
        found.append(
            "verifier.environment_mode is 'shared': the verdict runs in another sandbox than the agent's, and sees of its work only the "
            f"changed files of {WORKSPACE}"
        )
    if config.agent.timeout_sec is not None:
        found.append(f"agent.timeout_sec is {config.agent.timeout_sec:g}: the recipe's deadline holds, not this one")
    sizes = [name for name in ("cpus", "memory_mb", "storage_mb") if getattr(config.environment, name) is not None]
    found += [f"environment.{name} holds for the verdict; the agent's sandbox has the recipe's limits" for name in sizes]
    found += [f"verifier.env.{name}: this host's {variable} is never read, the default holds" for name, variable in _defaults(config)]
    found += [f"artifacts: {entry.source!r} is not collected" for entry in config.artifact_tables]
    return found


def _environment_refusals(task: HarborTask) -> Iterator[str]:
    environment = task.config.environment
    if environment.os != "linux":
        yield f"environment.os is {environment.os!r}: sandboxes are Linux"
    for name in ("gpus", "gpu_types", "tpu"):
        if getattr(environment, name):
            yield f"environment.{name}: sandboxes have no accelerator"
    if environment.mcp_servers:
        yield f"environment.mcp_servers: servers of a task are not started ({', '.join(server.name for server in environment.mcp_servers)})"
    if environment.skills_dir is not None:
        yield "environment.skills_dir: skills are not installed for agents"
    if environment.healthcheck is not None:
        yield "environment.healthcheck: nothing is started in an environment, so there is nothing to wait for"
    if environment.env:
        yield f"environment.env: variables of the agent's sandbox are not set ({', '.join(environment.env)}); write ENV in {DOCKERFILE}"
    workdir = environment.workdir
    if workdir is not None and not task.needs_image and workdir != WORKSPACE:
        yield f"environment.workdir is {workdir!r}: a workspace from environment/ lies at {WORKSPACE}"
    yield from _network_refusals(task.config)


def _network_refusals(config: HarborConfig) -> Iterator[str]:
    for role, table in (("environment", config.environment), ("agent", config.agent), ("verifier", config.verifier)):
        if table.network_mode == "allowlist":
            yield f"{role}.network_mode is 'allowlist': no host is reached, not {', '.join(table.allowed_hosts or ()) or 'any'} either"


def _role_refusals(task: HarborTask) -> Iterator[str]:
    config = task.config
    for role, user in (("agent", config.agent.user), ("verifier", config.verifier.user)):
        if user is not None:
            yield f"{role}.user is {user!r}: everything runs as one ordinary user of the sandbox"
    for name, value in config.verifier.env.items():
        yield from _secret_refusal(f"verifier.env.{name}", value)
    if config.solution.env:
        yield f"solution.env: variables of {SOLVE_SCRIPT} are not set ({', '.join(config.solution.env)})"
    own = config.verifier.environment
    if own is not None and own != EnvironmentConfig(network_mode=own.network_mode, allowed_hosts=own.allowed_hosts):
        yield "verifier.environment: a verdict runs in the task's own environment, not in one of the verifier's"
    if own is not None and own.network_mode == "allowlist":
        yield "verifier.environment.network_mode is 'allowlist': a verdict has no network"
    if config.verifier.collect:
        yield "verifier.collect: nothing is run in the agent's sandbox after it"
    if config.steps:
        yield f"steps: a task has one step here, not {len(config.steps)}"
    for entry in config.artifact_tables:
        if entry.is_of_another_service:
            yield f"artifacts: {entry.source!r} is of service {entry.service!r}, and there are no services"
        elif config.verifier.mode == "separate" and not _is_in_workspace(task, entry.source):
            yield f"artifacts: {entry.source!r} lies outside {working_directory(task)}, and a verdict is given nothing else of the agent's"


def working_directory(task: HarborTask) -> str:
    """What the agent works on, as the task calls it inside."""
    if not task.needs_image:
        return WORKSPACE
    named = _WORKDIR.findall(read_text(task.folder / DOCKERFILE)) if task.has_dockerfile else []
    return posixpath.normpath(task.config.environment.workdir or (named[-1].strip("\"' ") if named else WORKSPACE))


def _is_in_workspace(task: HarborTask, source: str) -> bool:
    places = (working_directory(task), WORKSPACE)
    return not source.startswith("/") or any(source == place or source.startswith(f"{place}/") for place in places)


def _secret_refusal(place: str, value: str) -> Iterator[str]:
    try:
        words.resolved(value)
    except ValueError as error:
        yield f"{place} is {value!r}: {error}; no variable of this host enters a sandbox"


def _defaults(config: HarborConfig) -> list[tuple[str, str]]:
    return [
        (name, variable)
        for name, value in config.verifier.env.items()
        for variable, default in words.variables(value)
        if default is not None
    ]


def _file_refusals(task: HarborTask) -> Iterator[str]:
    folder, environment = task.folder, task.config.environment
    for name in _OTHER_ENGINES:
        if (folder / "environment" / name).exists():
            yield f"environment/{name}: an environment is one container or one workspace, not services"
    if task.needs_image and environment.docker_image is None and not task.has_dockerfile:
        yield f"environment: there is no {DOCKERFILE}, no environment.docker_image and no metadata.trunkline.workspace to work on"
    if (folder / "trajectory.json").exists():
        yield "trajectory.json: agents begin without a history"
    if task.config.verifier.mode == "separate":
        for name in ("Dockerfile", *_OTHER_ENGINES):
            if (folder / "tests" / name).exists():
                yield f"tests/{name}: a verdict runs in the task's own environment, not in one of the verifier's"
    for path in _ignore_files(folder):
        yield f"{path.relative_to(folder)}: files of tests and solution are not left out"
    if task.config.steps:
        return
    if not (folder / TEST_SCRIPT).is_file():
        yield f"tests/test.bat: only {TEST_SCRIPT} is run, and it is missing"
        return
    for number, line in network_lines(read_text(folder / TEST_SCRIPT)):
        yield f"{TEST_SCRIPT}, line {number}, {line!r}: it needs a network, and a verdict has none; do it in {DOCKERFILE}"


def _ignore_files(folder: Path) -> Iterable[Path]:
    tops = (folder, *(folder / name for name in ("tests", "solution")))
    return [tops[0] / _IGNORE_FILE] * (tops[0] / _IGNORE_FILE).exists() + sorted(
        path for top in tops[1:] for path in top.rglob(_IGNORE_FILE)
    )


def network_lines(script: str) -> list[tuple[int, str]]:
    """Lines of a shell script that evidently need a network, with their numbers, from 1."""
    found = []
    for number, line in enumerate(script.splitlines(), 1):
        code = line.strip()
        if not code.startswith("#") and _NEEDS_NETWORK.search(code) and not any(option in code for option in _OFFLINE):
            found.append((number, code[:100]))
    return found


def role_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Variables of a verifier with their defaults put in. Raises TaskError where one of this host would be needed."""
    try:
        return {name: words.resolved(value) for name, value in env.items()}
    except ValueError as error:
        raise TaskError(f"verifier.env: {error}; no variable of this host enters a sandbox") from error
