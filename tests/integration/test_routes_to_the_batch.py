"""Recorded routes all the way: a sparse engine's process, gateway, journal on disk, samples, the trainer's batch as bytes."""

# T tokens of a sample, R records, L layers, K experts a token and layer

from __future__ import annotations

import asyncio
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trunkline.attention.base import CausalAttend
from trunkline.engine.client import EngineClient
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.sampling import AskedSampling, SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.gateway.wire import Ask
from trunkline.models.checkpoint import init_decoder, load_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.routing import Recording
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.pool.journal import Journal
from trunkline.pool.journal_reader import JournalReader
from trunkline.trainer.batch import SampleBatch
from trunkline.trainer.samples import samples_from_groups
from trunkline.types import Completion, Episode, Group, Message, Reward, Task

TOKENIZER = build_tiny_tokenizer(special_tokens=TINY.special_tokens, pieces=[], characters=string.ascii_lowercase + " ")
CONFIG = DecoderConfig(
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=32,
    intermediate_size=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    qk_norm="full",
    rotary_dim=8,
    num_experts=16,
    experts_per_token=3,
    max_positions=400,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_decoder(init_decoder(CONFIG, seed=1), folder)
    return folder


@pytest.fixture(params=["sampled", "all"])
def engine(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """What it reports, and its socket. fp64: no two experts are so close that the order of a sum decides between them."""
    arguments = ["--model", str(model), "--socket", str(tmp_path / "e.sock"), "--version", "1.0", "--dtype", "float64"]
    process = subprocess.Popen([sys.executable, "-m", "trunkline.engine.server", *arguments, "--return-routes", request.param])
    try:
        yield request.param, tmp_path / "e.sock"
    finally:
        process.kill()
        process.wait()


async def _episode(gateway: Gateway, journal: Journal, attempt: int) -> None:
    """Two samples of one question; then two questions more behind the first of them; one call ends at a stop string."""
    name = f"g0-a{attempt}"
    opened = gateway.open_session(episode_id=name, seed=attempt, hold=SamplingHold(max_tokens=20), budget=SessionBudget())
    session = gateway.session(opened.secret)
    history: tuple[Message, ...] = (Message("user", "what is this"),)
    for asked, num_samples in ((AskedSampling(), 2), (AskedSampling(stop=("e", "t", "a", "o")), 1), (AskedSampling(), 1)):
        first = (await gateway.complete(session, Ask(history, asked=asked, num_samples=num_samples)))[0]
        history = (*history, first.message, Message("user", "and this"))
    await gateway.close_session(opened.session_id)
    record = gateway.episode_record(name)
    rewards = (Reward("outcome", float(attempt), "made up"),)
    await journal.record_episode(Episode(name, "g0", "t", attempt, "finished", record.completions, record.messages, rewards))


async def _play(socket_path: Path, journal_path: Path) -> None:
    client = EngineClient(socket_path)
    await client.wait_ready(60)
    journal = Journal.open(journal_path)
    gateway = Gateway(client, MarkupRenderer(TOKENIZER, TINY), journal, model_name="tiny")
    await journal.record_group("g0", 0, Task("t", "set", "kind", (Message("user", "?"),), {}))
    await asyncio.gather(*(_episode(gateway, journal, attempt) for attempt in range(2)))
    await journal.close()
    await client.close()


def _check_stored_once(group: Group, reports: str) -> None:
    """A call's record begins where its parent's ends; there is no other parent's record of the same tokens."""
    for episode in group.episodes:
        by_id = {call.completion_id: call for call in episode.completions}
        for call in episode.completions:
            assert call.generation.routes is not None
            expected = len(call.prompt_ids) if reports == "sampled" else max(0, call.num_shared - 1)
            assert call.generation.routes.first == expected
            assert call.generation.routes.first + call.generation.routes.num_tokens == len(call.prompt_ids) + call.num_sampled - 1
            if call.parent_id and reports == "all":
                assert _end(by_id[call.parent_id]) == call.generation.routes.first


def _sampled_places(call: Completion, by_id: Mapping[str, Completion]) -> set[int]:
    """Where a call's tokens were sampled, by it or by its ancestors, each time all but the last."""
    own = set(range(len(call.prompt_ids), len(call.prompt_ids) + call.num_sampled - 1))
    return own | (_sampled_places(by_id[call.parent_id], by_id) if call.parent_id else set())


def _end(call: Completion) -> int:
    assert call.generation.routes is not None
    return call.generation.routes.first + call.generation.routes.num_tokens


@torch.no_grad()
def _full_routes(decoder: Decoder, token_ids: NDArray[np.int64]) -> NDArray[np.uint16]:
    recording = Recording(len(token_ids), CONFIG.num_layers, CONFIG.experts_per_token)
    decoder(torch.from_numpy(token_ids), torch.arange(len(token_ids)), CausalAttend(), recording)
    return np.sort(recording.experts_TLK.numpy(), axis=-1)


def test_the_batch_holds_the_routes_that_every_token_was_sampled_with(engine: tuple[str, Path], model: Path, tmp_path: Path) -> None:
    reports, socket_path = engine
    asyncio.run(_play(socket_path, tmp_path / "journal.sqlite"))
    with JournalReader.open(tmp_path / "journal.sqlite") as reader:
        (group,) = reader.groups()
    _check_stored_once(group, reports)
    calls = [call for episode in group.episodes for call in episode.completions]
    by_id = {call.completion_id: call for call in calls}
    assert any(call.facts.num_discarded for call in calls) and any(call.parent_id for call in calls)
    samples = samples_from_groups([group], baseline="leave_one_out")
    batch = SampleBatch.from_bytes(SampleBatch.from_samples(samples).to_bytes())
    assert len(samples) == len(calls) == 8
    decoder = load_decoder(model, dtype=torch.float64)
    offsets = np.cumsum(batch.lengths_S) - batch.lengths_S
    for offset, token_ids, call in zip(offsets, batch.sequences(), calls, strict=True):
        row_T = batch.route_of_F[offset : offset + len(token_ids)]
        found_T = np.flatnonzero(row_T >= 0)
        assert set(found_T) == (set(range(len(token_ids) - 1)) if reports == "all" else _sampled_places(call, by_id))
        assert np.array_equal(np.sort(batch.routes_RLK[row_T[found_T]], axis=-1), _full_routes(decoder, token_ids)[found_T])
    assert len(batch.routes_RLK) == sum(_end(call) - call.generation.routes.first for call in calls if call.generation.routes)
