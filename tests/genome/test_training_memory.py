"""What a training needs, and how it is made to fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixed import SHIPPED_BASE

from genome import memory, shapes
from genome.errors import InvalidConfig
from genome.memory import MIB, Library, Room, Step, Work
from genome.shapes import Shape
from genome.training import Example, TrainingSettings

LIBRARY = Library(process_bytes=500 * MIB, number_bytes=4)
SETTINGS = TrainingSettings(rank=16)
WORK = Work(longest=300, signals=Step(tokens=4000, padded=4800, responses=1600))
SMALL = Shape(floats=360 * 10**6, packed_bytes=0, linear=300 * 10**6, factors=500_000, layers=32, hidden=960,
              intermediate=2560, heads=15, query=960, vocabulary=49152)  # fmt: skip
"""About that of SmolLM2-360M."""


def base(directory: Path, config: dict[str, Any], tensors: dict[str, tuple[str, list[int], int]]) -> Path:
    """A model directory with a header and no data."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, sizes, length) in tensors.items():
        header[name] = {"dtype": dtype, "shape": sizes, "data_offsets": [end, end + length]}  # type: ignore[dict-item]
        end += length
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    return directory


DIMENSIONS = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 1000}  # fmt: skip


def test_the_shape_of_a_base_is_read_from_its_headers() -> None:
    """Every weight is counted, and a LoRA lies on each linear layer of the decoder."""
    found = shapes.of(SHIPPED_BASE)
    # Four layers of queries, keys, values, output and three products, hidden 160, intermediate 448.
    assert found.factors == 4 * (4 * 320 + 3 * 608)
    assert (found.layers, found.hidden, found.intermediate, found.vocabulary) == (4, 160, 448, 1500)
    assert 0 < found.linear == 4 * (4 * 160 * 160 + 3 * 160 * 448) < found.floats
    assert found.packed_bytes == 0


def test_no_adapter_lies_on_a_layers_experts(tmp_path: Path) -> None:
    """They take their room as weights, and are no part of what learns."""
    up, query = "model.layers.0.mlp.experts.%d.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"
    tensors = {query: ("BF16", [64, 64], 8192), **{up % number: ("BF16", [256, 64], 32768) for number in range(4)}}
    found = shapes.of(base(tmp_path / "base", DIMENSIONS, tensors))
    assert (found.factors, found.linear) == (64 + 64, 64 * 64 + 4 * 256 * 64)


def test_a_base_with_pictures_is_measured_by_its_text_part(tmp_path: Path) -> None:
    """Such a config nests what counts."""
    outer = {"model_type": "seeing", "text_config": DIMENSIONS}
    made = base(tmp_path / "base", outer, {"model.layers.0.mlp.up_proj.weight": ("BF16", [256, 64], 32768)})
    found = shapes.of(made)
    assert (found.hidden, found.floats, found.factors) == (64, 256 * 64, 256 + 64)


def test_a_quantised_base_takes_what_it_takes_on_disk(tmp_path: Path) -> None:
    """Its packed weights do not show their sizes; the adapter's follow from the config."""
    made = base(tmp_path / "base", DIMENSIONS, {
        "model.embed_tokens.weight": ("BF16", [1000, 64], 128000),
        "model.layers.0.mlp.up_proj.weight": ("U32", [256, 8], 8192),
        "model.layers.0.mlp.up_proj.scales": ("BF16", [256, 1], 512),
    })  # fmt: skip
    found = shapes.of(made)
    assert (found.floats, found.packed_bytes) == (64000 + 256, 8192)
    assert found.factors == 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 256))
    assert memory.need(found, SETTINGS, WORK, LIBRARY, (4096, False)).weights == 4 * 64256 + 8192


def test_a_base_that_says_nothing_of_its_size_is_named(tmp_path: Path) -> None:
    """Rather than guessed at."""
    with pytest.raises(InvalidConfig, match=r"size of the base at .*/base cannot be told"):
        shapes.of(base(tmp_path / "base", {"model_type": "odd"}, {}))


