"""Harbor's task.toml, schema_version 1.4, as models: every table and field with its default and its check. Owns no file and no meaning.

Two things are stricter than in Harbor itself: a field that the format does not know is an error, and so is a schema_version above 1.4.
What we honour of it, harbor.py says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from trunkline.tasks.formats import harbor_words as words

SCHEMA_VERSIONS = ("1.0", "1.1", "1.2", "1.3", "1.4")
MAIN_SERVICE = "main"
NetworkMode = Literal["public", "no-network", "allowlist"]
VerifierMode = Literal["shared", "separate"]
Hosts = tuple[Annotated[str, AfterValidator(words.checked_host)], ...]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
User = str | int | None


def _checked_cpus(value: float) -> int | float:
    """Whole numbers become int, as Harbor writes them."""
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"cpus is a positive number, got {value}")
    return int(value) if float(value).is_integer() else value


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _http(value: object) -> object:
    return "streamable-http" if value == "http" else value


def _check_network(mode: NetworkMode | None, hosts: Hosts | None) -> None:
    if mode != "allowlist" and (hosts or (mode is None and hosts is not None)):
        raise ValueError(f"allowed_hosts goes with network_mode = 'allowlist' only, got network_mode = {mode!r} and {list(hosts or ())}")


class _Table(BaseModel):
    """A table of task.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Author(_Table):
    """[[task.authors]]."""

    name: str = Field(description="Who.")
    email: str | None = Field(None, description="Where to write to.")


class PackageConfig(_Table):
    """[task]: the task as a package of a registry."""

    name: Annotated[str, AfterValidator(words.checked_task_name)] = Field(description="'org/name'.")
    version: str | None = Field(None, min_length=1, description="Of the package.")
    description: str = Field("", description="For people.")
    authors: tuple[Author, ...] = Field((), description="Who made it.")
    keywords: tuple[str, ...] = Field((), description="To find it by.")


class HealthcheckConfig(_Table):
    """[environment.healthcheck]: a command that succeeds once the environment is ready."""

    command: str = Field(description="Shell command; status 0 is healthy.")
    interval_sec: Seconds = Field(5.0, description="Between tries.")
    timeout_sec: Seconds = Field(30.0, description="Of one try.")
    start_period_sec: Seconds = Field(0.0, description="In which failures do not count.")
    start_interval_sec: Seconds = Field(5.0, description="Between tries in that period.")
    retries: int = Field(3, description="Failures in a row until it is unhealthy.")


class TpuConfig(_Table):
    """[environment.tpu]."""

    type: str = Field(min_length=1, description="Of the accelerator.")
    topology: Annotated[str, AfterValidator(words.checked_topology)] = Field(description="Such as '2x4'.")


class McpServerConfig(_Table):
    """[[environment.mcp_servers]]: a server that the agent may use."""

    name: str = Field(description="What the agent calls it.")
    transport: Annotated[Literal["stdio", "sse", "streamable-http"], BeforeValidator(_http)] = Field(
        "sse", description="How it is spoken to; 'http' is 'streamable-http'."
    )
    url: str | None = Field(None, description="Of sse and streamable-http.")
    command: str | None = Field(None, description="Of stdio.")
    args: tuple[str, ...] = Field((), description="Of the command.")
    headers: dict[str, str] = Field(default_factory=dict, description="Sent with each request; secrets only as ${VARIABLE}.")

    @model_validator(mode="after")
    def _check_transport(self) -> McpServerConfig:
        for name, value in self.headers.items():
            words.check_header(name, value)
        if self.transport == "stdio":
            if not self.command:
                raise ValueError("transport 'stdio' needs a command")
            if self.headers:
                raise ValueError("headers go with a url, and transport 'stdio' has none")
        elif not self.url:
            raise ValueError(f"transport {self.transport!r} needs a url")
        return self


