"""Text ↔ tokens through the base's own tokenizer and chat template. Every engine's, so none is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer

from genome.errors import InvalidInput

MARK = "MARKmarkMARK"
"""Stands for a user's words when the template is asked what it puts around them."""


class TemplateTokenizer:
    """`inference_worker.engine.Tokenizer` over a Hugging Face tokenizer."""

    def __init__(self, base: Path, end_tokens: int | Sequence[int] | None) -> None:
        """``end_tokens`` as configs have them: one, several or none, besides the tokenizer's own."""
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
        own = self._tokenizer.eos_token_id
        more = [end_tokens] if isinstance(end_tokens, int) else end_tokens or []
        self._end = tuple(dict.fromkeys([*([] if own is None else [own]), *more]))
        self.end_tokens = frozenset(self._end)
        self.user_turn = self._user_turn()

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int], special: bool) -> str:
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return text

    def chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        return self.encode(self._render(messages, reply=True))

    def answer(self, messages: Sequence[Mapping[str, str]], text: str) -> tuple[int, ...]:
        prompt = self._render(messages, reply=True)
        whole = self._render([*messages, {"role": "assistant", "content": text}], reply=False)
        turn = whole[len(prompt) :] if whole.startswith(prompt) else text
        ends = [(turn.rfind(end), end) for end in map(self._spelled, self._end) if end and end in turn]
        if not ends:
            return self.continuation(turn)
        position, end = max(ends)
        return self.encode(turn[: position + len(end)])

    def continuation(self, text: str) -> tuple[int, ...]:
        return (*self.encode(text), *self._end[:1])

    def _spelled(self, token: int) -> str:
        return self.decode([token], special=True)

    def _render(self, messages: Sequence[Mapping[str, str]], reply: bool) -> str:
        if not self._tokenizer.chat_template:
            raise InvalidInput("this base has no chat template", "Send text, or serve an instruct model")
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=reply
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise InvalidInput(f"the base's chat template refuses these messages: {error}") from error
        return rendered

    def _user_turn(self) -> tuple[str, str]:
        try:
            parts = self._render([{"role": "user", "content": MARK}], reply=True).split(MARK)
        except InvalidInput:
            return "", ""
        return (parts[0], parts[1]) if len(parts) == 2 else ("", "")