def test_each_part_grows_with_what_it_is_made_of() -> None:
    """Rank with the adapter, tokens with activations, responses with logits, bytes a number with weights."""
    one = memory.need(SMALL, SETTINGS, WORK, LIBRARY, (4096, False))
    rank = memory.need(SMALL, SETTINGS.model_copy(update={"rank": 32}), WORK, LIBRARY, (4096, False))
    assert rank.adapter == 2 * one.adapter and rank.activations > one.activations
    half = memory.need(SMALL, SETTINGS, WORK, LIBRARY, (2048, False))
    assert 2 * half.activations == one.activations and half.logits == one.logits
    packed = memory.need(SMALL, SETTINGS, WORK, replace(LIBRARY, padded=False), (4096, False))
    assert packed.activations == int(one.activations * 4000 / 4096)
    assert one.logits == 4 * 4 * 1600 * 49152
    assert one.weights == 4 * SMALL.floats
    four = Library(500 * MIB, 2, four_bits=True)
    assert memory.need(SMALL, SETTINGS, WORK, four, (4096, False)).weights < one.weights // 3
    scores = Library(500 * MIB, 4, scores=True)
    assert memory.need(SMALL, SETTINGS, WORK, scores, (4096, False)).activations > one.activations


def test_adapters_beside_are_kept_in_float32() -> None:
    """Without gradients, moments or an average; where a pass lays them together with the learning one, once more in the
    numbers it computes in, with gradient checkpointing one layer's at a time."""
    alone = memory.need(SMALL, SETTINGS, WORK, LIBRARY, (4096, False))
    beside = memory.need(SMALL, SETTINGS, WORK, replace(LIBRARY, beside=24), (4096, False))
    assert replace(beside, adapter=alone.adapter) == alone
    assert beside.adapter - alone.adapter == 4 * 24 * SMALL.factors
    joins = replace(LIBRARY, number_bytes=2, beside=24, joined=True)
    for checkpointing, layers in ((False, 1), (True, SMALL.layers)):
        joined = memory.need(SMALL, SETTINGS, WORK, joins, (4096, checkpointing))
        assert joined.adapter == beside.adapter + 2 * (16 + 24) * SMALL.factors // layers
        assert (
            joined.activations
            > memory.need(SMALL, SETTINGS, WORK, replace(joins, beside=0), (4096, checkpointing)).activations
        )
    assert memory.need(SMALL, SETTINGS, WORK, replace(LIBRARY, joined=True), (4096, False)) == alone


def test_anchors_have_logits_at_every_token_they_hold() -> None:
    """In their own pass, and before the first step in one as large as a pass may be, with nothing kept on the way."""
    shallow, anchors = replace(SMALL, layers=4), Step(tokens=1000, padded=1500, responses=1000)
    few = Work(longest=90, signals=Step(tokens=100, padded=120, responses=30), anchors=anchors)
    found = memory.need(shallow, SETTINGS, few, LIBRARY, (4096, False))
    assert found.logits == 4 * 4 * 1000 * 49152
    held = memory.need(shallow, SETTINGS, replace(few, held=3000), LIBRARY, (4096, False))
    assert held.logits == 2 * 4 * 3000 * 49152
    assert held.activations < found.activations  # for three times the tokens
    small = memory.need(shallow, SETTINGS, replace(few, held=3000), LIBRARY, (512, False))
    assert small.logits == 4 * 4 * 512 * 49152


def test_a_row_is_never_split() -> None:
    """A pass smaller than the longest example needs what that example needs."""
    assert memory.need(SMALL, SETTINGS, WORK, LIBRARY, (10, False)) == memory.need(
        SMALL, SETTINGS, WORK, LIBRARY, (300, False)
    )
    assert min(tokens for tokens, _ in memory.cuts(300)) == 300
    assert [tokens for tokens, checkpointing in memory.cuts(20) if checkpointing] == [4096, 2048, 1024, 512, 256, 128]
    assert [tokens for tokens, checkpointing in memory.cuts(9000) if checkpointing] == [4096]


def test_smaller_passes_come_before_gradient_checkpointing() -> None:
    """With less and less free the cut gets finer, and what is chosen fits as long as anything does."""
    seen = []
    for free in range(30_000, 1_000, -10):
        room = Room(free * MIB)
        found = memory.plan(SMALL, SETTINGS, WORK, LIBRARY, room)
        if not room.holds(found.need):
            break
        seen.append((found.gradient_checkpointing, -found.pass_tokens))
    assert seen == sorted(seen)
    assert seen[0] == (False, -4096) and (False, -300) in seen and seen[-1] == (True, -300)


