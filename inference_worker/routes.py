"""The routing table: names requests use → stacks of adapters. Immutable: a change is a new table, assigned once."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from genome.adapters import AdapterId
from genome.errors import Conflict, InvalidInput
from genome.layout import check_name


class StaleGeneration(Conflict):
    """The routing table changed since the caller looked."""


@dataclass(frozen=True)
class Entry:
    """One adapter of a stack. ``scale`` None: the scale it was loaded with."""

    adapter_id: str
    scale: float | None = None


Stack = tuple[Entry, ...]
"""Adapters applied together; empty: the base alone."""


@dataclass(frozen=True)
class Variant:
    """One of the stacks behind a route, with its share of the sessions relative to the others'."""

    stack: Stack
    weight: float = 1.0


Variants = tuple[Variant, ...]


@dataclass(frozen=True)
class Table:
    """All routes at one moment. Equal generations are equal tables."""

    generation: int = 1
    routes: Mapping[str, Variants] = field(default_factory=lambda: MappingProxyType({}))

    def expect(self, generation: int | None) -> None:
        """Raises StaleGeneration unless this is the table the caller means; None means any."""
        if generation is not None and generation != self.generation:
            raise StaleGeneration(
                f"the routing table is at generation {self.generation}, not {generation}", "Look again and decide again"
            )

    def resolve(self, name: str, session: str = "", draw: Callable[[], float] = random.random) -> tuple[str, Stack]:
        """The route that answers for ``name`` (itself, else its persona's, else "" for the base alone) and its stack.

        A session keeps its variant as long as the route's weights stay; requests without one are spread by ``draw``.
        """
        for candidate in (name, name.partition("/")[0]):
            if variants := self.routes.get(candidate):
                return candidate, _choose(variants, _share(candidate, session) if session else draw())
        return "", ()

    def naming(self, adapter_id: str) -> list[str]:
        """Routes that use an adapter in any variant."""
        return [name for name, variants in self.routes.items() if adapter_id in _adapters(variants)]

    def adapters(self) -> set[str]:
        return {adapter_id for variants in self.routes.values() for adapter_id in _adapters(variants)}

    def with_routes(self, changed: Mapping[str, Variants]) -> Table:
        """The next table: ``changed`` over the present routes. A route without variants goes away."""
        routes = {name: variants for name, variants in {**self.routes, **changed}.items() if variants}
        return self if routes == self.routes else Table(self.generation + 1, MappingProxyType(routes))

    def replacing(self, old: str, new: str) -> Table:
        """The next table: ``new`` in ``old``'s place in every stack that holds it, at the scale given there."""

        def renamed(stack: Stack) -> Stack:
            taken = any(entry.adapter_id == new for entry in stack)
            kept = (entry for entry in stack if not (taken and entry.adapter_id == old))
            return tuple(replace(entry, adapter_id=new) if entry.adapter_id == old else entry for entry in kept)

        return self.with_routes(
            {
                name: tuple(replace(variant, stack=renamed(variant.stack)) for variant in self.routes[name])
                for name in self.naming(old)
            }
        )

    def joined(self, adapter_id: str) -> Table:
        """The next table: the adapter at the end of the route its id names, which is made if missing."""
        name = route_of(adapter_id)
        variants = self.routes.get(name, (Variant(()),))
        if adapter_id in _adapters(variants):
            return self
        entry = Entry(adapter_id)
        return self.with_routes({name: tuple(replace(each, stack=(*each.stack, entry)) for each in variants)})


def route_of(adapter_id: str) -> str:
    """``helper-ai/typescript-v1.3`` → ``helper-ai/typescript``."""
    parsed = AdapterId.parse(adapter_id)
    return f"{parsed.persona}/{parsed.domain}"


def check(name: str, variants: Variants) -> None:
    """Raises InvalidInput for a route that cannot be."""
    persona, slash, domain = name.partition("/")
    if persona != "shared":
        check_name(persona, "persona")
    if slash:
        check_name(domain, "domain")
    for variant in variants:
        check_stack(variant.stack)
        if not (math.isfinite(variant.weight) and variant.weight > 0):
            raise InvalidInput(f"route {name}: a weight of {variant.weight}", "Give a positive number")


def check_stack(stack: Stack) -> None:
    """Raises InvalidInput for a stack that cannot be computed."""
    names = [entry.adapter_id for entry in stack]
    for name in names:
        AdapterId.parse(name)
        if names.count(name) > 1:
            raise InvalidInput(f"{name} stands twice in one stack", "Name it once, with the sum of its scales")
    for entry in stack:
        check_scale(entry.scale)


def check_scale(scale: float | None) -> None:
    if scale is not None and not math.isfinite(scale):
        raise InvalidInput(f"a scale of {scale}", "Give a number")


def _adapters(variants: Variants) -> set[str]:
    return {entry.adapter_id for variant in variants for entry in variant.stack}


def _share(route: str, session: str) -> float:
    """A number in [0, 1) that is the same for a session on every worker and after every restart."""
    digest = hashlib.blake2b(f"{route}\0{session}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _choose(variants: Variants, share: float) -> Stack:
    position = share * sum(variant.weight for variant in variants)
    for variant in variants:
        position -= variant.weight
        if position < 0:
            return variant.stack
    return variants[-1].stack
