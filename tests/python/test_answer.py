"""Where an answer stops, and what is given out while it grows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medusa_native import SamplingParams
from medusa_native.answer import Answer

END = 0


class Letters:
    """A detokenizer of letters: 1 is "a"; END has no text."""

    def push(self, ids: Sequence[int]) -> str:
        return "".join(chr(96 + i) for i in ids if i != END)

    def finish(self) -> str:
        return ""


def ids(text: str) -> list[int]:
    return [ord(letter) - 96 for letter in text]


def answer(**params: object) -> Answer:
    chosen = SamplingParams(**params)  # type: ignore[arg-type]
    return Answer(Letters(), chosen, frozenset({END}))  # type: ignore[arg-type]


def test_a_stop_string_ends_within_an_accepted_block() -> None:
    grown = answer(stop="cd")
    assert grown.add(ids("abcdef"), "none", -1) == ids("abcd")
    assert grown.text == "ab"
    assert grown.token_ids == ids("abcd")
    assert (grown.finish_reason, grown.stop_reason) == ("stop", "cd")


def test_a_stop_string_across_steps() -> None:
    grown = answer(stop=["bcd"])
    grown.add(ids("ab"), "none", -1)
    assert [piece.text for piece in grown.take()] == ["a"]
    grown.add(ids("c"), "none", -1)
    assert grown.take() == []
    grown.add(ids("x"), "none", -1)
    assert "".join(piece.text for piece in grown.take()) == "bcx"


def test_a_stop_string_may_stay_in_the_text() -> None:
    grown = answer(stop="cd", include_stop_str_in_output=True)
    grown.add(ids("abcde"), "length", -1)
    assert grown.text == "abcd"


def test_the_first_of_two_stop_strings_wins() -> None:
    grown = answer(stop=["cde", "bcde"])
    grown.add(ids("abcde"), "none", -1)
    assert (grown.text, grown.stop_reason) == ("a", "bcde")


def test_stop_strings_wait_for_min_tokens() -> None:
    grown = answer(stop="a", min_tokens=3)
    grown.add(ids("aaba"), "none", -1)
    assert (grown.text, grown.token_ids) == ("aab", ids("aaba"))


def test_an_end_token() -> None:
    grown = answer()
    grown.add([*ids("ab"), END], "stop", END)
    assert (grown.text, grown.token_ids) == ("ab", [*ids("ab"), END])
    assert (grown.finish_reason, grown.stop_reason) == ("stop", None)


def test_a_stop_token_is_named_and_has_no_text() -> None:
    grown = answer(stop_token_ids=[3])
    grown.add(ids("abc"), "stop", 3)
    assert (grown.text, grown.stop_reason) == ("ab", 3)


def test_length() -> None:
    grown = answer()
    grown.add(ids("ab"), "length", -1)
    assert (grown.text, grown.finish_reason, grown.stop_reason) == ("ab", "length", None)


def test_pieces_tell_what_heads_guessed() -> None:
    grown = answer()
    grown.add(ids("abc"), "none", -1)
    assert [(piece.text, piece.drafted) for piece in grown.take()] == [
        ("a", True),
        ("b", True),
        ("c", False),
    ]


@given(
    text=st.text("abc", min_size=1, max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    sizes=st.lists(st.integers(1, 5), min_size=30, max_size=30),
)
def test_blocks_do_not_matter(text: str, stops: list[str], sizes: list[int]) -> None:
    """Any split into steps gives the same answer, and the pieces add up to its text."""
    single = answer(stop=stops)
    for token in ids(text):
        if single.finish_reason is None:
            single.add([token], "none", -1)
    grown, given_out, at = answer(stop=stops), "", 0
    for size in sizes:
        block = ids(text)[at : at + size]
        at += size
        if grown.finish_reason is None and block:
            grown.add(block, "none", -1)
            given_out += "".join(piece.text for piece in grown.take())
    assert grown.text == single.text
    assert grown.token_ids == single.token_ids
    assert grown.stop_reason == single.stop_reason
    assert grown.text.startswith(given_out)
    if grown.finish_reason is not None:
        assert given_out == grown.text


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_character_that_never_became_whole_is_given_out_at_the_end(reason: str) -> None:
    class Holding(Letters):
        def push(self, ids: Sequence[int]) -> str:
            return "" if ids else "unreachable"

        def finish(self) -> str:
            return "\N{REPLACEMENT CHARACTER}"

    grown = Answer(Holding(), SamplingParams(), frozenset())  # type: ignore[arg-type]
    grown.add([1], reason, 1 if reason == "stop" else -1)
    assert grown.text == "\N{REPLACEMENT CHARACTER}"
