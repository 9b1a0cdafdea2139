"""Promises of every engine: tokens and scores are the library's own, whatever shares the batch.

The library is transformers with PEFT, on the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from worker_runs import PROMPTS, Foundry, Steps, generation, library_tokens

from genome import lora
from genome.errors import InvalidAdapter
from genome.lora import Factors, Lora
from genome.tensors import Tensor
from inference_worker.engine import Engine, Question, Term, Terms


@pytest.fixture(params=["torch", "mlx"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine over the same base, in single precision."""
    found: Engine = request.getfixturevalue(f"{request.param}_engine")
    return found


def library_logprobs(model: Any, prompt: tuple[int, ...], continuation: tuple[int, ...]) -> list[float]:
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + continuation])).logits[0].log_softmax(1)
    return [logits[len(prompt) - 1 + index, token].item() for index, token in enumerate(continuation)]


def load(engine: Engine, path: Path, scale: float = 1.0) -> Term:
    return Term(engine.load(lora.read(path)), scale)


def with_peft(library_model: Callable[[], Any], paths: dict[str, Path], scales: dict[str, float]) -> Any:
    """The base with these adapters applied together by PEFT."""
    names = list(paths)
    model = PeftModel.from_pretrained(library_model(), paths[names[0]], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(paths[name], name)
    model.base_model.set_adapter(names)
    for module in model.modules():
        if hasattr(module, "set_scale"):
            for name in names:
                if name in module.scaling:
                    module.set_scale(name, scales[name])
    return model.eval()


def test_tokens_are_those_of_generate(engine: Engine, library_model: Callable[[], Any], steps: Steps) -> None:
    """A reply's greedy tokens equal the library's generate, for prompts of different lengths in one batch."""
    requests = [generation(prompt, 20) for prompt in PROMPTS]
    for request in requests:
        steps.submit(request)
    steps.step_until_done(*requests)
    model = library_model()
    assert [request.written for request in requests] == [library_tokens(model, prompt, 20) for prompt in PROMPTS]


def test_rows_join_and_leave_a_batch_of_mixed_adapters(
    engine: Engine, library_model: Callable[[], Any], foundry: Foundry, steps: Steps
) -> None:
    """Rows that begin and end at different steps, with different adapters, say what each says alone in PEFT."""
    paths = {"first": foundry("mix-one", seed=1, strength=0.1), "second": foundry("mix-two", seed=2, strength=0.1, r=8)}
    first, second = load(engine, paths["first"]), load(engine, paths["second"])
    stacks: list[Terms] = [(), (first,), (second,), (first, second)]
    requests = [generation(prompt, 6 + 5 * index, stacks[index]) for index, prompt in enumerate(PROMPTS)]
    for request in requests:
        steps.submit(request)
        steps.step()
        steps.step()
    steps.step_until_done(*requests)
    everything = {"first": 1.0, "second": 1.0}
    alone = [library_model()] + [
        with_peft(library_model, {name: paths[name] for name in names}, everything)
        for names in (["first"], ["second"], ["first", "second"])
    ]
    expected = [library_tokens(model, PROMPTS[index], 6 + 5 * index) for index, model in enumerate(alone)]
    assert [request.written for request in requests] == expected
    assert len({tuple(tokens[:6]) for tokens in expected}) > 1, "the adapters change nothing, so this shows nothing"


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 8, "layers.0.mlp.down_proj": 2}, "alpha_pattern": {"v_proj": 32}},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
    ids=["plain", "rslora", "patterns", "lm_head"],
)
def test_scores_with_one_adapter_are_those_of_peft(
    engine: Engine, library_model: Callable[[], Any], foundry: Foundry, config: dict[str, Any]
) -> None:
    """Every LoRA feature that loads gives PEFT's log-probabilities."""
    path = foundry(f"feature-{'-'.join(config)}", seed=3, strength=0.1, **config)
    question = Question((load(engine, path),), PROMPTS[2], ((8, 9, 10), (11,), (12, 13, 14, 15)))
    (answers,) = engine.score([question])
    model = with_peft(library_model, {"only": path}, {"only": 1.0})
    for answer, continuation in zip(answers, question.continuations, strict=True):
        expected = library_logprobs(model, question.prompt, continuation)
        assert answer.logprobs == pytest.approx(expected, abs=2e-4)


