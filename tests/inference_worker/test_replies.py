"""Promises about a reply's text: whole characters, nothing of a stop string, and all of the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference_worker.engine import Engine
from inference_worker.replies import INCOMPLETE, Reply


def decode_bytes(tokens: list[int]) -> str:
    """The hardest tokenizer there is: every token one byte."""
    return bytes(tokens).decode(errors="replace")


def pieces(text: str, stop: tuple[str, ...] = (), at_once: int = 1) -> tuple[list[str], Reply]:
    reply = Reply(decode_bytes, stop)
    tokens = list(text.encode())
    said = [reply.add(tokens[start : start + at_once]) for start in range(0, len(tokens), at_once)]
    return [*said, reply.end()], reply


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[INCOMPLETE])), st.integers(1, 5))
def test_no_piece_breaks_a_character_and_all_pieces_are_the_text(text: str, at_once: int) -> None:
    """Whatever the tokens cut through, every piece is whole characters, and nothing is lost or said twice."""
    said, _ = pieces(text, at_once=at_once)
    assert INCOMPLETE not in "".join(said)
    assert "".join(said) == text


def test_a_character_that_stays_broken_is_said_at_the_end() -> None:
    """A reply cut off within a character ends with the replacement character, not with silence."""
    reply = Reply(decode_bytes)
    assert reply.add(list("é".encode())[:1]) == ""
    assert reply.end() == INCOMPLETE


@given(st.text("ab#", max_size=30), st.lists(st.text("ab#", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    """Stop strings cut exactly, also across tokens; what only began like one is said after all."""
    said, reply = pieces(text, tuple(stop))
    assert reply.stopped == any(each in text for each in stop)
    # The first to be complete ends the reply, so what counts is where it was complete.
    complete = next((size for size in range(len(text) + 1) if any(text[:size].endswith(each) for each in stop)), None)
    if complete is None:
        assert "".join(said) == text
    else:
        assert "".join(said) == text[: min(at for each in stop if (at := text[:complete].find(each)) >= 0)]


def test_the_real_tokenizer_is_read_back_whole(engine: Engine) -> None:
    """The base's own tokenizer, token by token, gives its own decoding of all tokens."""
    text = 'turn on the light: {"a": 12} — naïve 日本 🙂 end'
    tokens = engine.tokenizer.encode(text)
    reply = Reply(lambda part: engine.tokenizer.decode(part, special=False))
    said = [reply.add([token]) for token in tokens]
    assert "".join([*said, reply.end()]) == engine.tokenizer.decode(tokens, special=False)
