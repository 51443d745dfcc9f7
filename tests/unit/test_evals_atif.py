"""Episodes as ATIF trajectories and back: exact both ways, valid by the format's rules, and clear about what is wrong or left out."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.test_gateway_conversations import OFFER, USER, results, stack
from trunkline.errors import ConfigError
from trunkline.evals.atif import atif_to_episode, episode_to_atif, import_trajectory
from trunkline.evals.atif_schema import Agent, Trajectory, read_trajectory, write_trajectory
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.gateway.wire import Ask
from trunkline.types import (
    CallFacts,
    Completion,
    Episode,
    EpisodeStatus,
    Failure,
    Generation,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    RoutedExperts,
    SamplingParams,
    SandboxAct,
    ToolCall,
    VersionSpan,
)

# --- any episode ------------------------------------------------------------------------------------------------------

token_ids = st.integers(-(2**31), 2**31 - 1)
# Any text at all, lone surrogates included: agents and file names bring them.
texts = st.text(st.characters(), max_size=8) | st.sampled_from(["\ud800 lone", "\ud83d\ude00", "", " "])
arguments = texts | st.sampled_from(
    ['{"x":1}', '{"x": 1}', "[1]", '{"x":1e999}', '{"x":"\\ud800"}', "{" * 40, '{"x":' + "[" * 60 + "]" * 60 + "}"]
)
call_ids = st.sampled_from(["a", "b", "", "\ud800"])
calls = st.lists(st.builds(ToolCall, call_ids, texts, arguments), max_size=3).map(tuple)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool", "tool"]),
    content=texts,
    tool_calls=calls,
    tool_call_id=st.none() | call_ids,
    reasoning=st.just("") | texts,
)
facts = st.builds(
    CallFacts,
    wire=st.sampled_from(["", "chat", "responses"]),
    lineage=st.sampled_from(["first", "fresh", "compacted", "repeat"]),
    asked=st.dictionaries(texts, st.none() | st.integers() | st.floats(allow_nan=False) | st.lists(texts, max_size=2), max_size=2),
    not_honoured=st.lists(texts, max_size=2).map(tuple),
    num_discarded=st.integers(0, 3),
    format_error=st.none() | texts,
    num_foreign=st.integers(0, 3),
)
versions = st.builds(PolicyVersion, st.integers(1, 3), st.integers(0, 10**6))
samplings = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 4096),
    temperature=st.floats(0, 2),
    seed=st.integers(0, 2**64 - 1),
    stop_token_ids=st.lists(token_ids, max_size=2).map(tuple),
)

routes = st.builds(RoutedExperts, st.integers(0, 9), st.just(1), st.just(2), st.binary(max_size=2).map(lambda ids: ids * 4))


@st.composite
def completions(draw: st.DrawFn, number: int, nodes: list[MessageNode], reply_node: int, earlier: list[Completion]) -> Completion:
    ids = tuple(draw(st.lists(token_ids, max_size=4)))
    logprobs = tuple(draw(st.lists(st.floats(allow_nan=False), min_size=len(ids), max_size=len(ids))))
    cut = draw(st.integers(0, len(ids)))
    spans = (VersionSpan(0, cut, draw(versions)), VersionSpan(cut, len(ids), draw(versions)))
    parent = draw(st.none() | st.sampled_from(earlier)) if earlier else None
    shared = parent.prompt_ids + parent.generation.token_ids if parent else ()
    prompt_node = nodes[reply_node].parent
    assert prompt_node is not None
    return Completion(
        completion_id=f"c{number}",
        session_id=draw(texts),
        prompt_ids=shared + tuple(draw(st.lists(token_ids, max_size=4))),
        generation=Generation(ids, logprobs, draw(st.sampled_from(["stop", "length", "abort"])), spans, draw(st.none() | routes)),
        sampling=draw(samplings),
        prompt_node=prompt_node,
        reply_node=reply_node,
        parent_id=parent.completion_id if parent else None,
        num_shared=len(shared),
        drop_reason=draw(st.none() | st.just("greedy")),
        facts=draw(facts),
    )


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    """A forest of messages of any kind, with calls at any of its assistant turns, several at one included."""
    nodes: list[MessageNode] = []
    for number in range(draw(st.integers(0, 10))):
        nearby = st.integers(max(0, number - 2), number - 1) if number else st.nothing()
        nodes.append(MessageNode(draw(messages), draw(st.none() | nearby)))
    replies = [place for place, node in enumerate(nodes) if node.message.role == "assistant" and node.parent is not None]
    made: list[Completion] = []
    for reply_node in draw(st.lists(st.sampled_from(replies), max_size=6)) if replies else ():
        made.append(draw(completions(len(made), nodes, reply_node, made)))
    statuses: list[EpisodeStatus] = ["finished", "deadline", "failed"]
    status = draw(st.sampled_from(statuses))
    return Episode(
        episode_id=draw(texts.filter(bool)),
        group_id="g000012",
        task_id="t",
        attempt=3,
        status=status,
        completions=tuple(made),
        messages=tuple(nodes),
        rewards=() if status == "failed" else (Reward("outcome", draw(st.floats(0, 1)), draw(texts), draw(st.none() | st.integers(0, 5))),),
        failure=None if status == "finished" else Failure("agent", "Crash", draw(texts)),
        duration_s=draw(st.floats(0, 1e6)),
        acts=tuple(draw(st.lists(st.builds(SandboxAct, texts, texts, st.none() | st.integers(-64, 255), st.floats(0, 1e3)), max_size=2))),
        patch=draw(texts),
    )


def check_exact_both_ways(episode: Episode) -> Trajectory:
    """Through the text of a file."""
    written = episode_to_atif(episode, agent=Agent(name="an agent", version="2", model_name="m"))
    text = write_trajectory(written)
    read = read_trajectory(text.encode(), "a file")
    assert read == written
    imported = import_trajectory(read)
    assert imported.episode == episode
    assert imported.left_out == ()
    assert write_trajectory(episode_to_atif(imported.episode, agent=read.agent)) == text
    return read


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(episode=episodes())
def test_any_episode_goes_out_and_in_exactly(episode: Episode) -> None:
    check_exact_both_ways(episode)


# --- what the gateway records -----------------------------------------------------------------------------------------

MOVE_NAMES = ["append", "append", "edit", "compact", "fork", "samples", "foreign", "sub-agent", "abort"]
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "edit", "compact", "fork", "samples", "foreign", "sub-agent", "abort"]), st.integers(0, 9)
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(moves=MOVES, seed=st.integers(0, 2**32))
def test_what_an_agent_does_through_the_real_gateway_goes_out_and_in_exactly(moves: list[tuple[str, int]], seed: int) -> None:
    check_exact_both_ways(asyncio.run(recorded(moves, seed)))


async def recorded(moves: list[tuple[str, int]], seed: int) -> Episode:
    """An agent that appends, edits, compacts, goes back, asks for samples, delegates and gives up."""
    s = stack(seed=seed)
    sub = s.gateway.session(
        s.gateway.open_session(episode_id="e", seed=seed, hold=SamplingHold(max_tokens=12), budget=SessionBudget()).secret
    )
    history, past = [USER], [[USER]]
    for move, number in [("append", 0), *moves]:
        session, num_samples = s.session, 1
        match move:
            case "edit":
                history = [*history[: number % len(history)], Message("user", f"e{number}"), *history[1 + number % len(history) :]]
            case "compact":
                history = [Message("user", f"in short {number}"), *history[-1:]]
            case "fork":
                history = list(past[number % len(past)])
            case "foreign":
                said = Message("assistant", "I", (ToolCall("x", "get", '{"x": "a"}'),))
                history = [*history, said, Message("tool", "o", tool_call_id="x")]
            case "sub-agent":
                await s.gateway.complete(sub, Ask((Message("user", f"sub {number}"),), OFFER))
            case "samples":
                num_samples = 3
        past.append(list(history))
        call = asyncio.ensure_future(s.gateway.complete(session, Ask(tuple(history), OFFER, num_samples=num_samples)))
        if move == "abort":
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            continue
        committed = random.Random(seed + number).choice(await call)
        history = [*history, committed.message, *results(committed.message)]
    await s.gateway.close_session(s.session.session_id)
    record = s.gateway.episode_record("e")
    return Episode("g1-a0", "g1", "t", 0, "finished", record.completions, record.messages, (Reward("outcome", 1.0, "right"),))


# --- which steps ------------------------------------------------------------------------------------------------------


def an_episode(*turns: tuple[str, int | None], calls: dict[int, CallFacts] | None = None) -> Episode:
    """Messages 'u:text', 's:', 'a:' or 't:' with their parents; a call at each place of `calls`, in its order."""
    roles = {"u": "user", "s": "system", "a": "assistant", "t": "tool"}
    nodes = tuple(MessageNode(a_message(roles[text[0]], text[2:]), parent) for text, parent in turns)
    made = []
    for number, (reply, what) in enumerate((calls or {}).items()):
        prompt = nodes[reply].parent
        assert prompt is not None
        generation = Generation((7, 8), (-0.5, -0.25), "stop", (VersionSpan(0, 2, PolicyVersion(1, 3)),))
        made.append(Completion(f"c{number}", "s", (1, 2, 3), generation, SamplingParams(8), prompt, reply, facts=what))
    return Episode("e", "g", "t", 0, "finished", tuple(made), nodes, (Reward("outcome", 0.5, "half"),))


def a_message(role: Any, text: str) -> Message:
    calls = (ToolCall("k", "look", '{"at":"x"}'),) if role == "assistant" and text.startswith("look") else ()
    return Message(role, text, calls, "k" if role == "tool" else None)


def outline(trajectory: Trajectory) -> list[str]:
    """Each step in a word: its text, in parentheses if copied, with a star if it is a call, and what came back."""
    lines = []
    for step in trajectory.steps:
        text = f"({step.message})" if step.is_copied_context else f"{step.message}{'*' if step.metrics else ''}"
        lines.append(" <- ".join([text, *(str(result.content) for result in step.results if result.content is not None)]))
    return lines


def test_a_linear_episode_is_steps_with_their_tool_results_tokens_and_log_probabilities() -> None:
    episode = an_episode(
        ("s:rules", None), ("u:find x", 0), ("a:look", 1), ("t:it is 3", 2), ("a:3", 3), calls={2: CallFacts(), 4: CallFacts()}
    )
    trajectory = check_exact_both_ways(episode)
    assert outline(trajectory) == ["rules", "find x", "look* <- it is 3", "3*"]
    look = trajectory.steps[2]
    assert look.tool_calls is not None
    assert (look.tool_calls[0].arguments, look.results[0].source_call_id, look.llm_call_count) == ({"at": "x"}, "k", 1)
    assert look.metrics is not None
    assert (look.metrics.prompt_token_ids, look.metrics.completion_token_ids, look.metrics.logprobs) == ((1, 2, 3), (7, 8), (-0.5, -0.25))
    assert trajectory.subagent_trajectories is None
    assert trajectory.final_metrics is not None
    assert (trajectory.final_metrics.total_prompt_tokens, trajectory.final_metrics.total_completion_tokens) == (6, 4)


def test_a_sub_agent_and_a_compacted_context_are_embedded_with_what_they_took_over_marked_as_copied() -> None:
    episode = an_episode(
        *[("s:rules", None), ("u:find x", 0), ("a:look", 1), ("t:delegated", 2)],
        *[("u:look it up", None), ("a:up", 4)],
        *[("a:so far", 3), ("u:summary", 0), ("a:done", 7)],
        calls={2: CallFacts(), 5: CallFacts(lineage="fresh"), 6: CallFacts(lineage="extension"), 8: CallFacts(lineage="compacted")},
    )
    trajectory = check_exact_both_ways(episode)
    assert outline(trajectory) == ["rules", "find x", "look* <- delegated", "so far*"]
    fresh, compacted = trajectory.subagent_trajectories or ()
    assert outline(fresh) == ["look it up", "up*"]
    assert outline(compacted) == ["(rules)", "summary", "done*"]
    assert [ref.trajectory_id for ref in trajectory.steps[2].results[-1].subagent_trajectory_ref or ()] == [fresh.trajectory_id]
    assert [ref.trajectory_id for ref in trajectory.steps[3].results[-1].subagent_trajectory_ref or ()] == [compacted.trajectory_id]
    assert [one.extra for one in (fresh, compacted)] == [{"trunkline": {"lineage": "fresh"}}, {"trunkline": {"lineage": "compacted"}}]


def test_the_main_walk_is_that_of_the_earliest_call_that_was_continued() -> None:
    """Neither a title, asked for first, nor a sample that nobody went on from."""
    episode = an_episode(
        *[("u:title?", None), ("a:Title", 0), ("u:find x", None), ("a:sample 1", 2), ("a:sample 2", 2), ("u:more", 4), ("a:end", 5)],
        calls={number: CallFacts() for number in (1, 3, 4, 6)},
    )
    trajectory = check_exact_both_ways(episode)
    assert outline(trajectory) == ["find x", "sample 2*", "more", "end*"]
    assert list(map(outline, trajectory.subagent_trajectories or ())) == [["title?", "Title*"], ["(find x)", "sample 1*"]]


def test_turns_put_into_the_models_mouth_are_marked_as_context() -> None:
    episode = an_episode(("u:1", None), ("a:never sampled", 0), ("u:2", 1), ("a:sampled", 2), calls={3: CallFacts()})
    assert outline(check_exact_both_ways(episode)) == ["1", "(never sampled)", "2", "sampled*"]


def test_two_samples_with_the_same_words_are_two_steps() -> None:
    episode = an_episode(("u:1", None), ("a:same", 0), calls={1: CallFacts()})
    (first,) = episode.completions
    other = replace(first, completion_id="other", generation=replace(first.generation, token_ids=(9, 8), logprobs=(-1.0, -2.0)))
    trajectory = check_exact_both_ways(replace(episode, completions=(first, other)))
    assert [outline(one) for one in trajectory.walk()] == [["1", "same*"], ["(1)", "same*"]]


def test_an_episode_that_failed_before_anything_was_said_is_a_document_too() -> None:
    episode = replace(an_episode(), status="failed", rewards=(), failure=Failure("sandbox", "SandboxError", "no such image"))
    assert outline(check_exact_both_ways(episode)) == ["The attempt ended before anything was said."]


# --- documents of Trunkline's that were changed -----------------------------------------------------------------------


def a_document() -> dict[str, Any]:
    episode = an_episode(
        ("u:find x", None), ("a:look", 0), ("t:3", 1), ("a:end", 2), ("a:other", 2), calls=dict.fromkeys((1, 3, 4), CallFacts())
    )
    document: dict[str, Any] = json.loads(write_trajectory(episode_to_atif(episode)))
    return document


def test_what_others_added_is_said_to_be_left_out() -> None:
    document = a_document()
    document["steps"][0]["timestamp"] = "2025-10-11T10:30:00Z"
    imported = import_trajectory(read_trajectory(json.dumps(document), "f"))
    assert imported.episode == atif_to_episode(read_trajectory(json.dumps(a_document()), "f"))
    assert imported.left_out == ("what was changed or added since Trunkline wrote the document",)


def drop_branch(document: dict[str, Any]) -> None:
    del document["subagent_trajectories"]
    del document["steps"][2]["observation"]


def retell(document: dict[str, Any]) -> None:
    document["subagent_trajectories"][0]["steps"][0]["message"] = "find y"


def forget_node(document: dict[str, Any]) -> None:
    del document["steps"][1]["extra"]


def shorten(document: dict[str, Any]) -> None:
    document["steps"][1]["metrics"]["logprobs"].pop()


def add_fact(document: dict[str, Any]) -> None:
    document["steps"][1]["metrics"]["extra"]["trunkline"]["colour"] = "red"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_branch, "e: message 4 is missing"),
        (retell, "step 1 of e/1 tells message 0 otherwise than an earlier step does"),
        (forget_node, "step 2 of e has a call but no extra.trunkline"),
        (shorten, "metrics of step 2 of e: Generation: token streams must have one length"),
        (add_fact, "metrics of step 2 of e: extra.trunkline is not what this version of Trunkline writes"),
    ],
)
def test_a_document_whose_episode_cannot_be_had_says_where_and_what_to_do(change: Callable[[dict[str, Any]], None], said: str) -> None:
    document = a_document()
    change(document)
    with pytest.raises(ConfigError) as caught:
        import_trajectory(read_trajectory(json.dumps(document), "f"))
    assert said in str(caught.value)
    assert "remove extra.trunkline" in str(caught.value)


# --- documents of other programs --------------------------------------------------------------------------------------

FOREIGN: dict[str, Any] = {
    "schema_version": "ATIF-v1.7",
    "session_id": "run-1",
    "agent": {"name": "other", "version": "1"},
    "steps": [
        {"step_id": 1, "source": "system", "message": "rules"},
        {"step_id": 2, "source": "user", "message": [{"type": "text", "text": "what is "}, {"type": "text", "text": "this?"}]},
        {
            "step_id": 3,
            "source": "agent",
            "message": "",
            "timestamp": "2025-10-11T10:30:00Z",
            "reasoning_content": "hm",
            "tool_calls": [{"tool_call_id": "k", "function_name": "look", "arguments": {"at": "it"}}],
            "observation": {
                "results": [{"source_call_id": "k", "content": "a cat"}, {"subagent_trajectory_ref": [{"trajectory_id": "sub"}]}]
            },
            "metrics": {"prompt_token_ids": [1, 2], "completion_token_ids": [3], "logprobs": [-0.5], "cost_usd": 0.1},
        },
        {
            "step_id": 4,
            "source": "agent",
            "message": "a cat",
            "metrics": {"prompt_token_ids": [1, 2, 3, 4], "completion_token_ids": [5], "logprobs": [-0.25]},
        },
        {"step_id": 5, "source": "agent", "message": "still a cat", "metrics": {"prompt_tokens": 9, "completion_token_ids": [5]}},
    ],
    "subagent_trajectories": [
        {"trajectory_id": "sub", "agent": {"name": "sub", "version": "1"}, "steps": [{"step_id": 1, "source": "user", "message": "help"}]}
    ],
}


def test_anothers_trajectory_becomes_messages_calls_that_are_never_trained_and_no_verdict() -> None:
    imported = import_trajectory(read_trajectory(json.dumps(FOREIGN), "f"))
    episode = imported.episode
    said = [(node.message.role, node.message.content, node.parent) for node in episode.messages]
    assert said == [
        ("system", "rules", None),
        ("user", "what is this?", 0),
        ("assistant", "", 1),
        ("tool", "a cat", 2),
        ("assistant", "a cat", 3),
        ("assistant", "still a cat", 4),
        ("user", "help", None),
    ]
    assert episode.messages[2].message.tool_calls == (ToolCall("k", "look", '{"at":"it"}'),)
    first, second = episode.completions
    assert (first.prompt_node, first.reply_node, second.prompt_node, second.reply_node) == (1, 2, 3, 4)
    assert (second.prompt_ids, second.generation.logprobs, second.parent_id, second.num_shared) == (
        (1, 2, 3, 4),
        (-0.25,),
        first.completion_id,
        3,
    )
    assert {one.drop_reason for one in episode.completions} == {"imported"}
    assert (episode.status, episode.reward) == ("failed", None)
    assert imported.left_out == (
        "agent's description (2)",
        "timestamp of a step",
        "cache, cost or extra of a step's metrics",
        "which call started an embedded trajectory",
        "token ids of a step that is not one call recorded whole",
        "token counts of a step without token ids",
    )


def test_an_imported_episode_goes_out_and_in_exactly() -> None:
    check_exact_both_ways(atif_to_episode(read_trajectory(json.dumps(FOREIGN), "f")))


# --- the format's rules -----------------------------------------------------------------------------------------------


def changed(**changes: Any) -> dict[str, Any]:
    """FOREIGN with values at paths such as 'steps.2.source'; None removes."""
    document: dict[str, Any] = json.loads(json.dumps(FOREIGN))
    for path, value in changes.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        holder: Any = document
        for part in way:
            holder = holder[part]
        holder[last] = value
    return document


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"steps.2.colour": 1}, "steps[2].colour: is no field of the format"),
    ({"steps.3.step_id": 7}, "steps[3].step_id must be 4, got 7"),
    ({"steps.0.reasoning_content": "hm"}, "steps[0]: a step of source 'system' has no reasoning_content: only agent steps have"),
    (
        {"steps.2.llm_call_count": 0},
        "steps[2]: an agent step with llm_call_count 0 called no model",
    ),
    ({"steps.2.observation.results.0.source_call_id": "z"}, "steps[2]: source_call_id 'z' names no call of this step"),
    ({"steps.2.metrics.logprobs": ["x"]}, "steps[2].metrics.logprobs[0]: Input should be a valid number"),
    ({"steps.2.timestamp": "noon"}, "steps[2]: timestamp 'noon' is not ISO 8601"),
    ({"steps.1.message.0.text": None}, "steps[1].message[0]: a part of type 'text' has `text` and no `source`"),
    ({"steps.1.message": 5}, "steps[1].message: Input should be a valid string, got 5"),
    ({"trajectory_id": "sub"}, "trajectory_id 'sub' is used 2 times"),
    ({"subagent_trajectories.0.trajectory_id": None}, "subagent_trajectories[0] has no trajectory_id"),
    ({"subagent_trajectories": None}, "step 3 of the trajectory refers to trajectory_id 'sub', which is not in the document"),
    ({"steps.2.observation.results.1.subagent_trajectory_ref.0": {"session_id": "s"}}, "needs trajectory_id or trajectory_path"),
    ({"schema_version": "ATIF-v9"}, "schema_version: Input should be 'ATIF-v1.0'"),
    ({"steps": []}, "steps: Tuple should have at least 1 item"),
]


@pytest.mark.parametrize(("changes", "said"), MALFORMED)
def test_a_malformed_document_is_refused_with_the_place_and_the_fault(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_trajectory(json.dumps(changed(**changes)), "cat.json")
    assert str(caught.value).startswith("cat.json is no ATIF trajectory: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "7", '{"steps": 1}', "\ud800"])
def test_what_is_no_json_object_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cat.json is no ATIF trajectory: "):
        read_trajectory(text.encode("utf-8", "surrogatepass"), "cat.json")


def test_an_episode_whose_tree_is_none_is_refused() -> None:
    episode = an_episode(("u:1", None), ("a:2", 0), calls={1: CallFacts()})
    with pytest.raises(ValueError, match="message 0 has the parent 1"):
        episode_to_atif(replace(episode, messages=(replace(episode.messages[0], parent=1), episode.messages[1])))
    with pytest.raises(ValueError, match="call 0 has the prompt message 0 and the reply 0"):
        episode_to_atif(replace(episode, completions=(replace(episode.completions[0], reply_node=0),)))
