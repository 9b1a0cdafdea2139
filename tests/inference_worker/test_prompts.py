"""Promises about prompts: the template's words exactly, and what a reply ends with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from genome.errors import InvalidInput
from inference_worker.text import TemplateTokenizer

ASKED = [{"role": "user", "content": "hello"}]


def with_template(base_path: Path, directory: Path, template: str | None) -> TemplateTokenizer:
    """The base's tokenizer with another chat template."""
    tokenizer = AutoTokenizer.from_pretrained(base_path)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory / "t")
    shutil.copy(base_path / "config.json", directory / "t")
    return TemplateTokenizer(directory / "t", [])


TURN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}"
REPLY = "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}", "blue</s>"),
        ("{% if m.role == 'assistant' %}{{ eos_token }}\n{% endif %}", "blue</s>"),
        ("{% if m.role == 'assistant' %} [end]{{ eos_token }}{% endif %}", "blue [end]</s>"),
        ("{% if m.role == 'assistant' %} [end]{% endif %}", "blue [end]</s>"),
    ],
    ids=["eos", "newline after", "words before", "no eos"],
)
def test_an_answer_is_what_the_template_adds_up_to_the_end_token(
    base_path: Path, tmp_path: Path, end: str, expected: str
) -> None:
    """What follows the end token is no part of the answer; a template without one gets it."""
    tokenizer = with_template(base_path, tmp_path, TURN + end + REPLY)
    (end_token,) = tokenizer.end_tokens
    expected = expected.replace("</s>", tokenizer.decode([end_token], special=True))
    assert tokenizer.answer(ASKED, "blue") == tokenizer.encode(expected)
    assert tokenizer.decode(tokenizer.chat(ASKED), special=True) == "[user] hello[assistant] "
    assert tokenizer.user_turn == ("[user] ", "[assistant] ")


def test_a_base_without_a_template_says_so(base_path: Path, tmp_path: Path) -> None:
    """Messages are refused with what to do instead; text is served."""
    tokenizer = with_template(base_path, tmp_path, None)
    assert tokenizer.user_turn == ("", "")
    with pytest.raises(InvalidInput, match="no chat template"):
        tokenizer.chat(ASKED)
    assert len(tokenizer.continuation("blue")) == len(tokenizer.encode("blue")) + 1


def test_a_template_that_refuses_is_the_callers_mistake(base_path: Path, tmp_path: Path) -> None:
    """What the template raises is told as it is."""
    refusing = "{{ raise_exception('roles must alternate') }}"
    tokenizer = with_template(base_path, tmp_path, refusing)
    with pytest.raises(InvalidInput, match="roles must alternate"):
        tokenizer.chat(ASKED)
