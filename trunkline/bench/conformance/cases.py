"""The list of cases, in the order of the table. Owns names and groups; the cases are in cases_*.py, each with a sentence."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from trunkline.bench.conformance import cases_calls as calls
from trunkline.bench.conformance import cases_clients as clients
from trunkline.bench.conformance import cases_history as history
from trunkline.bench.conformance import cases_wires as wires
from trunkline.bench.conformance.scene import Scene
from trunkline.bench.conformance.wires import MESSAGES, WIRES


@dataclass(frozen=True)
class Case:
    """One hard case."""

    name: str
    """Short, unique."""
    sentence: str
    """What must hold."""
    act: Callable[[Scene], Awaitable[None]]
    """Raises CaseFailed or CaseUnsupported."""


def _case(name: str, act: Callable[..., Awaitable[None]]) -> Case:
    return Case(name, " ".join((act.__doc__ or "").split()), act)


def _of_each_wire(name: str, act: Callable[..., Awaitable[None]]) -> tuple[Case, ...]:
    sentence = " ".join((act.__doc__ or "").split())
    return tuple(Case(f"{wire.name}: {name}", sentence, _bind(act, wire)) for wire in WIRES)


def _bind(act: Callable[..., Awaitable[None]], wire: Any) -> Callable[[Scene], Awaitable[None]]:
    return functools.partial(act, wire=wire)


CASES: tuple[Case, ...] = (
    *_of_each_wire("answer", wires.json_answer),
    *_of_each_wire("stream", wires.streamed_answer),
    *_of_each_wire("stream equals answer", wires.stream_equals_json),
    *_of_each_wire("append", history.append),
    *_of_each_wire("append by streams", history.append_streamed),
    *_of_each_wire("parallel tool calls", history.parallel_calls),
    *_of_each_wire("thinking sent back", history.kept_thinking),
    _case("re-tokenisation drift", history.drift),
    _case("odd JSON in a call", history.odd_spacing),
    _case("re-ordered arguments", history.reordered_arguments),
    _case("extra keys in an echo", clients.extra_keys_in_echo),
    _case("content as parts", clients.content_as_parts),
    _case("renamed call ids", clients.renamed_call_ids),
    _case("a mark spelled by the model", clients.spelled_mark),
    _case("edited history", history.edited_history),
    _case("truncated history", history.truncated_history),
    _case("compaction by summary", history.compaction),
    _case("dropped thinking", history.dropped_thinking),
    _case("changed tools", clients.changed_tools),
    _case("rewind", clients.rewind),
    _case("four ways at once", clients.fork_at_once),
    _case("moving cache_control", history.moving_cache_control),
    _case("blocks of Messages", clients.anthropic_blocks),
    _case("a reminder beside a result", clients.reminder_beside_a_result),
    _case("previous_response_id", clients.previous_response),
    _case("parallel sub-agents", history.sub_agents),
    _case("side request", history.side_request),
    _case("two sessions, same words", clients.two_sessions),
    _case("foreign assistant turns", history.foreign_turns),
    _case("tool results untrained", history.untrained_results),
    _case("results in another order", history.results_in_another_order),
    _case("a new question", history.new_question),
    _case("chat marks in a tool result", wires.marks_in_a_result),
    _case("malformed tool call", wires.malformed_call),
    _case("retry", calls.retry),
    _case("retry of a call in flight", calls.retry_in_flight),
    _case("equal requests", calls.equal_requests),
    _case("equal requests at once", calls.equal_requests_at_once),
    _case("n = 3", calls.several_samples),
    _case("n = 3, streamed", calls.several_samples_streamed),
    _case("client leaves, waiting", calls.abort_waiting),
    _case("client leaves, streaming", calls.abort_streaming),
    _case("engine error", calls.engine_failure),
    _case("engine error, streaming", calls.engine_failure_streamed),
    _case("stop strings", calls.stop_strings),
    _case("length-cut completion", calls.length_cut),
    _case("continued after a cut", calls.continued_after_cut),
    _case("greedy and top-p", calls.greedy),
    _case("log-probabilities", calls.exact_logprobs),
    _case("log-probabilities for the client", clients.client_logprobs),
    _case("cut inside a character", clients.cut_in_a_character),
    _case("unknown body keys", wires.unknown_keys),
    _case("empty content", wires.empty_content),
    _case("Unicode", wires.unicode_text),
    _case("lone surrogate", wires.lone_surrogate),
    _case("long prompt", wires.long_prompt),
    *_of_each_wire("unknown key is 401", wires.wrong_key),
    *_of_each_wire("malformed body is 400", wires.malformed_body),
    Case("messages: count_tokens", " ".join((wires.token_count.__doc__ or "").split()), _bind(wires.token_count, MESSAGES)),
)
