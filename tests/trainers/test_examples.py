"""Which tokens are learned, and what is cut, left out or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainer_runs import question

from daemon.trainers import examples as tokenised
from daemon.trainers.examples import Tokens
from genome import training
from genome.errors import InvalidInput
from genome.training import Example, TrainingSettings

LONG = 512


@pytest.fixture(scope="module")
def tokenizer(base_path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_path)


def prepare_one(example: Example, tokenizer: Any, max_tokens: int = LONG) -> Tokens:
    stops = frozenset({tokenizer.eos_token_id})
    (tokens,) = tokenised.prepare([example], tokenizer, stops, max_tokens).signals
    return tokens


def test_the_response_is_what_the_assistant_says_and_the_end_of_its_turn(tokenizer: Any) -> None:
    tokens = prepare_one(question("Hi there", "all well"), tokenizer)
    turn = [{"role": "user", "content": "Hi there"}]
    served = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert tokens.prompt == served
    assert tokenizer.decode(tokens.response[:-1]).strip() == "all well"
    assert tokens.response[-1] == tokenizer.eos_token_id
    assert tokens.response.count(tokenizer.eos_token_id) == 1


def test_only_the_last_of_several_turns_is_learned(tokenizer: Any) -> None:
    turns = [("user", "one"), ("assistant", "first"), ("user", "two"), ("assistant", "second")]
    example = Example(id="talk", messages=[{"role": role, "content": text} for role, text in turns])
    tokens = prepare_one(example, tokenizer)
    assert "first" in tokenizer.decode(tokens.prompt)
    assert tokenizer.decode(tokens.response, skip_special_tokens=True).strip() == "second"


def test_a_template_that_ends_no_turn_gets_the_end_of_sequence(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                        "{% if add_generation_prompt %}assistant: {% endif %}")  # fmt: skip
    tokens = prepare_one(question("Hi", "well"), tokenizer)
    assert tokenizer.decode(tokens.response[:-1]) == "well\n"
    assert tokens.response[-1] == tokenizer.eos_token_id


def test_whitespace_after_the_end_of_the_turn_is_not_learned(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template + "{% if add_generation_prompt %}assistant: {% endif %}")
    assert prepare_one(question("Hi", "well"), tokenizer).response[-1] == tokenizer.eos_token_id


def test_a_template_that_shows_the_last_turn_otherwise_is_answered_after_the_served_prompt(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for m in messages %}{{ m.content }};{% endfor %}{% if add_generation_prompt %}reply> {% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    tokens = prepare_one(question("Hi", "well"), tokenizer)
    assert tokenizer.decode(tokens.prompt) == "Hi;reply> "
    assert tokenizer.decode(tokens.response[:-1]) == "well"


def test_a_plain_prompt_is_taken_as_it_is_with_its_special_tokens_and_no_other(tokenizer: Any) -> None:
    example = Example(id="plain", prompt=f"{tokenizer.eos_token}1 2", response=" 3 4")
    tokens = prepare_one(example, tokenizer)
    assert tokens.prompt[0] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens.prompt) == f"{tokenizer.eos_token}1 2"
    assert tokenizer.decode(tokens.response) == f" 3 4{tokenizer.eos_token}"


def test_too_long_an_example_loses_the_beginning_of_its_prompt_alone(tokenizer: Any) -> None:
    example = question("word " * 50, "the answer")
    whole = prepare_one(example, tokenizer)
    limit = len(whole.response) + 10
    prepared = tokenised.prepare([example], tokenizer, frozenset({tokenizer.eos_token_id}), limit)
    (cut,) = prepared.signals
    assert prepared.cut == 1
    assert (len(cut), cut.response) == (limit, whole.response)
    assert cut.prompt[0] == whole.prompt[0] == tokenizer.bos_token_id
    assert cut.prompt[1:] == whole.prompt[-9:]


def test_a_response_that_does_not_fit_is_left_out_and_counted(tokenizer: Any) -> None:
    stops = frozenset({tokenizer.eos_token_id})
    examples = [question("Hi", "well"), question("Again", "much " * 50)]
    prepared = tokenised.prepare(examples, tokenizer, stops, 16)
    assert (len(prepared.signals), prepared.left_out) == (1, 1)
    with pytest.raises(InvalidInput, match="no response fits into 16 tokens"):
        tokenised.prepare(examples[1:], tokenizer, stops, 16)


def test_an_anchor_is_held_to_its_teacher_wherever_a_model_spoke(tokenizer: Any) -> None:
    """In its prompt as well, if that is the model's own; never in what a user asked."""
    said = Example(id="a", prompt="1 2 3", response=" 4", anchor=True)
    asked = question("Hi", "well").model_copy(update={"anchor": True})
    prepared = tokenised.prepare([question("Hi", "well"), said, asked], tokenizer, frozenset({2}), LONG)
    assert len(prepared.anchors[0].prompt) == 1
    assert tokenizer.decode(prepared.anchors[0].response).startswith(" 2 3 4")
    assert (prepared.anchors[1].prompt, prepared.anchors[1].response) == (
        prepared.signals[0].prompt, prepared.signals[0].response)  # fmt: skip


