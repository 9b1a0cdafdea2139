"""Make the demo base model: train a tokenizer and a tiny Llama on synthetic text, and save them.

    python examples/base_model/make_base.py --out daemon/demo/base

All text comes from ``daemon.demo.house``; nothing is downloaded. The same seed gives the same text and the
same start, so a run on the same kind of machine makes the same model. The result is a Hugging Face folder.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# So that the script runs from a checkout where nothing is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from daemon.demo import house

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 1500
TOKENIZER_EXAMPLES = 40_000
CONTEXT = 512
BATCH = 64
CHUNK = 64  # batches drawn at once; their examples are sorted by length, so that little is spent on padding
MATRIX_RATE, OTHER_RATE = 6e-3, 3e-3  # the highest learning rates of the two optimizers
REPORT_EVERY = 100
REQUEST_WEIGHT = 0.15  # of a request's token in the loss, an answer's counting 1

MODEL_CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
tags: [llama, tiny, synthetic, lora]
---

# Demo base model

A Llama of {parameters:,} parameters ({layers} layers, width {width}, {vocabulary} tokens) which turns short
everyday requests into compact JSON commands. It exists so that a demo and its tests can teach a real model
with LoRA in seconds on one processor core. It is no general language model: it knows only the skills below.

- **Skills:** timers, music, shopping, calendar, messages, weather, notes, units, routes; commands whose name
  and fields are given in the request or in the context; echo, first, last and reverse for words.
- **Not in it:** home control. That is what the demo's user teaches.
- **Training text:** {examples:,} synthetic examples drawn by `daemon/demo/skills.py`; no other data.
- **Made by:** `examples/base_model/make_base.py --steps {steps} --seed {seed}` (tokenizer: byte-level BPE
  with single digits, trained on the same text).
- **Exact match on {questions} held-out skill questions:** {skills:.3f}; on a home's dialect before any
  teaching: {before:.3f}.
- **Chat format:** `<s><|user|>set a timer for 5 minutes<|assistant|>{{"timer":{{"minutes":5}}}}</s>`, with an
  optional `<|system|>` part before the user's.
- **Licence:** Apache-2.0.
"""


def conversation(example: house.Example) -> str:
    """The text of one exchange, as the chat template writes it."""
    system = SYSTEM + example.system if example.system else ""
    return f"{BOS}{system}{USER}{example.question}{ASSISTANT}{example.answer}{EOS}"


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that any text works; every digit is one token, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS, SYSTEM, USER, ASSISTANT],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = (part for example in house.base_examples(seed, TOKENIZER_EXAMPLES) for part in example if part)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """An untrained Llama with tied embeddings, narrow enough to train on a processor."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=4,
            num_attention_heads=5,
            num_key_value_heads=5,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.05,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def token_weights(row: list[int], answer_tag: int, width: int) -> list[float]:
    """How much each token of an exchange counts in the loss, filled up to ``width`` with zeros for padding.

    Requests count so that the model can also sample them. They count little because most of a request cannot be
    foreseen: at full weight that noise would drown what answers teach.
    """
    asked = row.index(answer_tag) + 1
    return [REQUEST_WEIGHT] * asked + [1.0] * (len(row) - asked) + [0.0] * (width - len(row))


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``steps`` pairs of token ids (int64) and their weights (float32), [BATCH, length], padded on the right."""
    rng = random.Random(f"batches {seed}")
    stream = house.base_examples(seed, steps * BATCH)
    answer_tag = tokenizer.convert_tokens_to_ids(ASSISTANT)
    while texts := [conversation(example) for example in islice(stream, CHUNK * BATCH)]:
        rows = sorted(tokenizer(texts, add_special_tokens=False)["input_ids"], key=len)
        chunk = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        rng.shuffle(chunk)
        for batch in chunk:
            width = len(batch[-1])
            ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in batch])
            yield ids, torch.tensor([token_weights(row, answer_tag, width) for row in batch])


