"""A model whose architecture is transformers' own: trained, saved and served as ours are, up to the end of its sliding window."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

from tests.in_process import trunkline
from tests.integration.test_serve import serving
from trunkline.errors import ConfigError
from trunkline.gateway.markup import TINY
from trunkline.metrics.jsonl import read_metrics
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.tasks.lookup import vocabulary

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
WINDOW = 400  # beyond agent.max_context (384), below max_position_embeddings
# Of a policy that knows nothing yet, attempts differ in what they get wrong: that is enough of a gradient.
SHORT = [
    'taskset.options={kinds={"one_hop.area"=1},invented_share=0.0}',
    "taskset.harder_splits=[]",
    "cold_start.steps=40",
    "stage.steps=2",
    "rewards.process=0.1",
    "pool.group_size=8",
    "pool.window.groups_per_step=1",
    "pool.window.max_off_policy_steps=0",
    "evaluation.episodes=2",
    "evaluation.before=false",
    "evaluation.greedy=false",
]


def train(model: Path, *overrides: str) -> None:
    trunkline("train", str(ROOT / "recipes" / "quickstart.toml"), f"model.path={model}", *SHORT, *overrides)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "gemma"
    tokenizer = build_tiny_tokenizer(special_tokens=TINY.special_tokens, pieces=vocabulary.PIECES, characters=vocabulary.CHARACTERS)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=WINDOW,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def run_dir(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "run"
    train(model, f"run_dir={path}")
    return path


def test_on_policy_samples_of_engine_and_trainer_agree_to_5e_5(run_dir: Path) -> None:
    steps = [row for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "rl"]
    assert len(steps) == 2
    for row in steps:
        assert row["trained_tokens"] > 0 and row["grad_norm"] > 0
        assert row["sampler_trainer_gap"] <= 5e-5
        assert row["forest_tokens"] < row["flat_tokens"], "shared prefixes are computed once"


def test_the_final_policy_is_of_the_same_architecture_and_learnt_something(run_dir: Path, model: Path) -> None:
    before = AutoModelForCausalLM.from_pretrained(model).state_dict()
    after = AutoModelForCausalLM.from_pretrained(run_dir / "checkpoints" / "final")
    assert type(after) is Gemma3ForCausalLM and after.config.sliding_window == WINDOW
    assert not any(torch.equal(tensor, before[name]) for name, tensor in after.state_dict().items())
    losses = [row["loss"] for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "supervised"]
    assert losses[-1] < losses[0]


def test_a_context_beyond_the_sliding_window_is_refused_before_training(model: Path, tmp_path: Path) -> None:
    wanted = f"agent.max_context is {WINDOW + 1}, but the model computes contexts of up to {WINDOW} tokens"
    with pytest.raises(ConfigError, match=wanted):
        train(model, f"run_dir={tmp_path / 'run'}", f"agent.max_context={WINDOW + 1}")
    assert not list((tmp_path / "run").glob("checkpoints/*")), "no cold start"


def test_serving_ends_contexts_where_the_window_ends(run_dir: Path) -> None:
    with serving(run_dir / "checkpoints" / "final") as (_, served):
        client = openai.OpenAI(base_url=served.base_url, api_key=served.key, max_retries=0)
        with pytest.raises(openai.BadRequestError, match=f"{WINDOW - 1} maximum; shorten it"):
            client.chat.completions.create(model="any", messages=[{"role": "user", "content": "a" * WINDOW}])