def test_scores_of_mixed_stacks_are_those_of_peft(
    engine: Engine, library_model: Callable[[], Any], foundry: Foundry
) -> None:
    """Rows with no adapter, one, and two at different scales share a forward and do not touch each other."""
    paths = {"first": foundry("mix-one", seed=1, strength=0.1), "second": foundry("mix-two", seed=2, strength=0.1, r=8)}
    weights = {name: engine.load(lora.read(path)) for name, path in paths.items()}
    scales = [{}, {"first": 1.0}, {"first": 0.5, "second": 2.0}, {"second": 0.25}]
    questions = [
        Question(
            tuple(Term(weights[name], scale) for name, scale in each.items()), PROMPTS[index], ((8, 9), (50, 51, 52))
        )
        for index, each in enumerate(scales)
    ]
    for question, each, answers in zip(questions, scales, engine.score(questions), strict=True):
        model = with_peft(library_model, {name: paths[name] for name in each}, each) if each else library_model()
        for answer, continuation in zip(answers, question.continuations, strict=True):
            expected = library_logprobs(model, question.prompt, continuation)
            assert answer.logprobs == pytest.approx(expected, abs=2e-4)


def test_greedy_flags_say_which_tokens_greedy_decoding_would_choose(
    engine: Engine, library_model: Callable[[], Any]
) -> None:
    """The tokens generate makes are all greedy; another first token is not."""
    tokens = library_tokens(library_model(), PROMPTS[0], 4)
    other = (tokens[0] + 1, *tokens[1:])
    (answers,) = engine.score([Question((), PROMPTS[0], (tuple(tokens), other))])
    assert answers[0].greedy == (True,) * 4
    assert answers[1].greedy[0] is False


def test_a_score_does_not_depend_on_what_is_scored_beside_it(engine: Engine, foundry: Foundry) -> None:
    """Prompts and continuations of very different lengths, none at all among them, score as each alone."""
    term = load(engine, foundry("mix-one", seed=1, strength=0.1))
    long = tuple(range(10, 210))
    questions = [
        Question((), (7,), ((8,), long, (9, 10))),
        Question((term,), long, ((11,), (12, 13))),
        Question((term,), PROMPTS[0], ()),
        Question((), PROMPTS[2], ((), (14, 15, 16))),
    ]
    together = engine.score(questions)
    for question, answers in zip(questions, together, strict=True):
        (alone,) = engine.score([question])
        for one, other, tokens in zip(answers, alone, question.continuations, strict=True):
            assert len(one.logprobs) == len(one.greedy) == len(tokens)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_an_adapter_that_overflows_harms_its_own_rows_only(engine: Engine, steps: Steps, foundry: Foundry) -> None:
    """A row whose numbers overflow is failed; its neighbours, and who takes its place, get the right tokens."""
    healthy = lora.read(foundry("mix-one", seed=1, strength=0.1))
    huge = Lora({path: Factors(_huge(each.a), _huge(each.b), 1.0) for path, each in healthy.modules.items()}, "")
    long, short = tuple(range(10, 40)), PROMPTS[0]
    alone, neighbour, follower, companion = (generation(prompt, 10) for prompt in (short, short, short, long))
    steps.submit(alone)
    steps.step_until_done(alone)
    broken = generation(long[:25], 10, (Term(engine.load(huge), 1.0),))
    for request in (neighbour, broken):
        steps.submit(request)
    steps.step_until_done(broken, neighbour)
    # The follower gets the broken row's place while a longer companion makes every column count.
    for request in (companion, follower):
        steps.submit(request)
    steps.step_until_done(companion, follower)
    assert broken.written == []
    assert neighbour.written == follower.written == alone.written


def test_a_broken_row_leaves_nothing_behind_where_it_was_moved_from(engine: Engine, foundry: Foundry) -> None:
    """Rows that end in any order leave places that later rows can use beside longer ones."""
    healthy = lora.read(foundry("mix-one", seed=1, strength=0.1))
    modules = {path: Factors(_huge(f.a), _huge(f.b), 1.0) for path, f in healthy.modules.items()}
    stays, first = engine.open(()), engine.open(())
    broken = engine.open((Term(engine.load(Lora(modules, "huge")), 1.0),))
    assert list(engine.forward([(first, range(5, 25)), (broken, range(5, 25))]).finite) == [True, False]
    engine.close(first)
    engine.close(broken)
    long, short = engine.open(()), engine.open(())
    assert list(engine.forward([(long, range(5, 25)), (short, (5, 6))]).finite) == [True, True]
    for row in (stays, long, short):
        engine.close(row)


def _huge(tensor: Tensor) -> Tensor:
    values = torch.full(tensor.shape, 3e38)
    return Tensor("F32", tensor.shape, values.numpy().tobytes())


