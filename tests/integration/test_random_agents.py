"""Random agents over real HTTP and a real engine, whose weights change meanwhile: what is trained is what was sampled.

Agents append, edit, truncate, summarise, forget, fork sub-agents, ask side questions, put words into the model's mouth, ask for
several samples, stop early, leave without their answer and ask again.
"""

# T tokens of prompt and completion, V vocabulary

from __future__ import annotations

import asyncio
import copy
import random
import string
from collections import Counter
from dataclasses import replace

import httpx
import pytest
import torch

from trunkline.asgi import serve_port
from trunkline.attention.base import CausalAttend
from trunkline.attention.forest import build_forest
from trunkline.engine.local import LocalEngine
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.run.numbers import AFTER_STOP, dropped_tokens
from trunkline.trainer.samples import samples_from_groups
from trunkline.types import Episode, Group, Message, PolicyVersion, Reward, Task, ToolCall, ToolSpec
from trunkline.weights.files import publish

TOLERANCE = 5e-5
GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"x": {"type": "string"}}})
WIRE_TOOL = {"type": "function", "function": {"name": "get", "description": "One fact", "parameters": dict(GET.parameters)}}
TOKENIZER = build_tiny_tokenizer(
    special_tokens=TINY.special_tokens, pieces=["get"], characters=string.ascii_lowercase + string.digits + " .?~<|>_"
)
RENDERER = MarkupRenderer(TOKENIZER, TINY)
CONFIG = DecoderConfig(
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_positions=2048,
)
VERSIONS = [PolicyVersion(1, step) for step in range(4)]
NUM_SAMPLED = 24


