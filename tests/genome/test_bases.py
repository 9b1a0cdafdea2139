"""What a base's own files say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genome import bases


@pytest.mark.parametrize(
    ("config", "rate"),
    [({"hidden_size": 256}, 0.001953), ({"hidden_size": 4096}, 0.000122), ({"text_config": {"hidden_size": 2048}},
      0.000244), ({"n_embd": 512}, 0.000977), ({}, 0.000244)],
)  # fmt: skip
def test_the_learning_rate_is_half_of_what_the_width_divides(
    config: dict[str, object], rate: float, tmp_path: Path
) -> None:
    """Where it is left to genome; a base that does not say its width is taken for one of 2,048."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert bases.learning_rate(tmp_path) == rate
