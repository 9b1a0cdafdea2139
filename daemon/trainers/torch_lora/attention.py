"""Attention within rows that lie end to end: the only place that knows the library's attention interface.

Everything else in a decoder looks at one token at a time, so rows without padding cost what their tokens cost. Rows
of like lengths attend together, as a small padded batch; no row sees another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "genome_packed"
GROWTH, SLACK = 1.25, 4
"""A group's longest row has at most GROWTH times the tokens of its shortest and SLACK more: little is padded, and there
are few groups."""
WORTHWHILE = 0.9
"""Of a pass's tokens: where more are asked for, to choose them costs more than it spares."""

CHECKED = (7, 23, 5)
"""Lengths of the rows by which a model is checked …"""
BEYOND = 9
"""… and by how much one is longer than what a layer can look back, where a row can be."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Largest difference of logits, as a share of the largest: rows one by one and together round otherwise."""


@dataclass(frozen=True)
class Group:
    """``count`` rows from token ``start`` on, ``tokens`` of them, at most ``longest`` in a row.

    ``gather`` [count · longest]: the token that stands at each padded place, any where it is padding; ``places``
    [tokens]: the padded place of each token. Both None where all rows are equally long.
    """

    start: int
    tokens: int
    count: int
    longest: int
    gather: Tensor | None
    places: Tensor | None


class Rows:
    """How the rows of the pass at hand lie. One at a time: it is read again when a checkpoint is recomputed.

    ``asked``: places whose logits are asked for, None for all, of so many ``tokens``; ``layers``: how often a pass
    attends, and how often it has ``attended``.
    """

    groups: Sequence[Group] = ()
    asked: Tensor | None = None
    tokens = 0
    layers, attended = 0, 0
    sparing = False
    """Whether what nobody asks for may be left out, as `spare` found."""
    unasked = 0.0
    """What a layer gives for it."""


ROWS = Rows()


def install(model: Any, longest: int) -> bool:
    """Lets a model attend this way if it then gives what it gives now; whether it does. ``longest``: tokens of a row.

    One does not whose tokens meet elsewhere as well (state spaces, convolutions), or which attends in a way of its own.
    """
    config = model.config.get_text_config()
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    lengths = [*CHECKED, *(window + BEYOND for window in windows if window and window < longest)]
    own = model.config._attn_implementation
    tokens, positions = _rows(model, lengths)
    with torch.no_grad():
        alone = torch.cat([model(row, use_cache=False).logits[0] for row in tokens.split(lengths, dim=1)])
        try:
            model.set_attn_implementation(NAME)
            lay_out(np.array(lengths), model.device)
            together = model(tokens, position_ids=positions, use_cache=False).logits[0]
            ROWS.layers, ROWS.sparing = ROWS.attended, False
            if not _apart(model):
                together = torch.full_like(alone, torch.inf)
        except (ValueError, TypeError, RuntimeError, AttributeError):
            together = torch.full_like(alone, torch.inf)
    if _alike(together, alone, model.dtype):
        return True
    model.set_attn_implementation(own)
    return False


def _apart(model: Any) -> bool:
    """Whether nothing of a row reaches the next: no gradient at all comes back to it, however small the layer's weights
    are in which they might meet."""
    kept: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    tokens, positions = _rows(model, CHECKED)
    lay_out(np.array(CHECKED), model.device)
    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(tokens, position_ids=positions, use_cache=False).logits[0]
            (gradient,) = torch.autograd.grad(logits[-CHECKED[-1] :].float().logsumexp(-1).mean(), kept[0])
    finally:
        hook.remove()
    return not gradient[0, : -CHECKED[-1]].any()


def spare(model: Any) -> bool:
    """Lets `needed` name what is asked for in a model of ours that attends this way, if after the last attention tokens
    really meet no more; whether it does. They do where a convolution comes last, for example.

    What is not asked for is made NaN. Wherever that is looked at, what is asked for becomes NaN too, be it ever so
    little that it would have changed; so it is told from rounding, which differs where fewer rows are multiplied.
    """
    tokens, positions = _rows(model, CHECKED)
    places, found = torch.arange(2, tokens.numel(), 3, device=model.device), []
    for ROWS.sparing, ROWS.unasked in ((False, 0.0), (True, torch.nan)):
        lay_out(np.array(CHECKED), model.device)
        try:
            with torch.no_grad(), asking(places, tokens.numel()):
                found.append(model(input_ids=tokens, position_ids=positions, use_cache=False).logits[0, places])
        except RuntimeError:  # of a layer that NaN is too much for
            found.append(torch.tensor(torch.nan))
    ROWS.sparing, ROWS.unasked = _alike(found[1], found[0], model.dtype), 0.0
    return ROWS.sparing


