"""An episode as a conversation in which one sees the tokens: sampled or not, trained or not. Owns the lines; credit is credit.py's."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from trunkline.evals.strands import Strand, strands_of
from trunkline.models.tokenizer import Tokenizer
from trunkline.run.credit import Credit
from trunkline.run.directory import readable_episode
from trunkline.types import Completion, Episode, MessageNode

_TRAINED_STYLES = {1: "bold green", 0: "bold", -1: "bold red"}
_DROPPED_STYLE = "yellow"
_QUIET_STYLE = "dim"
_TRAINED, _DROPPED = ("⟦", "⟧"), ("⟨", "⟩")
_ASCII = {"⟦": "[[", "⟧": "]]", "⟨": "<<", "⟩": ">>", "·": "-"}


def legend(out: Console) -> Text:
    """What the marks mean, on this output."""
    if has_colour(out):
        samples = [("green", "bold green"), (" or ", ""), ("red", "bold red"), (": sampled and trained, advantage above or below 0; ", "")]
        return Text.assemble(*samples, ("yellow", _DROPPED_STYLE), ": sampled, not trained; the rest was given")
    return plain(f"{''.join(_TRAINED)}: sampled and trained; {''.join(_DROPPED)}: sampled, not trained; the rest was given", out)


def has_colour(out: Console) -> bool:
    """False where marks must be characters: a pipe, NO_COLOR, a terminal without colours."""
    return out.color_system is not None and not out.no_color


def print_episode(episode: Episode, credit: Credit, tokenizer: Tokenizer | None, out: Console) -> None:
    """Header, conversation, calls, rewards, and the cause of a failure. The main conversation comes first, then every other context."""
    _print_header(readable_episode(episode), credit, out)
    for place, strand in enumerate(strands_of(episode)):
        if place:
            _print_line(plain(f"  {_branch(episode, strand)}", out), out)
        for index in strand.own:
            node, number = episode.messages[index], strand.calls.get(index)
            said = plain(_written(node), out) if number is None else _sampled(episode, number, credit, tokenizer, out)
            _print_line(Text.assemble(f"  [{index}] {node.message.role}: ", said), out)
    for number, call in enumerate(episode.completions):
        _print_line(plain(f"  call {number}: {_call_numbers(call)}: {_fate(call, number, credit)}", out), out)
        for fact in _noted(call):
            _print_line(plain(f"    {fact}", out), out)
    _print_end(readable_episode(episode), out)


def print_readable(entry: Mapping[str, Any], out: Console) -> None:
    """The same from a line of episodes/*.jsonl, which has no tokens: for runs whose journal is gone."""
    _print_header(entry, Credit(None, (), "unknown: without journal.sqlite there are no tokens to show"), out)
    for message in entry["messages"]:
        calls = " ".join(f"{call['name']}({call['arguments']})" for call in message.get("tool_calls", ()))
        place = _place(message["id"], message["parent"], message["role"])
        _print_line(plain(f"  {place}: {message['content']}{calls}", out), out)
    for number, call in enumerate(entry["calls"]):
        dropped = f", dropped: {call['dropped']}" if call["dropped"] else ""
        sampled = f"{call['num_sampled_tokens']} sampled, {call['finish_reason']}"
        prompt = f"{call['num_prompt_tokens']} prompt tokens ({call['num_shared_tokens']} shared)"
        _print_line(plain(f"  call {number}: {prompt}, {sampled}, policy {', '.join(call['policy_versions'])}{dropped}", out), out)
    _print_end(entry, out)


def _print_header(entry: Mapping[str, Any], credit: Credit, out: Console) -> None:
    reward = "no reward" if entry["reward"] is None else f"reward {entry['reward']:g}"
    fate = (
        f"not trained: {credit.reason}" if credit.advantage is None else f"trained in step {credit.step}, advantage {credit.advantage:+.3f}"
    )
    if len(set(credit.advantages)) > 1:
        fate += f" at its first call to {credit.advantages[-1]:+.3f} at its last"
    _print_line(plain(f"{entry['episode_id']} · task {entry['task_id']} · {entry['status']} · {reward} · {fate}", out), out)


def _print_end(entry: Mapping[str, Any], out: Console) -> None:
    for act in entry.get("acts", ()):
        status = "" if act["status"] is None else f" -> {act['status']}"
        size = f", {act['num_bytes']:,} bytes" if act["num_bytes"] else ""
        _print_line(plain(f"  {act['op']} {act['detail']}{status} ({act['seconds']:.3f} s{size})", out), out)
    if patch := entry.get("patch"):
        _print_line(plain(f"  patch:\n{patch.rstrip()}", out), out)
    for reward in entry["rewards"]:
        place = "" if reward.get("at") is None else f" at call {reward['at']}"
        _print_line(plain(f"  {reward['name']}{place} {reward['value']:g}: {reward['evidence']}", out), out)
    if failure := entry["failure"]:
        _print_line(plain(f"  {failure['kind']} at the {failure['boundary']} boundary: {failure['message']}", out), out)


def _place(index: int, parent: int | None, role: str) -> str:
    """'[3] tool', with the message before it where that is not simply the one above."""
    follows = "" if parent == (index - 1 if index else None) else (" (begins anew)" if parent is None else f" (after {parent})")
    return f"[{index}]{follows} {role}"


def _branch(episode: Episode, strand: Strand) -> str:
    """'a context of its own (fresh):', or where it leaves another one, and how."""
    lineage = "" if strand.first_call is None else f" ({episode.completions[strand.first_call].facts.lineage})"
    if not strand.copied:
        return f"a context of its own{lineage}:"
    return f"another way on from [{strand.copied[-1]}]{lineage}:"


def _noted(call: Completion) -> Iterator[str]:
    """What the gateway noted of a call that is out of the ordinary."""
    facts = call.facts
    if facts.lineage not in ("first", "extension"):
        yield f"context: {facts.lineage}"
    if facts.format_error is not None:
        yield f"its calls reached the agent as text: {facts.format_error}"
    if facts.num_foreign:
        yield f"assistant turns in its prompt that were not sampled in this episode: {facts.num_foreign}"
    if facts.num_discarded:
        yield f"tokens left out after the client's stop string: {facts.num_discarded}"
    yield from (f"not honoured: {what}" for what in facts.not_honoured)


def _written(node: MessageNode) -> str:
    message = node.message
    thinking = [f"(thinking: {message.reasoning})"] if message.reasoning else []
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return " ".join([*thinking, *([message.content] if message.content else []), *calls])


def _sampled(episode: Episode, number: int, credit: Credit, tokenizer: Tokenizer | None, out: Console) -> Text:
    """The reply of call `number` as its tokens, special ones included; as its text where the run has no tokenizer."""
    call = episode.completions[number]
    node = episode.messages[call.reply_node]
    is_trained = credit.drop_reason(call) is None
    said = plain(_written(node) if tokenizer is None else _decoded(tokenizer, call.generation.token_ids), out)
    if has_colour(out):
        advantage = credit.advantages[number] if is_trained else 0.0
        said.stylize(_TRAINED_STYLES[(advantage > 0) - (advantage < 0)] if is_trained else _DROPPED_STYLE)
        return said
    opening, closing = _TRAINED if is_trained else _DROPPED
    return Text.assemble(plain(opening, out), said, plain(closing, out))


def _decoded(tokenizer: Tokenizer, token_ids: tuple[int, ...]) -> str:
    try:
        return tokenizer.decode(token_ids)
    except ValueError as error:  # the folder's tokenizer was exchanged since
        return f"({len(token_ids)} tokens, not of this tokenizer: {error})"


def _call_numbers(call: Completion) -> str:
    generation = call.generation
    versions = ", ".join(str(span.version) for span in generation.version_spans)
    prompt = f"{len(call.prompt_ids)} prompt tokens ({call.num_shared} shared)"
    return f"{prompt}, {call.num_sampled} sampled, {generation.finish_reason}, policy {versions}"


def _fate(call: Completion, number: int, credit: Credit) -> str:
    reason = credit.drop_reason(call)
    if reason is not None:
        return f"not trained: {reason}"
    return f"trained at advantage {credit.advantages[number]:+.3f}" if call.num_sampled else "nothing to train"


def plain(text: str, out: Console, *, indent: str = "      ") -> Text:
    """Text that can do nothing but be read: control characters are written out, and what the output cannot encode is replaced.

    Lines after the first begin with `indent`.
    """
    visible = "".join(_visible(character) for character in text)
    if not out.encoding.lower().startswith("utf"):
        spelled = "".join(_ASCII.get(character, character) for character in visible)
        visible = spelled.encode(out.encoding, "replace").decode(out.encoding)
    return Text(visible.replace("\n", "\n" + indent))


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return character.encode("unicode_escape").decode("ascii")


def _print_line(line: Text, out: Console) -> None:
    out.print(line, highlight=False, soft_wrap=True)
