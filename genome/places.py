"""Which linear layers of a base a new adapter is laid on: those that the worker can serve it in.

That is every one of the decoder but the output layer, experts and what chooses between them. An expert sees some of the
tokens only, so a worker cannot tell there whose row is whose; most libraries keep a layer's experts in one array, and
what chooses between them in a layer of its own kind, where no adapter could be laid on either.
"""

from __future__ import annotations

from collections.abc import Iterable

from genome.errors import InvalidConfig

ROUTERS = ("gate", "router")
"""What libraries call the layer that chooses, beside its experts."""


def is_expert(path: str) -> bool:
    """Whether a linear layer is one expert's own, by its path as in ``named_modules``."""
    return ".experts." in path


def with_experts(modules: Iterable[str]) -> set[str]:
    """Of the paths of a base's modules, those that hold experts."""
    parts = (path.rpartition(".") for path in modules)
    return {home for home, _, name in parts if _are_experts(name)}


def adaptable(base: str, linear: Iterable[str], modules: Iterable[str]) -> list[str]:
    """Of the paths of a decoder's ``linear`` layers, those that a new adapter is laid on, in their order.

    ``modules``: the paths of all the base's modules. Raises InvalidConfig, which names ``base``, where there are none.
    """
    homes = with_experts(modules)
    found = [path for path in linear if not is_expert(path) and not _is_router(path, homes)]
    if not found:
        raise InvalidConfig(
            f"{base} has no linear layer that an adapter could be laid on",
            "Name another base: its layers must be linear, and no experts",
        )
    return found


def _are_experts(name: str) -> bool:
    """mlx-lm's layers that hold all experts at once begin with switch."""
    return name == "experts" or name.startswith("switch_")


def _is_router(path: str, homes: set[str]) -> bool:
    """Itself, or a part of one. ``homes``: the modules that hold experts."""
    names = path.split(".")
    return any(name in ROUTERS and ".".join(names[:index]) in homes for index, name in enumerate(names))
