"""Which linear layers an adapter is laid on."""

from __future__ import annotations

import pytest

from genome import places
from genome.errors import InvalidConfig

LAYER = "model.layers.1."


@pytest.mark.parametrize(
    ("experts", "router"),
    [
        ("mlp.experts", "mlp.gate"),
        ("mlp.experts", "mlp.router"),
        ("mlp.experts", "mlp.router.gate"),
        ("block_sparse_moe.switch_mlp", "block_sparse_moe.gate"),
        ("mlp.switch_mlp", "mlp.gate.gate_proj"),
    ],
)
def test_experts_and_what_chooses_between_them_are_not_adapted(experts: str, router: str) -> None:
    """Under the names that libraries have for them; what all tokens go through is."""
    plain = [f"{LAYER}self_attn.q_proj", f"{LAYER}{experts.partition('.')[0]}.shared_expert.gate_proj"]
    linear = [*plain, f"{LAYER}{router}", f"{LAYER}mlp.experts.3.up_proj"]
    assert places.adaptable("base", linear, [f"{LAYER}{experts}", *linear]) == plain


def test_a_gate_where_there_are_no_experts_is_a_layer_like_others() -> None:
    """Some feed-forward networks call one of their layers so."""
    linear = ["model.layers.0.mlp.gate", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
    assert places.adaptable("base", linear, [*linear, "model.layers.1.mlp.experts"]) == linear


def test_a_base_without_any_is_refused_by_name() -> None:
    """Before a step is made, and not when the adapter is to be installed."""
    expert = f"{LAYER}mlp.experts.0.up_proj"
    with pytest.raises(InvalidConfig, match="some-base has no linear layer that an adapter could be laid on"):
        places.adaptable("some-base", [expert], [expert])
