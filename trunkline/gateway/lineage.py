"""How a call's context came out of earlier ones: one word a call, for records and metrics. Owns no tokens and no tree.

first               the episode's first call
repeat              the same messages once more: a retry, or a further sample of one request
extension           an earlier call, its reply as sampled, and new messages behind it
reformatted         the same, but the format writes its past anew: some leave thinking out once the user speaks again
dropped_reasoning   an earlier conversation whose client took the model's thinking out of it
truncated           an earlier conversation with messages left out, and nothing put in their place
compacted           an earlier conversation told in fewer messages, or the words of an earlier reply in a fresh context: a summary
edited              an earlier conversation with other words in it, or with other tools
fresh               nothing but the system prompt, or a preamble, in common with earlier calls: a sub-agent, a side request such as a title

The words say what the messages show, not what the agent meant by it. Whatever the word, the context is recorded and trained on.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from trunkline.types import Lineage

Key = tuple[Hashable, ...]
"""What makes two messages the same turn; its first part is the role (recorder.py)."""

_MIN_SUMMARY_CHARS = 24


def rewriting(asked: Sequence[Key], earlier: Sequence[Sequence[Key]], replies: Sequence[str]) -> Lineage:
    """The word for a context that extends no earlier call.

    Args:
        asked: the request's messages.
        earlier: messages of this session's calls, replies included, the latest last.
        replies: texts that this session was answered, for a summary that is carried over.
    """
    if not earlier:
        return "fresh"
    told = [key for key in asked if not _is_system(key)]
    words = set(told)
    before = max(reversed(earlier), key=lambda one: len(words.intersection(one)))  # of equals the latest
    if words.isdisjoint(before):
        return "compacted" if _carries(told, replies) else "fresh"
    return _against(told, [key for key in before if not _is_system(key)], replies)


def _against(told: Sequence[Key], before: Sequence[Key], replies: Sequence[str]) -> Lineage:
    """`told` shares messages with `before`: left out, put in, or both?"""
    known = set(before)
    last_known = max(place for place, key in enumerate(told) if key in known)
    kept = [key for key in told[: last_known + 1] if key in known]
    put_in = [key for key in told[: last_known + 1] if key not in known]
    new = told[last_known + 1 :]
    if kept == list(before) or any(key[0] == "assistant" for key in new):
        return "edited"  # nothing is left out, so it is the tools that differ; or the model's turns are told in other words
    if not put_in and all(key[0] == "user" for key in kept) and len(kept) < _num_task(before):
        return "fresh"  # a preamble that all conversations of an agent share is no history
    if not put_in and _is_subsequence(kept, before):
        return "compacted" if _carries([key for key in new if key[0] != "tool"], replies) and len(told) < len(before) else "truncated"
    return "compacted" if len(told) < len(before) and any(key[0] != "assistant" for key in put_in) else "edited"


def _num_task(before: Sequence[Key]) -> int:
    """Messages before the model's first turn."""
    return next((place for place, key in enumerate(before) if key[0] == "assistant"), len(before))


def _is_system(key: Key) -> bool:
    return key[0] == "system"


def _is_subsequence(kept: Sequence[Key], before: Sequence[Key]) -> bool:
    rest = iter(before)
    return all(key in rest for key in kept)


def _carries(told: Sequence[Key], replies: Sequence[str]) -> bool:
    """A message that the agent wrote holds the longest line of an earlier reply."""
    texts = [str(key[1]) for key in told if key[0] != "assistant"]
    lines = (max((line.strip() for line in reply.split("\n")), key=len) for reply in replies if reply)
    return any(len(line) >= _MIN_SUMMARY_CHARS and line in text for line in lines for text in texts)