def test_an_adapter_of_another_shape_or_name_is_refused(engine: Engine, foundry: Foundry) -> None:
    """What finds no linear layer of its shape is refused by name, not ignored, before it takes any memory."""
    whole = lora.read(foundry("mix-one", seed=1, strength=0.1))
    path, factors = next(iter(whole.modules.items()))
    narrow = Factors(Tensor("F32", (4, 3), bytes(48)), factors.b, 1.0)
    for take in (engine.size, engine.load):
        with pytest.raises(InvalidAdapter, match="no linear layer made_up"):
            take(Lora({**whole.modules, "made_up": factors}, ""))
        with pytest.raises(InvalidAdapter, match=path):
            take(Lora({path: narrow}, ""))
    assert engine.size(whole) == pytest.approx(engine.load(whole).memory_bytes, rel=0.01)


def test_a_restored_row_goes_on_as_the_row_it_was_copied_from(engine: Engine, foundry: Foundry) -> None:
    """A snapshot keeps what its tokens left, whatever the row does later; a part of it can be restored."""
    terms = (load(engine, foundry("mix-one", seed=1, strength=0.1)),)
    prompt, other = PROMPTS[2], (70, 71, 72)
    row, neighbour = engine.open(terms), engine.open(())
    engine.forward([(row, prompt), (neighbour, other)])
    state = engine.snapshot(row, len(prompt) - 1)
    assert state.memory_bytes > 0
    expected = [engine.forward([(row, [token])]).row(0) for token in (8, 9)]
    engine.close(row)
    for length in (len(prompt) - 1, 4):
        again = engine.open(terms)
        engine.restore(again, state, length)
        assert again.length == length
        engine.forward([(again, prompt[length:])])
        found = [engine.forward([(neighbour, [5]), (again, [token])]).row(1) for token in (8, 9)]
        for one, wanted in zip(found, expected, strict=True):
            assert one == pytest.approx(wanted, abs=1e-3)
        engine.close(again)
    engine.close(neighbour)


def test_a_snapshot_restores_into_many_rows(engine: Engine) -> None:
    """One prefix serves several rows at once, and rows that come and go between change nothing in it."""
    prefix, ends = PROMPTS[2], ((1, 2), (30,), (31, 32, 33))
    first = engine.open(())
    engine.forward([(first, prefix)])
    state = engine.snapshot(first, len(prefix))
    alone = [engine.open(()) for _ in ends]
    expected = [engine.forward([(row, prefix + end)]).row(0) for row, end in zip(alone, ends, strict=True)]
    for row in (first, *alone):
        engine.close(row)
    rows = [engine.open(()) for _ in ends]
    for row in rows:
        engine.restore(row, state, len(prefix))
    logits = engine.forward(list(zip(rows, ends, strict=True)))
    for index, wanted in enumerate(expected):
        assert logits.row(index) == pytest.approx(wanted, abs=1e-3)
    for row in rows:
        engine.close(row)


def test_a_rows_likelihood_is_that_of_scoring(engine: Engine, foundry: Foundry) -> None:
    """A continuation behind a row has the likelihood it has behind the row's tokens as a prompt."""
    terms = (load(engine, foundry("mix-one", seed=1, strength=0.1)),)
    prompt, tokens = PROMPTS[0], (8, 9, 10, 11, 12)
    ((answer,),) = engine.score([Question(terms, prompt, (tokens,))])
    row, neighbour = engine.open(terms), engine.open(())
    engine.forward([(row, prompt), (neighbour, PROMPTS[1])])
    found = engine.likelihood(row, tokens)
    assert found.logprobs == pytest.approx(answer.logprobs[1:], abs=1e-3)
    assert found.greedy == answer.greedy[1:]
    assert engine.likelihood(row, tokens[:1]).logprobs == ()
    engine.close(row)
    engine.close(neighbour)


def test_a_row_asked_for_a_likelihood_goes_on_as_if_it_had_not_been(engine: Engine) -> None:
    """Neither the row nor its neighbour keeps anything of the tokens that were asked about."""
    row, alone, neighbour = engine.open(()), engine.open(()), engine.open(())
    engine.forward([(row, PROMPTS[0]), (alone, PROMPTS[0]), (neighbour, PROMPTS[2])])
    engine.likelihood(row, tuple(range(60, 90)))
    assert row.length == len(PROMPTS[0])
    for token in (8, 9, 10):
        logits = engine.forward([(row, [token]), (alone, [token]), (neighbour, [token])])
        assert logits.row(0) == pytest.approx(logits.row(1), abs=1e-3)
    for each in (row, alone, neighbour):
        engine.close(each)
