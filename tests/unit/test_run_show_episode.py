"""An episode of several contexts is printed as conversations, with what the gateway noted of its calls."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from tests.unit.test_evals_atif import an_episode
from trunkline.run.credit import Credit
from trunkline.run.show_episode import print_episode
from trunkline.types import CallFacts, Episode


def shown(episode: Episode) -> list[str]:
    """The lines after the header, on a pipe."""
    file = io.StringIO()
    print_episode(episode, Credit(1, (0.5,) * len(episode.completions), None), None, Console(file=file, width=200, _environ={}))
    return file.getvalue().splitlines()[1:]


def test_branches_follow_the_main_conversation_with_the_place_and_the_reason_they_left_it() -> None:
    episode = an_episode(
        *[("s:rules", None), ("u:find x", 0), ("a:look", 1), ("u:help", None), ("a:up", 3), ("t:3", 2), ("a:it is 3", 5), ("u:summary", 0)],
        ("a:done", 7),
        calls={2: CallFacts(), 4: CallFacts(lineage="fresh"), 6: CallFacts(lineage="extension"), 8: CallFacts(lineage="compacted")},
    )
    assert shown(episode)[:11] == [
        "  [0] system: rules",
        "  [1] user: find x",
        '  [2] assistant: ⟦look look({"at":"x"})⟧',
        "  [5] tool: 3",
        "  [6] assistant: ⟦it is 3⟧",
        "  a context of its own (fresh):",
        "  [3] user: help",
        "  [4] assistant: ⟦up⟧",
        "  another way on from [0] (compacted):",
        "  [7] user: summary",
        "  [8] assistant: ⟦done⟧",
    ]


def test_two_samples_with_the_same_words_are_both_printed() -> None:
    episode = an_episode(("u:1", None), ("a:same", 0), calls={1: CallFacts()})
    again = replace(episode.completions[0], completion_id="again", facts=CallFacts(lineage="repeat"))
    lines = shown(replace(episode, completions=(*episode.completions, again)))
    assert lines[1:4] == ["  [1] assistant: ⟦same⟧", "  another way on from [0] (repeat):", "  [1] assistant: ⟦same⟧"]


def test_what_the_gateway_noted_stands_under_its_call() -> None:
    facts = CallFacts(lineage="edited", format_error="no end mark", num_foreign=2, num_discarded=3, not_honoured=("logit_bias",))
    lines = shown(an_episode(("u:1", None), ("a:2", 0), calls={1: facts}))
    place = next(place for place, line in enumerate(lines) if line.startswith("  call 0"))
    assert lines[place + 1 : place + 6] == [
        "    context: edited",
        "    its calls reached the agent as text: no end mark",
        "    assistant turns in its prompt that were not sampled in this episode: 2",
        "    tokens left out after the client's stop string: 3",
        "    not honoured: logit_bias",
    ]


def test_the_patch_stands_before_the_rewards_and_its_control_characters_are_written_out() -> None:
    episode = an_episode(("u:1", None), ("a:2", 0), calls={1: CallFacts()})
    lines = shown(replace(episode, patch="--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+\x1b[2J\n"))
    place = lines.index("  patch:")
    assert lines[place + 1 : place + 6] == ["      --- a/x", "      +++ b/x", "      @@ -1 +1 @@", "      -1", "      +\\x1b[2J"]
    assert place + 6 <= next(number for number, line in enumerate(lines) if line.startswith("  outcome"))