class EnvironmentConfig(_Table):
    """[environment] and [verifier.environment]: where the agent works, or the verifier."""

    network_mode: NetworkMode = Field("public", description="What it reaches.")
    allowed_hosts: Hosts | None = Field(None, description="With allowlist.")
    build_timeout_sec: Seconds = Field(600.0, description="Of building its image.")
    docker_image: str | None = Field(None, description="An image that exists; then it needs no Dockerfile.")
    os: Annotated[Literal["linux", "windows"], BeforeValidator(_lowered)] = Field("linux", description="What runs in it.")
    cpus: Annotated[int | float, AfterValidator(_checked_cpus)] | None = Field(None, description="Cores.")
    memory_mb: int | None = Field(None, gt=0, description="Memory.")
    storage_mb: int | None = Field(None, gt=0, description="Disk.")
    gpus: int | None = Field(None, ge=0, description="How many.")
    gpu_types: tuple[str, ...] | None = Field(None, description="Any of these; none: any at all.")
    tpu: TpuConfig | None = Field(None, description="A slice.")
    mcp_servers: tuple[McpServerConfig, ...] = Field((), description="What the agent may use.")
    env: dict[str, str] = Field(default_factory=dict, description="Variables; ${VAR} and ${VAR:-default} come from the host.")
    skills_dir: str | None = Field(None, description="Inside; copied to where the agent keeps its skills.")
    healthcheck: HealthcheckConfig | None = Field(None, description="When it is ready.")
    workdir: str | None = Field(None, description="Where commands run; none: the image's.")

    @model_validator(mode="before")
    @classmethod
    def _understand_deprecated(cls, data: Any) -> Any:
        """allow_internet, memory and storage of older tasks, which newer fields replace."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        allows = data.pop("allow_internet", None)
        if allows is not None and "network_mode" not in data and "allowed_hosts" not in data:
            if not isinstance(allows, bool):
                raise ValueError(f"allow_internet is true or false, got {allows!r}; write network_mode instead")
            data["network_mode"] = "public" if allows else "no-network"
        for old in ("memory", "storage"):
            size = data.pop(old, None)
            if size is None:
                continue
            if not isinstance(size, str):
                raise ValueError(f"{old} is a text such as '2G', got {size!r}; write {old}_mb instead")
            if data.setdefault(f"{old}_mb", words.megabytes(size)) != words.megabytes(size):
                raise ValueError(f"{old} = {size!r} and {old}_mb = {data[f'{old}_mb']!r} differ; remove {old}")
        return data

    @model_validator(mode="after")
    def _check_hosts(self) -> EnvironmentConfig:
        _check_network(self.network_mode, self.allowed_hosts)
        return self


class AgentConfig(_Table):
    """[agent]."""

    timeout_sec: Seconds | None = Field(None, description="Of its work.")
    user: User = Field(None, description="Who it is; none: the image's.")
    network_mode: NetworkMode | None = Field(None, description="None: the environment's.")
    allowed_hosts: Hosts | None = Field(None, description="With allowlist.")

    @model_validator(mode="after")
    def _check_hosts(self) -> AgentConfig:
        _check_network(self.network_mode, self.allowed_hosts)
        return self


class CollectConfig(_Table):
    """[[verifier.collect]]: a command that saves what a service knows, after the agent."""

    command: str = Field(description="Shell command.")
    service: Annotated[str, AfterValidator(words.checked_service)] = Field(MAIN_SERVICE, description="Where it runs.")
    timeout_sec: Seconds = Field(60.0, description="Of the command.")
    user: User = Field(None, description="Who runs it.")


class VerifierConfig(_Table):
    """[verifier]."""

    timeout_sec: Seconds = Field(600.0, description="Of the verdict.")
    env: dict[str, str] = Field(default_factory=dict, description="Variables of tests/test.sh.")
    user: User = Field(None, description="Who runs it.")
    environment_mode: VerifierMode | None = Field(None, description="In the agent's environment, or another; see `mode`.")
    environment: EnvironmentConfig | None = Field(None, description="Of its own; then it is separate.")
    collect: tuple[CollectConfig, ...] = Field((), description="What to save first.")
    network_mode: NetworkMode | None = Field(None, description="None: the environment's.")
    allowed_hosts: Hosts | None = Field(None, description="With allowlist.")

    @property
    def mode(self) -> VerifierMode:
        """What the format means: as said, else separate if it has an environment of its own, else shared."""
        return self.environment_mode or ("separate" if self.environment is not None else "shared")

    @model_validator(mode="after")
    def _check_mode(self) -> VerifierConfig:
        _check_network(self.network_mode, self.allowed_hosts)
        if self.environment_mode == "shared" and self.environment is not None:
            raise ValueError("environment_mode = 'shared' contradicts [verifier.environment]; remove one of them")
        return self


class SolutionConfig(_Table):
    """[solution]."""

    env: dict[str, str] = Field(default_factory=dict, description="Variables of solution/solve.sh.")


class ArtifactConfig(_Table):
    """An entry of artifacts: what is kept of an environment."""

    source: Annotated[str, AfterValidator(words.checked_source)] = Field(description="Path inside.")
    destination: Annotated[str | None, AfterValidator(lambda text: None if text is None else words.checked_destination(text))] = Field(
        None, description="Relative; none: like the source."
    )
    exclude: tuple[str, ...] = Field((), description="Patterns left out.")
    service: Annotated[str | None, AfterValidator(lambda text: None if text is None else words.checked_service(text))] = Field(
        None, description="Where it lies; none: main."
    )

    @property
    def is_of_another_service(self) -> bool:
        """Whether it lies elsewhere than where the agent works."""
        return self.service not in (None, MAIN_SERVICE)

    @model_validator(mode="after")
    def _check_place(self) -> ArtifactConfig:
        is_absolute = self.source.startswith("/") or self.source[1:3] in (":/", ":\\")
        if self.is_of_another_service and not is_absolute:
            raise ValueError(f"source {self.source!r} of service {self.service!r} must be an absolute path")
        return self


Artifacts = tuple[str | ArtifactConfig, ...]


class StepConfig(_Table):
    """[[steps]]: one step of a task of several."""

    name: Annotated[str, AfterValidator(words.checked_step_name)] = Field(description="Its directory below steps/.")
    agent: AgentConfig = Field(default_factory=AgentConfig, description="As at the top.")
    verifier: VerifierConfig = Field(default_factory=VerifierConfig, description="As at the top.")
    min_reward: float | dict[str, float] | None = Field(None, description="Less ends the task.")
    healthcheck: HealthcheckConfig | None = Field(None, description="When the step is ready.")
    artifacts: Artifacts = Field((), description="As at the top.")


class HarborConfig(_Table):
    """A whole task.toml."""

    schema_version: str = Field(SCHEMA_VERSIONS[-1], description="Of the format; `version` of old.")
    source: str | None = Field(None, description="Where the task is from.")
    multi_step_reward_strategy: Literal["mean", "final"] | None = Field(None, description="What several steps earn; none: mean.")
    artifacts: Artifacts = Field((), description="What is kept.")
    task: PackageConfig | None = Field(None, description="The task as a package.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Anything; [metadata.trunkline] is ours.")
    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig, description="Where the agent works.")
    agent: AgentConfig = Field(default_factory=AgentConfig, description="The agent.")
    verifier: VerifierConfig = Field(default_factory=VerifierConfig, description="The verdict.")
    solution: SolutionConfig = Field(default_factory=SolutionConfig, description="The oracle.")
    steps: tuple[StepConfig, ...] | None = Field(None, description="Of a task of several.")

    @property
    def artifact_tables(self) -> tuple[ArtifactConfig, ...]:
        """The artifacts of the top, each as a table."""
        return tuple(ArtifactConfig(source=entry) if isinstance(entry, str) else entry for entry in self.artifacts)

    @model_validator(mode="before")
    @classmethod
    def _rename_version(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "version" not in data:
            return data
        rest = {name: value for name, value in data.items() if name != "version"}
        return {"schema_version": data["version"], **rest}

    @model_validator(mode="after")
    def _check_whole(self) -> HarborConfig:
        if self.schema_version not in SCHEMA_VERSIONS:
            raise ValueError(f"schema_version is one of {', '.join(SCHEMA_VERSIONS)}, got {self.schema_version!r}")
        for entries in (self.artifacts, *(step.artifacts for step in self.steps or ())):
            for entry in entries:
                if isinstance(entry, str):
                    words.checked_source(entry)
        names = [step.name for step in self.steps or ()]
        keys = [words.step_key(name) for name in names]
        twice = [name for name, key in zip(names, keys, strict=True) if keys.count(key) > 1]
        if twice:
            raise ValueError(f"steps' names must differ, also without regard to case and Unicode form, got {twice}")
        return self
