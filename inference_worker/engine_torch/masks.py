"""Which tokens a token sees: additive 4-D masks, by layer type where the architecture mixes types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from genome.errors import InvalidConfig

Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Masks:
    """Masks for one architecture, read off its config."""

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        self._dtype = dtype
        types = getattr(config, "layer_types", None)
        self._by_type = bool(types)
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        rules: dict[str, Rule | None] = {
            "full_attention": None,
            "sliding_attention": (lambda query, key: query - key < window) if window else None,
            "chunked_attention": _same_chunk(getattr(config, "attention_chunk_size", None)),
        }
        default = "sliding_attention" if window else "full_attention"
        wanted = sorted(set(types or [default]))
        if unknown := set(wanted) - rules.keys():
            raise InvalidConfig(f"layers of type {', '.join(sorted(unknown))} keep a state that is no list of keys")
        self._rules = {kind: rules[kind] for kind in wanted}
        self._nothing_hidden = torch.zeros(1, 1, 1, 0)

    def build(
        self, query: torch.Tensor, key: torch.Tensor, related: torch.Tensor | None = None
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Masks [n, 1, q, k] for tokens at positions ``query`` [n, q] looking at ``key`` [n or 1, k].

        ``related`` [n, q, k]: pairs that may see each other at all; None: every pair.
        """
        query, key = query.unsqueeze(2), key.unsqueeze(1)
        causal = key <= query
        if related is not None:
            causal = causal & related
        masks = {
            kind: self._additive(causal & rule(query, key) if rule else causal) for kind, rule in self._rules.items()
        }
        return masks if self._by_type else next(iter(masks.values()))

    def of_one_token(self, positions: torch.Tensor, length: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """The same for rows of one length with one new token each, at ``positions`` [n, 1]: most see everything."""
        if any(self._rules.values()):
            return self.build(positions, torch.arange(length, device=positions.device)[None])
        if self._nothing_hidden.shape[-1] < length:
            self._nothing_hidden = torch.zeros(1, 1, 1, 2 * length, dtype=self._dtype, device=positions.device)
        mask = self._nothing_hidden[..., :length].expand(len(positions), -1, -1, -1)
        return dict.fromkeys(self._rules, mask) if self._by_type else mask

    def _additive(self, visible: torch.Tensor) -> torch.Tensor:
        hidden = torch.finfo(self._dtype).min
        mask = torch.zeros(visible.shape, dtype=self._dtype, device=visible.device)
        return mask.masked_fill_(~visible, hidden).unsqueeze(1)


def _same_chunk(size: int | None) -> Rule | None:
    return (lambda query, key: query // size == key // size) if size else None
