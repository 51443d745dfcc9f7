"""Detectors of faults on the way: what they must see, and what they must leave alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline.episodes.process_rewards import faults, process_rewards
from trunkline.episodes.repetition import repetition
from trunkline.episodes.scripts import foreign_prose, script_of
from trunkline.tasks.lookup.vocabulary import BAD_ARGUMENTS, UNKNOWN_ENTITY, UNKNOWN_TOOL
from trunkline.types import (
    CallFacts,
    Completion,
    Generation,
    Message,
    MessageNode,
    PolicyVersion,
    SamplingParams,
    ToolCall,
    VersionSpan,
)

ROOT = Path(__file__).parents[2]
ENGLISH = "What is the population of the capital of Peru, and which city has more inhabitants?"


def completion(prompt_node: int, reply_node: int, tokens: tuple[int, ...] = (1, 2, 3), facts: CallFacts | None = None) -> Completion:
    spans = (VersionSpan(0, len(tokens), PolicyVersion(1, 0)),)
    generation = Generation(tokens, (-0.5,) * len(tokens), "stop", spans)
    return Completion(f"k{reply_node}", "s", (1,), generation, SamplingParams(99), prompt_node, reply_node, facts=facts or CallFacts())


def conversation(*contents: tuple[str, str]) -> list[MessageNode]:
    calls = (ToolCall("c0", "population", '{"name": "Lima"}'),)
    return [
        MessageNode(Message(role, content, calls if role == "assistant" and not content else ()), place - 1 if place else None)  # type: ignore[arg-type]
        for place, (role, content) in enumerate(contents)
    ]


# --- format -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [BAD_ARGUMENTS, UNKNOWN_TOOL])
def test_a_call_that_its_tool_refuses_is_a_fault_of_the_completion_that_made_it(refusal: str) -> None:
    messages = conversation(("user", ENGLISH), ("assistant", ""), ("tool", "7.7e6"), ("assistant", ""), ("tool", refusal))
    found = list(faults([completion(0, 1), completion(2, 3)], messages))
    assert [(fault.kind, fault.at, fault.severity) for fault in found] == [("format", 1, 1.0)]
    assert refusal in found[0].evidence


def test_any_result_of_the_turn_counts_and_none_of_the_next_turn() -> None:
    messages = conversation(
        ("user", ENGLISH), ("assistant", ""), ("tool", "7.7e6"), ("tool", BAD_ARGUMENTS), ("assistant", ""), ("tool", UNKNOWN_TOOL)
    )
    assert [fault.at for fault in faults([completion(0, 1)], messages)] == [0]
    messages[3] = replace(messages[3], message=Message("tool", UNKNOWN_ENTITY))
    assert list(faults([completion(0, 1)], messages)) == [], "an entity that does not exist is no fault of form"


def test_a_call_that_could_not_be_read_is_a_fault_with_the_gateways_reason() -> None:
    messages = conversation(("user", ENGLISH), ("assistant", "call: population(Lima"))
    (fault,) = faults([completion(0, 1, facts=CallFacts(format_error="no closing mark"))], messages)
    assert (fault.kind, fault.severity) == ("format", 1.0) and "no closing mark" in fault.evidence


def test_a_sound_episode_has_no_faults() -> None:
    messages = conversation(("user", ENGLISH), ("assistant", ""), ("tool", "7.7e6"), ("assistant", "Lima has 7.7e6 inhabitants."))
    assert process_rewards([completion(0, 1), completion(2, 3)], messages, weight=0.5) == ()


def test_a_fault_costs_its_weight_times_its_severity_at_its_completion() -> None:
    messages = conversation(("user", ENGLISH), ("assistant", ""), ("tool", BAD_ARGUMENTS), ("assistant", "?"))
    (reward,) = process_rewards([completion(0, 1), completion(2, 3)], messages, weight=0.25)
    assert (reward.name, reward.value, reward.at) == ("process.format", -0.25, 0)
    assert "severity 1.00 x 0.25" in reward.evidence


# --- repetition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [1, 3, 20])
def test_a_loop_is_found_with_its_period(period: int) -> None:
    body = tuple(range(100, 100 + period))
    rounds = max(4, -(-40 // period))
    found = repetition((*range(10), *body * rounds))
    assert found is not None
    assert (found.period, found.num_tokens, found.start) == (period, period * rounds, 10)
    assert found.share == pytest.approx(period * rounds / (10 + period * rounds))


def test_text_told_again_and_again_in_another_order_is_repetition() -> None:
    rng = random.Random(0)
    sentences = [[rng.randrange(5000) for _ in range(15)] for _ in range(3)]
    found = repetition([token for _ in range(12) for token in rng.choice(sentences)])
    assert found is not None and found.period == 0 and found.share > 0.5


@pytest.mark.parametrize(
    "tokens",
    [
        [7] * 20,  # a ruler
        [*range(400), *[7] * 40, *range(400, 800)],  # a table in a long answer
        [token for row in range(40) for token in (1, 2, 3, 1000 + row, 4, 2000 + row)],  # rows that differ
        [],
    ],
)
def test_what_is_only_regular_is_no_repetition(tokens: list[int]) -> None:
    assert repetition(tokens) is None


def test_prose_and_code_of_this_project_are_not_repetitive() -> None:
    flagged, total = 0, 0
    for path in [*sorted(ROOT.glob("trunkline/episodes/*.py")), *sorted(ROOT.glob("docs/0*.md"))]:
        words = path.read_text(encoding="utf-8").split()
        ids = {word: number for number, word in enumerate(dict.fromkeys(words))}
        for start in range(0, len(words) - 200, 200):
            total += 1
            flagged += repetition([ids[word] for word in words[start : start + 200]]) is not None
    assert total > 40 and flagged == 0


# --- language ---------------------------------------------------------------------------------------------------------

CHINESE = "秘鲁首都利马大约有一千万居民, 是全国最大的城市"


@pytest.mark.parametrize(
    ("reply", "script"),
    [
        (f"Lima is the capital. {CHINESE}.", "Han"),
        ("Let me see: столица Перу это город Лима и там живут люди.", "Cyrillic"),
        ("リマはペルーの首都であり最大の都市です", "Kana"),
    ],
)
def test_prose_in_another_script_than_the_conversations_is_found(reply: str, script: str) -> None:
    found = foreign_prose(reply, given=ENGLISH)
    assert found is not None and found.script == script and found.share > 0.3
    assert found.excerpt in reply


def test_latin_prose_is_foreign_in_a_chinese_conversation() -> None:
    found = foreign_prose("好的。The capital of Peru is Lima and it is large.", given=CHINESE)
    assert found is not None and found.script == "Latin"


@pytest.mark.parametrize(
    ("given", "reply"),
    [
        (ENGLISH, "Moscow is called Москва, its university Московский государственный университет имени Ломоносова."),
        (ENGLISH, "The company is 中国石油化工 (Sinopec)."),
        (ENGLISH, "Write `столица это город и там живут люди` there."),
        (ENGLISH, f"```python\nprint('{CHINESE}')\n```"),
        (ENGLISH, "α + β ≥ γ — «so» 7.7e6, 10 °C; naïve café, Ærøskøbing, Łódź"),
        (ENGLISH, "!!! ... ??? 12 345,6 → 7"),
        (ENGLISH, ""),
        (CHINESE, "使用 numpy 和 torch: for i in range(10): x = np.array(i); print(x.sum())"),
        (CHINESE, "https://example.org/a/long/path/that/has/many/latin/words/in/it 利马"),
        ("日本の首都はどこですか。東京です。", "東京都渋谷区神宮前一丁目二番三号"),
        (f"Translate, please: {CHINESE}", f"You gave me this: {CHINESE}"),
        ("1 + 1 = ?", CHINESE),
    ],
)
def test_names_code_quotations_and_punctuation_are_not_foreign(given: str, reply: str) -> None:
    assert foreign_prose(reply, given=given) is None


def test_one_foreign_sentence_in_a_long_answer_is_below_the_threshold_and_two_are_not() -> None:
    long_answer = "The capital of Peru is Lima, which lies on the coast and has ten million inhabitants. " * 6
    assert foreign_prose(long_answer + CHINESE[:12], given=ENGLISH) is None
    assert foreign_prose(long_answer + CHINESE * 2, given=ENGLISH) is not None


def test_language_is_judged_against_what_was_given_and_not_against_the_models_own_words() -> None:
    messages = conversation(("user", ENGLISH), ("assistant", CHINESE), ("user", "Go on."), ("assistant", CHINESE))
    found = list(faults([completion(0, 1), completion(2, 3)], messages))
    assert [(fault.kind, fault.at) for fault in found] == [("language", 0), ("language", 1)]


def test_thinking_is_looked_at_too() -> None:
    messages = conversation(("user", ENGLISH), ("assistant", "Lima."))
    messages[1] = replace(messages[1], message=replace(messages[1].message, reasoning=CHINESE))
    assert [fault.kind for fault in faults([completion(0, 1)], messages)] == ["language"]


@pytest.mark.parametrize(
    ("character", "script"), [("a", "Latin"), ("é", "Latin"), ("я", "Cyrillic"), ("字", "Han"), ("か", "Kana"), ("7", None)]
)
def test_a_character_has_the_script_of_its_range(character: str, script: str | None) -> None:
    assert script_of(character) == script
