"""The recipe: every knob of a run as one checked tree. Owns composition and loading; knobs themselves live in their rooms.

A recipe is a TOML file. `base = "other.toml"` starts from another one beside it; dotted overrides come last:

    trunkline train recipes/quickstart.toml seed=2 rl.optimizer.lr=3e-4
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.agents.context_config import ContextConfig, SubAgentsConfig
from trunkline.agents.workspace_config import WorkspaceConfig
from trunkline.episodes.config import RewardsConfig
from trunkline.errors import ConfigError
from trunkline.metrics.writers import MetricsConfig
from trunkline.models.fetch import resolve_model
from trunkline.pool.config import PoolConfig
from trunkline.sandbox.config import SandboxConfig
from trunkline.trainer.config import LossConfig, OptimizerConfig, TrainerConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScratchModel(_Section):
    """Sizes of a decoder that is initialised at random, with a tokenizer made for the taskset."""

    hidden_size: int = Field(64, ge=8, description="Width of the residual stream.")
    intermediate_size: int = Field(192, ge=8, description="Width of the gated feed-forward layer; of one expert, if there are experts.")
    num_layers: int = Field(3, ge=1, description="Decoder layers.")
    num_heads: int = Field(4, ge=1, description="Query heads; the head width is hidden_size / num_heads.")
    num_kv_heads: int = Field(4, ge=1, description="Key/value heads (GQA if fewer than num_heads).")
    num_experts: int = Field(0, ge=0, description="Experts of each layer, in the shape of MiniMax-M2; 0: a dense model (Qwen3).")
    experts_per_token: int = Field(0, ge=0, description="Experts that each token goes to; 0 exactly where num_experts is.")
    rope_theta: float = Field(1000.0, gt=0, description="Base of the rotary embedding.")
    max_positions: int = Field(512, ge=16, description="Longest context in tokens.")


class ModelConfig(_Section):
    """Where the policy starts."""

    path: Path | None = Field(
        None, description="A Hugging Face folder (safetensors), a .gguf file, or a name of `trunkline model fetch`; none: `scratch`."
    )
    scratch: ScratchModel = Field(ScratchModel(), description="Used when no path is given.")
    renderer: str = Field("tiny", description="How messages become tokens: tiny, chatml, or a name of the renderers package.")

    @property
    def folder(self) -> Path | None:
        """Where `path` leads; None without one. Raises ConfigError if there is no model, or it is not fetched yet."""
        return None if self.path is None else resolve_model(str(self.path))


class TasksetConfig(_Section):
    """What is worked on."""

    name: str = Field("lookup", description="Short name of the taskset.")
    options: dict[str, Any] = Field(default_factory=dict, description="The taskset's own knobs.")
    harder_splits: tuple[str, ...] = Field((), description="Held-out splits that are evaluated and reported beside the main one.")


class AgentConfig(_Section):
    """The agent and its limits: the white-box tool loop, any command, or a published agent by its adapter."""

    command: tuple[str, ...] = Field(
        (), description="A program to run for each attempt, in a sandbox (see `sandbox`), instead of the tool loop."
    )
    adapter: str | None = Field(
        None, description="A published agent instead: a name of `trunkline agent list`, or the path of an adapter's .toml file."
    )
    max_turns: int = Field(8, ge=1, description="Completions an attempt may ask for.")
    deadline_s: float = Field(60.0, gt=0, description="Seconds an attempt may take; the clock stops while the engine is paused.")
    max_tokens: int = Field(32, ge=1, description="Sampled tokens of one completion at most.")
    max_context: int = Field(384, ge=16, description="Prompt plus completion of one call at most.")
    temperature: float = Field(1.0, gt=0, description="Held for every training completion, whatever the agent asks.")
    context: ContextConfig = Field(ContextConfig(), description="What of a conversation the model sees next.")
    sub_agents: SubAgentsConfig = Field(SubAgentsConfig(), description="Conversations that the agent starts for parts of its work.")
    workspace: WorkspaceConfig = Field(WorkspaceConfig(), description="Tools of the tool loop on the directory that a task gives.")


class ColdStartConfig(_Section):
    """Supervised learning on demonstrations before anything else."""

    steps: int = Field(4000, ge=0, description="Optimiser steps; 0 skips the phase.")
    batch_size: int = Field(12, ge=1, description="Demonstrations a step; small batches copy unseen names better.")
    decision_noise: float = Field(0.4, ge=0, le=1, description="Share of decisions in the demonstrations that are wrong on purpose.")
    other_weight: float = Field(0.1, ge=0, description="Loss weight of tokens that the agent does not write.")
    managed_share: float = Field(
        0.0, ge=0, le=1, description="Share of the demonstrations that are shown as agent.context would show them."
    )
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="A fresh AdamW for this phase.")


class StageConfig(_Section):
    """What follows the cold start."""

    method: Literal["rl", "supervision", "rejection_sampling"] = Field(
        "rl",
        description="rl; supervision (more steps on the same demonstrations); rejection_sampling (supervision on own verified successes).",
    )
    steps: int = Field(100, ge=0, description="RL: optimiser steps. Supervision: the same. Rejection sampling: rounds of P groups.")
    baseline: str = Field("leave_one_out", description="Advantage of an attempt within its group: leave_one_out or group_normalised.")
    loss: LossConfig = Field(LossConfig(), description="The RL objective.")
    shuffle_rewards: bool = Field(
        False, description="Control arm: the rewards of a group are dealt out to its attempts at random, so that RL learns nothing true."
    )
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="A fresh AdamW for this stage.")
    checkpoint_every: int = Field(25, ge=1, description="Steps between checkpoints.")
    rejection_passes: int = Field(2, ge=1, description="Rejection sampling: passes over the successes of a round.")


class EvaluationConfig(_Section):
    """Held-out evaluation, before and after; its CPU is not counted."""

    episodes: int = Field(512, ge=2, description="Held-out episodes, the same tasks before and after, sampled at temperature 1.")
    before: bool = Field(True, description="Also before the stage; a control arm that starts from an evaluated checkpoint does without.")
    concurrency: int = Field(256, ge=1, description="Episodes at once.")
    greedy: bool = Field(True, description="Also report success at temperature 0.")
    greedy_episodes: int | None = Field(None, ge=2, description="How many at temperature 0; by default as many as at temperature 1.")


class EngineConfig(_Section):
    """The local engine."""

    max_batch: int = Field(256, ge=1, description="Completions sampled together at most.")
    max_cached_tokens: int = Field(65536, ge=1024, description="Tokens whose keys and values are kept.")


class GatewayConfig(_Section):
    """The wire that agents see."""

    port: int = Field(0, ge=0, le=65535, description="Loopback port; 0 takes a free one.")


class Recipe(_Section):
    """One run."""

    name: str = Field("run", description="Shown in titles.")
    seed: int = Field(1, ge=0, description="Seeds weights, demonstrations, tasks and sampling.")
    run_dir: Path | None = Field(None, description="Where everything is written; default runs/NAME-seedSEED, or the next free name.")
    allow_uncertified: bool = Field(False, description="Train on tasks without a certificate (printed loudly, recorded).")
    model: ModelConfig = ModelConfig()
    taskset: TasksetConfig = TasksetConfig()
    agent: AgentConfig = AgentConfig()
    sandbox: SandboxConfig = SandboxConfig()
    rewards: RewardsConfig = RewardsConfig()
    cold_start: ColdStartConfig = ColdStartConfig()
    stage: StageConfig = StageConfig()
    pool: PoolConfig = PoolConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    trainer: TrainerConfig = TrainerConfig()
    engine: EngineConfig = EngineConfig()
    gateway: GatewayConfig = GatewayConfig()
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.model.path is None and self.model.renderer != "tiny":
            raise ValueError(
                f"model.renderer is {self.model.renderer!r}, but a model from scratch speaks 'tiny'; set model.path or renderer='tiny'"
            )
        if (
            self.stage.method == "rejection_sampling"
            and self.stage.optimizer.lr_end_fraction < 1
            and self.stage.optimizer.total_steps is None
        ):
            raise ValueError("rejection sampling makes as many steps as there are successes; set stage.optimizer.total_steps for its decay")
        if self.stage.method != "rl" and not self.rewards.is_off:
            raise ValueError(f"stage.method {self.stage.method!r} trains on no rewards; set rewards.process and rewards.speed to 0")
        if self.agent.adapter is not None and self.agent.command:
            raise ValueError(f"agent.adapter {self.agent.adapter!r} and agent.command both name the agent; set one of them")
        if self.agent.adapter is not None and self.sandbox.kind in ("unsafe", "container"):
            raise ValueError(
                f"agent.adapter runs in sandbox.kind='isolated', got {self.sandbox.kind!r}; leave it out, or use agent.command"
            )
        if self.sandbox.kind in ("unsafe", "container") and not self.agent.command:
            raise ValueError(f"sandbox.kind is {self.sandbox.kind!r}, but there is no agent.command to run there; the tool loop needs none")
        if (self.sandbox.kind == "container") != (self.sandbox.image is not None):
            raise ValueError("sandbox.image and sandbox.kind='container' go together; set both or none")
        if self.agent.max_tokens >= self.agent.max_context:
            raise ValueError(f"agent.max_tokens {self.agent.max_tokens} must be below agent.max_context {self.agent.max_context}")
        if self.model.path is None and self.agent.max_context > self.model.scratch.max_positions:
            raise ValueError(
                f"agent.max_context {self.agent.max_context} exceeds model.scratch.max_positions {self.model.scratch.max_positions}"
            )
        return self

    @model_validator(mode="after")
    def _check_loop(self) -> Recipe:
        for section, value, default in (
            ("context", self.agent.context, ContextConfig()),
            ("sub_agents", self.agent.sub_agents, SubAgentsConfig()),
            ("workspace", self.agent.workspace, WorkspaceConfig()),
        ):
            if (self.agent.command or self.agent.adapter) and value != default:
                raise ValueError(f"agent.{section} is of our own loop, but the recipe names another agent; remove one of the two")
        if self.agent.workspace.tools and self.sandbox.kind is not None:
            raise ValueError(
                f"with agent.workspace.tools the loop stays outside and its tools have sandboxes, got sandbox.kind={self.sandbox.kind!r}; "
                "leave it out"
            )
        if self.cold_start.managed_share and self.agent.context.method == "keep_all":
            raise ValueError("cold_start.managed_share shows what agent.context leaves; set agent.context.method")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads `path`, follows `base`, applies `key.path=value` overrides, checks every key.

    Raises:
        ConfigError: unreadable file, bad TOML, unknown key (with the nearest known one), bad value.
    """
    tree = _read_tree(path, seen=())
    for override in overrides:
        _apply_override(tree, override)
    _refuse_unknown_keys(tree, Recipe, prefix="", source=path)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'recipe'}: {item['msg']} (got {item['input']!r:.80})" for item in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(lines)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML that load_recipe reads back; keys without a value are left out."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def _read_tree(path: Path, *, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base` leads back to itself; remove one of the links")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}; recipes live in recipes/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    base = tree.pop("base", None)
    if base is None:
        return tree
    return _merge(_read_tree(path.parent / str(base), seen=(*seen, path.resolve())), tree)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value
    return below


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"an override is written key.path=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word or path is a string
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
    tree[leaf] = value


def _refuse_unknown_keys(tree: Mapping[str, Any], model: type[BaseModel], *, prefix: str, source: Path) -> None:
    known = model.model_fields
    for key, value in tree.items():
        if key not in known:
            every = [*_dotted_keys(Recipe)]
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or difflib.get_close_matches(prefix + key, every, n=1, cutoff=0.4)
            hint = (
                f"; did you mean {prefix + near[0] if near[0] in known else near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            )
            raise ConfigError(f"{source}: unknown key {prefix + key!r}{hint}")
        section = known[key].annotation
        if isinstance(value, Mapping) and isinstance(section, type) and issubclass(section, BaseModel):
            _refuse_unknown_keys(value, section, prefix=f"{prefix}{key}.", source=source)


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _dotted_keys(section, f"{prefix}{name}.")
        else:
            yield prefix + name
