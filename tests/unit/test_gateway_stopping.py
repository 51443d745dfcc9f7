"""Stop strings: which tokens a completion keeps, and what its client reads."""

from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.stopping import first_stop, stop_at, without_stop
from trunkline.types import Generation, Message, PolicyVersion, RoutedExperts, ToolCall, VersionSpan

PIECES = ("a", "b", "ab", "\n", "Obs", "erva", "tion:", " ")


def text(ids):
    return "".join(PIECES[token] for token in ids)


def generation(ids):
    middle = len(ids) // 2
    spans = (VersionSpan(0, middle, PolicyVersion(1, 0)), VersionSpan(middle, len(ids), PolicyVersion(1, 1)))
    routes = RoutedExperts(3, 1, 1, b"".join(place.to_bytes(2, "little") for place in range(len(ids) - 1)))
    return Generation(tuple(ids), tuple(-0.1 * place for place in range(len(ids))), "length", spans, routes)


@given(
    st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=30),
    st.lists(st.sampled_from(["ab", "Observation:", "\n", "ba"]), max_size=3),
)
def test_a_completion_ends_with_the_first_token_by_which_the_text_holds_a_stop_string(ids, stop):
    whole = generation(ids)
    kept, num_discarded, string = stop_at(whole, stop, text)
    assert len(kept.token_ids) + num_discarded == len(ids)
    assert (string is None) == (first_stop(text(ids), stop) is None)
    if string is None:
        assert kept == whole
        return
    assert string in text(kept.token_ids)
    assert string not in text(kept.token_ids[:-1])
    assert text(ids).index(string) == min(text(ids).find(one) for one in stop if one in text(ids))
    assert (kept.finish_reason, kept.logprobs) == ("stop", whole.logprobs[: len(kept.token_ids)])
    assert [place for span in kept.version_spans for place in range(span.start, span.end)] == list(range(len(kept.token_ids)))
    assert kept.routes == whole.routes.rows(3, 3 + len(kept.token_ids) - 1)


def test_the_client_reads_the_text_before_the_stop_string_and_no_calls_behind_it():
    message = Message("assistant", "I look.\nObservation: 7", (ToolCall("1", "get", "{}"),))
    assert without_stop(message, "Observation:") == Message("assistant", "I look.\n")
    assert without_stop(Message("assistant", "", reasoning="hm ab"), "ab") == Message("assistant", "", reasoning="hm ")
