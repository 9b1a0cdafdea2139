"""Which layers of a base PEFT adapts: the only place that knows how it is told, and what it would make of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from genome import places

try:
    from peft.utils import transformers_weight_conversion as peft_translation
except ImportError:  # another version of PEFT, that translates nothing
    peft_translation = None

TRANSLATION = "convert_peft_config_for_transformers"
"""PEFT's function that translates a config for architectures of which transformers 5 changed the layers."""


def names(base: Any, quantised: bool) -> list[str]:
    """Paths of the linear layers that a new adapter is laid on, in the order they have in the base.

    Raises InvalidConfig where there are none. Of a base that also sees or hears, they are those of the part that reads
    and writes.
    """
    output, decoder = base.get_output_embeddings(), _decoder(base)
    within = {id(module) for module in decoder.modules()}
    linear = [
        path for path, module in base.named_modules()
        if id(module) in within and module is not output and _is_linear(module, quantised)
    ]  # fmt: skip
    return places.adaptable(base.name_or_path, linear, (path for path, _ in base.named_modules()))


def is_plain(base: Any) -> bool:
    """Whether a new adapter is laid on all linear layers but the output: of a decoder alone, without experts."""
    return _decoder(base) is base and not places.with_experts(path for path, _ in base.named_modules())


@contextmanager
def taken_as_they_are() -> Iterator[None]:
    """In here PEFT adapts the layers it is told to, and no others.

    Elsewhere, where a base has experts, it takes each name that ends as an expert's once did for all of them in one
    array: that of an expert that all tokens go through, or of a layer without experts, too.
    """
    translate = getattr(peft_translation, TRANSLATION, None)
    if translate is not None:
        setattr(peft_translation, TRANSLATION, lambda *_, **__: None)
    try:
        yield
    finally:
        if translate is not None:
            setattr(peft_translation, TRANSLATION, translate)


def _decoder(base: Any) -> nn.Module:
    found: nn.Module = base
    if base.config.get_text_config(decoder=True) is not base.config:
        found = base.get_decoder()
    return found


def _is_linear(module: nn.Module, quantised: bool) -> bool:
    """As the worker has it: a router's class is its own, for example. So are those of quantised layers."""
    return isinstance(module, nn.Linear) if quantised else type(module) is nn.Linear