def test_what_fits_nowhere_is_planned_at_its_smallest() -> None:
    """So that an error can say what would be needed at least."""
    found = memory.plan(SMALL, SETTINGS, WORK, LIBRARY, Room(0))
    assert (found.pass_tokens, found.gradient_checkpointing) == (300, True)
    assert found.environment == {"GENOME_PASS_TOKENS": "300", "GENOME_GRADIENT_CHECKPOINTING": "1"}


def test_an_accelerator_of_its_own_takes_the_model_and_the_host_its_process() -> None:
    """Where there is one memory, everything is counted there, and once."""
    need = memory.need(SMALL, SETTINGS, WORK, LIBRARY, (4096, False))
    everything = need.process + need.weights + need.adapter + need.activations + need.logits
    assert need.split(accelerator=False) == (everything, 0)
    assert need.split(accelerator=True) == (need.process + need.weights, everything - need.process)
    host, accelerator = need.split(accelerator=True)
    assert Room(host, accelerator).holds(need)
    assert not Room(host - 1, accelerator).holds(need) and not Room(host, accelerator - 1).holds(need)
    assert not Room(host, accelerator, slack=(1.25, 1.0)).holds(need)
    assert not Room(host, accelerator, slack=(1.0, 1.25)).holds(need)
    assert Room(2 * host, accelerator, slack=(1.25, 1.0)).holds(need)


def test_passes_may_be_held_to_less_than_there_is() -> None:
    """Of a training that ran out of memory, whatever seems free: the first cut whose passes are so small, or else the
    most frugal one."""
    whole = memory.plan(SMALL, SETTINGS, WORK, LIBRARY, Room(1 << 50))
    half = memory.plan(SMALL, SETTINGS, WORK, LIBRARY, Room(1 << 50, passes=whole.need.passes // 2))
    assert whole.pass_tokens == 4096 > half.pass_tokens and not half.gradient_checkpointing
    assert whole.need.passes // 4 < half.need.passes <= whole.need.passes // 2
    least = memory.plan(SMALL, SETTINGS, WORK, LIBRARY, Room(1 << 50, passes=0))
    assert (least.pass_tokens, least.gradient_checkpointing) == (300, True)


def test_the_work_is_that_of_the_largest_step() -> None:
    """Tokens are told from bytes; what is longer than max_tokens is cut as the trainer cuts it."""

    def chat(prompt: int, answer: int) -> Example:
        turns = [{"role": "user", "content": "x" * prompt}, {"role": "assistant", "content": "x" * answer}]
        return Example(id="e", messages=turns)

    settings = TrainingSettings(batch_size=2, max_tokens=100)
    found = memory.work([chat(25, 50), chat(25, 100), chat(5000, 50)], settings)
    assert found == Work(longest=100, signals=Step(100 + 66, 200, 60))
    anchors = [Example(id="a", prompt="x" * 25, response="x" * 25, anchor=True)] * 4
    found = memory.work([chat(25, 50), chat(25, 100), chat(5000, 50), *anchors], settings)
    assert (found.anchors, found.held) == (Step(2 * 20, 2 * 20, 2 * 20), 4 * 20)  # said by a model, all of it
    asked = [chat(25, 25).model_copy(update={"anchor": True})] * 4
    found = memory.work([chat(25, 50), *asked], settings)
    assert found.held == 4 * 10
    assert memory.need(SMALL, SETTINGS, found, LIBRARY, (4096, False)).process > LIBRARY.process_bytes
    none = settings.model_copy(update={"anchor_weight": 0.0})
    assert memory.work([chat(25, 50), *anchors], none).anchors == Step()


def test_both_answers_of_a_pair_are_work_of_one_pass() -> None:
    """Where pairs are learned: the question is there twice, and both answers have logits."""
    pair = Example(id="p", prompt="x" * 25, response="x" * 50, rejected="x" * 75)
    preferring = TrainingSettings(batch_size=2, objective="sft+dpo")
    assert memory.work([pair] * 3, preferring) == Work(longest=70, signals=Step(140, 140, 100))
    plain = TrainingSettings(batch_size=2, min_pairs=4)
    assert memory.work([pair] * 3, plain) == Work(longest=30, signals=Step(60, 60, 40))
    assert memory.work([pair] * 4, plain).signals.padded == 140