def _alike(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """But for rounding. What holds infinity or NaN is like nothing."""
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) <= TOLERANCE[dtype] * scale


def _rows(model: Any, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Tokens and positions of rows end to end, [1, t] both. The tokens are from amid the vocabulary: one for padding
    may be embedded as zero, where not every norm has a gradient."""
    known = model.get_input_embeddings().num_embeddings
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0).to(model.device)
    return (known // 2 + positions) % known, positions


def lay_out(lengths: np.ndarray, device: torch.device) -> None:
    """To be called before each pass with the lengths of its rows, which had best be sorted."""
    ROWS.attended = 0
    groups, edges = [], [0]
    for index in range(1, len(lengths)):
        part = [*lengths[edges[-1] : index], lengths[index]]
        if max(part) > GROWTH * min(part) + SLACK:
            edges.append(index)
    start = 0
    for first, last in zip(edges, [*edges[1:], len(lengths)], strict=True):
        groups.append(_group(start, lengths[first:last], device))
        start += groups[-1].tokens
    ROWS.groups = groups


@contextmanager
def asking(places: Tensor, tokens: int) -> Iterator[None]:
    """In here a pass over so many tokens need give logits at these places alone, [k]."""
    ROWS.asked, ROWS.tokens = (places if len(places) < WORTHWHILE * tokens else None), tokens
    try:
        yield
    finally:
        ROWS.asked = None


def needed(x: Tensor) -> Tensor | None:
    """The only places of a layer's input [..., d] that still matter, None for all. After the last layer has attended,
    tokens meet no more, so what nobody asks for need not be computed.

    All do where a layer sees something else than each token once: one expert's, or several streams of them.
    """
    if ROWS.asked is None or not ROWS.sparing or ROWS.attended != ROWS.layers:
        return None
    return ROWS.asked if x.shape[:-1].numel() == ROWS.tokens else None


def _group(start: int, lengths: np.ndarray, device: torch.device) -> Group:
    count, longest, tokens = len(lengths), int(lengths.max()), int(lengths.sum())
    if count * longest == tokens:
        return Group(start, tokens, count, longest, None, None)
    firsts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.arange(tokens) - firsts + np.repeat(np.arange(count) * longest, lengths)
    gather = np.zeros(count * longest, dtype=np.int64)
    gather[places] = np.arange(tokens)
    return Group(
        start, tokens, count, longest, torch.from_numpy(gather).to(device), torch.from_numpy(places).to(device)
    )


def packed(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row: ``query`` [1, heads, t, d], ``key`` and ``value`` [1, key heads, t, d], to
    [1, t, heads, d]."""
    ROWS.attended += 1
    grouped = query.shape[1] != key.shape[1]
    dtype = query.dtype
    if query.is_cpu:  # the CPU's kernels are slow in half precision, backwards by a factor of ten
        query, key, value = query.float(), key.float(), value.float()
    found = []
    for group in ROWS.groups:
        rows = [_padded(part, group) for part in (query, key, value)]
        mask = _window(group.longest, sliding_window, rows[0])
        output = scaled_dot_product_attention(
            *rows, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        flat = output.transpose(1, 2).flatten(0, 1)
        found.append(flat if group.places is None else _Unpad.apply(flat, group.gather, group.places))
    return torch.cat(found).unsqueeze(0).to(dtype), None


def _padded(part: Tensor, group: Group) -> Tensor:
    """Of [1, heads, t, d], a group's rows, [count, heads, longest, d]."""
    flat = part[0, :, group.start : group.start + group.tokens].transpose(0, 1)
    if group.gather is not None:
        flat = _Pad.apply(flat, group.gather, group.places)
    return flat.reshape(group.count, group.longest, *flat.shape[1:]).transpose(1, 2)


def _window(longest: int, window: int | None, like: Tensor) -> Tensor | None:
    """The mask [longest, longest] of rows longer than what a layer looks back."""
    if not window or longest <= window:
        return None
    visible = torch.ones(longest, longest, dtype=torch.bool, device=like.device)
    return visible.tril() & ~visible.tril(-window)


class _Pad(torch.autograd.Function):
    """Takes tokens to their padded places. Padding is a copy of the first token, and nothing comes back from it."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, gather: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return flat.index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _Unpad(torch.autograd.Function):
    """The way back. What attention made of padding is dropped, with a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, gather: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(gather, places)
        return padded.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gather, places = ctx.saved_tensors
        padded = gradient.new_zeros(gather.shape[0], *gradient.shape[1:])
        return padded.index_copy_(0, places, gradient), None, None


AttentionInterface.register(NAME, packed)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)