def talkative_policy(*, seed, steps):
    """A policy that calls or answers after an assistant's mark, more or less well."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    decoder = init_decoder(CONFIG, seed=seed)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(steps):
        word = "".join(rng.choices("abc", k=3))
        calls = tuple(ToolCall("", "get", f'{{"x":"{word[place]}"}}') for place in range(rng.randrange(3)))
        before = (Message("user", "".join(rng.choices(string.ascii_lowercase, k=5))),)
        prompt = RENDERER.prompt(before, (GET,))
        ids = torch.tensor(prompt + RENDERER.reply((*before, Message("assistant", "" if calls else word, calls)), (GET,)))
        logits_TV = decoder.logits(decoder(ids, torch.arange(len(ids)), CausalAttend()))
        loss = torch.nn.functional.cross_entropy(logits_TV[len(prompt) - 1 : -1], ids[len(prompt) :])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder.requires_grad_(False)


class RealEngine:
    """The local engine, stepped by a task of this loop; remembers every token that it handed out."""

    def __init__(self, decoder):
        self.engine = LocalEngine.build(copy.deepcopy(decoder), version=VERSIONS[0], num_slots=65536, max_batch=32, max_step_tokens=512)
        self.waiting = {}
        self.sampled = {}

    async def run(self):
        while True:
            for done in self.engine.step() if self.engine.has_work else ():
                self.sampled[done.request_id] = done.generation
                self.waiting.pop(done.request_id).set_result(done.generation)
            await asyncio.sleep(0)

    async def generate(self, request):
        self.waiting[request.request_id] = asyncio.get_running_loop().create_future()
        self.engine.add(request)
        return await self.waiting[request.request_id]

    async def abort(self, request_ids):
        for done in self.engine.abort([one for one in request_ids if one in self.waiting]):
            self.sampled[done.request_id] = done.generation
            self.waiting.pop(done.request_id).set_result(done.generation)

    async def pause(self):
        pass

    async def resume(self):
        pass


class Journal:
    """Rows in memory."""

    def __init__(self):
        self.rows = []

    async def record_completion(self, episode_id, completion, messages):
        self.rows.append(completion)


class RandomAgent:
    """Works on nothing, in every way that agents do."""

    def __init__(self, http, rng):
        self.http, self.rng = http, rng
        self.history = [{"role": "system", "content": "you look up"}, {"role": "user", "content": "area?"}]

    async def work(self, num_moves, *, depth=0):
        for _ in range(num_moves):
            move = self.rng.choice(
                ["append"] * 6 + ["edit", "window", "summary", "forget", "foreign", "side", "samples", "stop", "leave", "again", "sub"]
            )
            if move == "sub":
                if depth == 0:
                    await asyncio.gather(*(RandomAgent(self.http, random.Random(self.rng.random())).work(4, depth=1) for _ in range(2)))
            else:
                await getattr(self, move)()

    async def ask(self, messages, **more):
        body = {"model": "x", "messages": messages, "tools": [WIRE_TOOL], "max_tokens": NUM_SAMPLED, **more}
        response = await self.http.post("/v1/chat/completions", json=body, timeout=60)
        assert response.status_code == 200, response.text
        return [choice["message"] for choice in response.json()["choices"]]

    async def append(self, **more):
        reply = self.rng.choice(await self.ask(self.history, **more))
        self.history.append(reply)
        self.results(reply)

    def results(self, reply):
        said = "".join(self.rng.choices(string.digits, k=3))
        calls = reply.get("tool_calls", ())
        self.history += [{"role": "tool", "tool_call_id": call["id"], "content": said} for call in calls]
        if not calls:
            self.history.append({"role": "user", "content": f"and {said}?"})

    async def edit(self):
        place = self.rng.randrange(len(self.history))
        if self.history[place]["role"] == "user":
            self.history[place] = {"role": "user", "content": f"no {self.rng.randrange(99)}"}
        await self.append()

    async def window(self):
        cut = self.rng.randrange(1, len(self.history))
        while cut < len(self.history) and self.history[cut]["role"] == "tool":
            cut += 1
        self.history = [*self.history[:1], *self.history[cut:]]
        if len(self.history) == 1:
            self.history.append({"role": "user", "content": "go on"})
        await self.append()

    async def summary(self):
        (reply,) = await self.ask([*self.history, {"role": "user", "content": "sum up"}])
        self.history = [*self.history[:1], {"role": "user", "content": f"so far {reply['content'] or ''}"}]
        await self.append()

    async def forget(self):
        self.history = self.history[:1] + [one for one in self.history if one["role"] == "user"][:1]
        await self.append()

    async def foreign(self):
        self.history += [{"role": "assistant", "content": "never said"}, {"role": "user", "content": "true?"}]
        await self.append()

    async def side(self):
        await self.ask([{"role": "user", "content": "a title?"}], tools=[])

    async def samples(self):
        await self.append(n=3)

    async def stop(self):
        await self.append(stop=["a", "b"])

    async def leave(self):
        body = {"messages": self.history, "tools": [WIRE_TOOL], "max_tokens": NUM_SAMPLED}
        try:
            await self.http.post("/v1/chat/completions", json=body, timeout=0.001)
        except httpx.TimeoutException:
            pass

    async def again(self):
        await self.ask(self.history)
        await self.ask(self.history)


async def episode_of(seed, policies, weights):
    """One episode of a random agent; weights change twice under it."""
    engine, journal = RealEngine(policies[0]), Journal()
    gateway = Gateway(engine, RENDERER, journal, model_name="tiny")
    budget = SessionBudget(max_calls=9999, max_tokens=10**9, max_context=2048)
    opened = gateway.open_session(episode_id="e", seed=seed, hold=SamplingHold(temperature=1.3, max_tokens=NUM_SAMPLED), budget=budget)
    running, serving = asyncio.create_task(engine.run()), await serve_port(build_app(gateway))

    async def publish_meanwhile():
        for num_calls, ref in zip((12, 24), weights[1:], strict=True):
            while len(engine.sampled) < num_calls:
                await asyncio.sleep(0)
            engine.engine.update_weights(ref)

    headers = {"authorization": f"Bearer {opened.secret}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{serving.port}", headers=headers, trust_env=False) as http:
        await asyncio.gather(RandomAgent(http, random.Random(seed)).work(22), publish_meanwhile())
    await gateway.close_session(opened.session_id)
    await serving.stop()
    running.cancel()
    completions, messages = gateway.episode_record("e")
    assert {one.completion_id for one in journal.rows} == {one.completion_id for one in completions}
    episode = Episode("e", "g", "t", 0, "finished", completions, messages, (Reward("outcome", 1.0, "right"),))
    return episode, engine.sampled


@pytest.fixture(scope="module")
def policies():
    first = talkative_policy(seed=1, steps=60)
    return [first, talkative_policy(seed=2, steps=30), talkative_policy(seed=3, steps=50)]


@pytest.fixture(scope="module", params=[1, 2, 3])
def played(request, policies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    weights = [publish(policy.state_dict(), version, folder) for policy, version in zip(policies, VERSIONS, strict=False)]
    return asyncio.run(asyncio.wait_for(episode_of(request.param, policies, weights), 120))


def group_of(episode):
    other = replace(episode, episode_id="o", attempt=1, completions=(), rewards=(Reward("outcome", 0.0, "wrong"),))
    return Group("g", 0, Task("t", "lookup", "k", (Message("user", "?"),), {}), (episode, other))


def test_every_sampled_token_is_trained_once_or_counted_with_a_reason(played):
    episode, sampled = played
    assert {one.completion_id for one in episode.completions} == set(sampled)
    group = group_of(episode)
    trained = Counter()
    for sample in samples_from_groups([group], baseline="leave_one_out"):
        trained[sample.token_ids] += sum(sample.mask)
    dropped = dropped_tokens([group])
    assert sum(trained.values()) + sum(dropped.values()) == sum(len(one.token_ids) for one in sampled.values())
    for one in episode.completions:
        handed_out = sampled[one.completion_id]
        assert one.generation.token_ids == handed_out.token_ids[: one.num_sampled]
        assert one.num_sampled + one.facts.num_discarded == len(handed_out.token_ids)
        assert one.generation.logprobs == handed_out.logprobs[: one.num_sampled]
    assert dropped.get(AFTER_STOP, 0) == sum(one.facts.num_discarded for one in episode.completions)


def test_recorded_logprobs_are_the_policys_own_at_their_version_within_5e_5(played, policies):
    """Recomputed by a full forward of each call; calls that span an update keep their cache and are exempt."""
    episode, _ = played
    checked = Counter()
    for one in episode.completions:
        versions = {span.version for span in one.generation.version_spans}
        if len(versions) > 1 or not one.num_sampled:
            continue
        (version,) = versions
        decoder, ids = policies[VERSIONS.index(version)], torch.tensor(one.prompt_ids + one.generation.token_ids)
        logits_TV = decoder.logits(decoder(ids, torch.arange(len(ids)), CausalAttend())).double() / one.sampling.temperature
        logprobs_TV = torch.log_softmax(logits_TV, -1)[len(one.prompt_ids) - 1 : -1]
        picked = logprobs_TV.gather(1, ids[len(one.prompt_ids) :, None]).squeeze(1).tolist()
        assert one.generation.logprobs == pytest.approx(picked, abs=TOLERANCE)
        checked[version] += 1
    assert len(checked) >= 2, f"the weights should have changed under way: {checked}"


def test_no_token_of_a_tool_result_is_trained(played):
    """Results stand in prompts, and of a sample only what was sampled is trained."""
    episode, _ = played
    trainable = [one for one in episode.completions if one.drop_reason is None and one.num_sampled]
    samples = samples_from_groups([group_of(episode)], baseline="leave_one_out")
    assert any(TOKENIZER.token_id(TINY.tool.mark) in one.prompt_ids for one in trainable)
    for one, sample in zip(trainable, samples, strict=True):
        assert sample.token_ids == one.prompt_ids + one.generation.token_ids
        assert sample.mask == (False,) * len(one.prompt_ids) + (True,) * one.num_sampled


def test_the_forest_shares_what_the_transcripts_share(played):
    """An extension adds its new tokens alone; repeats and further samples share the whole prompt."""
    episode, _ = played
    sequences = [one.prompt_ids + one.generation.token_ids for one in episode.completions]
    forest = build_forest(sequences)
    distinct = {sequence[:length] for sequence in sequences for length in range(1, len(sequence) + 1)}
    assert forest.num_tokens == len(distinct)
    by_id = {one.completion_id: one for one in episode.completions}
    for one in episode.completions:
        if one.parent_id is not None:
            parent = by_id[one.parent_id]
            assert one.prompt_ids[: one.num_shared] == parent.prompt_ids + parent.generation.token_ids
    assert forest.num_tokens < 0.7 * forest.num_flat_tokens


def test_the_agents_rewrites_are_told_by_their_words(played):
    episode, _ = played
    words = Counter(one.facts.lineage for one in episode.completions)
    assert words["first"] == 1
    assert words["extension"] > 3
    assert len(words) >= 4, words
    assert sum(one.parent_id is not None for one in episode.completions) >= words["extension"]