def test_a_wrong_answer_makes_a_pair_as_the_objective_says(tokenizer: Any) -> None:
    """Both answers follow the same prompt; with sft it counts for nothing, with dpo the right one is not learned."""
    example = question("Hi", "well").model_copy(update={"rejected": "not so well"})
    stops = frozenset({tokenizer.eos_token_id})
    kept = {name: tokenised.prepare([example], tokenizer, stops, LONG, name).signals[0]
            for name in ("sft", "sft+dpo", "dpo")}  # fmt: skip
    assert kept["sft"].wrong is None
    assert tokenizer.decode(kept["dpo"].wrong.response[:-1]).strip() == "not so well"
    assert kept["dpo"].wrong.response[-1] == tokenizer.eos_token_id
    assert [kept[name].learned for name in ("sft", "sft+dpo", "dpo")] == [True, True, False]


def test_too_long_a_wrong_answer_loses_its_end_and_takes_nothing_from_the_prompt(tokenizer: Any) -> None:
    """The right answer is learned as the answer to its whole question, whatever was wrong."""
    asked = question("Hi", "well")
    alone, limit = prepare_one(asked, tokenizer), 24
    wrong = asked.model_copy(update={"rejected": "much " * 50})
    prepared = tokenised.prepare([wrong], tokenizer, frozenset({2}), limit, "sft+dpo")
    (pair,) = prepared.signals
    assert (pair.prompt, pair.response, prepared.cut) == (alone.prompt, alone.response, 0)
    assert len(pair.prompt) + len(pair.wrong.response) == limit
    assert tokenizer.decode(pair.wrong.response).strip().startswith("much much")


def test_pairs_are_taken_by_themselves_where_there_are_enough() -> None:
    pair = question("Hi", "well").model_copy(update={"rejected": "ill"})
    settings = TrainingSettings(min_pairs=2)
    assert training.objective(settings, [pair, question("a", "b")]) == "sft"
    assert training.objective(settings, [pair, pair]) == "sft+dpo"
    assert training.objective(TrainingSettings(objective="dpo"), [pair]) == "dpo"


def test_anchors_are_kept_apart_and_weights_kept(tokenizer: Any) -> None:
    anchor = Example(id="a", prompt="1", response=" 2", anchor=True)
    prepared = tokenised.prepare([question("Hi", "well", 0.25), anchor], tokenizer, frozenset({2}), LONG)
    assert [signal.weight for signal in prepared.signals] == [0.25]
    assert len(prepared.anchors) == 1


@pytest.mark.parametrize(
    ("example", "complaint"),
    [
        (question("Hi", " \n"), "empty response"),
        (Example(id="x", prompt="Hi", response=""), "empty response"),
        (Example(id="x", messages=[{"role": "user", "content": "Hi"}]), "does not end with an assistant's message"),
        (Example(id="x"), "does not end with an assistant's message"),
        (Example(id="x", prompt="1", response="2", anchor=True), "holds no signals"),
    ],
)
def test_what_teaches_nothing_is_refused(example: Example, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        tokenised.check([example])


def test_a_template_that_refuses_is_named_with_the_example(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no system turns') }}")
    with pytest.raises(InvalidInput, match="'Hi' cannot be rendered by the base's chat template: no system turns"):
        prepare_one(question("Hi", "well"), tokenizer)


def test_every_token_that_ends_a_turn_is_known(base_path: Path, tokenizer: Any, tmp_path: Path) -> None:
    assert tokenizer.eos_token_id in tokenised.stop_tokens(base_path, tokenizer)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 106]}')
    assert tokenised.stop_tokens(tmp_path, tokenizer) == {tokenizer.eos_token_id, 1, 106}


def test_no_example_is_longer_than_what_the_base_was_made_for(base_path: Path, tmp_path: Path) -> None:
    assert 16 < tokenised.context_tokens(base_path) < 1 << 20
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 77}}')
    assert tokenised.context_tokens(tmp_path) == 77