def share_at(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step: a short linear rise, then half a cosine down to 2 %."""
    warm_up = min(100, steps // 10 + 1)
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, where it needs far fewer steps than AdamW; AdamW for all else."""
    named = list(model.named_parameters())
    matrices = [weights for name, weights in named if weights.ndim == 2 and "embed" not in name]
    others = [weights for name, weights in named if weights.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def losses(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """The weighted mean cross-entropy to train on, and that of the answers' tokens alone; in nats.

    Padding is on the right and attention is causal, so no attention mask is needed.
    """
    logits, wanted, weights = model(input_ids=ids).logits[:, :-1], ids[:, 1:], weights[:, 1:]
    each = cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
    return (each * weights).sum() / weights.sum(), each.detach()[weights == 1].mean().item()


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int) -> None:
    """Train on whole exchanges, requests included."""
    optimizers = make_optimizers(model)
    schedules = [LambdaLR(optimizer, lambda step: share_at(step, steps)) for optimizer in optimizers]
    began, recent = time.monotonic(), []
    model.train()
    for step, (ids, weights) in enumerate(batches(tokenizer, seed, steps), start=1):
        loss, of_answers = losses(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in (*optimizers, *schedules):
            stepper.step()
        model.zero_grad()
        recent.append(of_answers)
        if step % REPORT_EVERY == 0:
            mean = sum(recent) / len(recent)
            print(f"step {step}/{steps} loss of answers {mean:.4f} {time.monotonic() - began:.0f} s", flush=True)
            recent.clear()


@torch.no_grad()
def answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[str]) -> list[str]:
    """Greedy answers to single questions."""
    model.eval()
    found = []
    for start in range(0, len(questions), BATCH):
        prompts = [f"{BOS}{USER}{question}{ASSISTANT}" for question in questions[start : start + BATCH]]
        inputs = tokenizer(
            prompts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=48)
        found += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def exact_match(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]], show: int = 0
) -> float:
    """Share of questions answered to the letter; prints up to ``show`` misses."""
    given = answers(model, tokenizer, [question for question, _ in pairs])
    misses = [(*pair, answer) for pair, answer in zip(pairs, given, strict=True) if answer != pair[1]]
    for question, right, answer in misses[:show]:
        print(f"  miss: {question!r}: {answer!r} and not {right!r}")
    return 1 - len(misses) / len(pairs)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights (bfloat16), configurations and tokenizer in the Hugging Face layout."""
    model.generation_config.update(
        do_sample=False,
        max_new_tokens=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # The class's name differs between releases of the library; this one is understood by all of them.
    settings = json.loads((out / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def describe(out: Path, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int) -> None:
    """Measure the saved model, whose weights were rounded when they were written, and write its card."""
    model = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    questions = house.skill_questions(seed=1, count=1000)
    skills = exact_match(model, tokenizer, [(asked.question, asked.answer) for asked in questions], show=20)
    before = exact_match(model, tokenizer, house.corrections(seed=1, count=150))
    print(f"skills: exact match {skills:.3f} on {len(questions)} held-out questions")
    print(f"corrections, before any teaching: exact match {before:.3f}")
    card = MODEL_CARD.format(
        parameters=sum(weights.numel() for weights in model.parameters()),
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        vocabulary=len(tokenizer),
        examples=steps * BATCH,
        steps=steps,
        seed=seed,
        questions=len(questions),
        skills=skills,
        before=before,
    )
    (out / "README.md").write_text(card)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=2800, help=f"training steps of {BATCH} examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    return parser.parse_args()


def main() -> None:
    """Train, save, and measure what was saved."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    tokenizer = train_tokenizer(arguments.seed)
    model = new_model(tokenizer, arguments.seed)
    parameters = sum(weights.numel() for weights in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, arguments.seed, arguments.steps)
    save(model, tokenizer, arguments.out)

    describe(arguments.out, tokenizer, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
