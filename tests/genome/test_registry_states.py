"""Promise 7 under any sequence of acts: what serves was never withdrawn but by hand, and the way back ends."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fixed import NOW
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_registry import BASE, weights

from genome import adapters, fsck, promotions, registry
from genome.errors import Conflict
from genome.layout import Home

WEIGHTS = weights()
DOMAINS = st.sampled_from(("git", "soup"))


class Registry(RuleBasedStateMachine):
    """One persona, two domains, every act there is, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.home = Home(Path(self.place.name))
        self.jobs = 0

    def teardown(self) -> None:
        self.place.cleanup()

    def known(self, at: int) -> str:
        ids = adapters.list_ids(self.home)
        return str(ids[at % len(ids)]) if ids else ""

    def install(self, domain: str) -> str:
        name = str(adapters.next_id(self.home, "helper", domain))
        return adapters.install(self.home, WEIGHTS, "base", {"id": name, "base_fingerprint": BASE, "created": 0}).id

    @precondition(lambda self: self.jobs < 4)
    @rule(domain=DOMAINS, share=st.sampled_from((1.0, 0.1)))
    def promote(self, domain: str, share: float) -> None:
        self.jobs += 1
        name = self.install(domain)
        with suppress(Conflict):
            made = registry.promote(self.home, name, NOW, "better", f"job-{self.jobs}", share=share)
            assert name in made.adapters and made.is_canary == (share < 1)

    @rule(at=st.integers(0, 3), force=st.booleans())
    def deploy(self, at: int, force: bool) -> None:
        if name := self.known(at):
            with suppress(Conflict):
                assert name in registry.deploy(self.home, name, NOW, "by hand", "ann@desk", force).adapters

    @rule(at=st.integers(0, 3))
    def withdraw(self, at: int) -> None:
        if name := self.known(at):
            with suppress(Conflict):
                registry.withdraw(self.home, name, NOW, "worse")
                promotion = registry.current(self.home, "helper")
                assert promotion is not None and name not in registry.served(self.home, promotion)

    @rule(act=st.sampled_from((registry.graduate, registry.roll_back, registry.pin)), on=st.booleans())
    def other(self, act: Callable[..., object], on: bool) -> None:
        if registry.current(self.home, "helper") is not None:
            with suppress(Conflict):
                act(self.home, "helper", NOW, "so", **({"on": on} if act is registry.pin else {}))

    @invariant()
    def nothing_withdrawn_serves(self) -> None:
        """In no variant of any route; and every record is what fsck takes for whole."""
        history = registry.history(self.home, "helper")
        if history:
            served = registry.served(self.home, history[-1])
            assert not promotions.quarantined(history) & set(served)
            named = {
                entry.adapter
                for variants in registry.routes(self.home, history[-1]).values()
                for variant in variants
                for entry in variant.stack
            }
            assert named == set(served)
            assert [record.number for record in history] == list(range(1, len(history) + 1))

    def steps_back(self) -> int:
        """How many rollbacks lead to the base alone."""
        steps = 0
        while True:
            try:
                registry.roll_back(self.home, "helper", NOW, "back")
            except Conflict:
                return steps
            self.nothing_withdrawn_serves()
            steps += 1

    @rule()
    def the_way_back_ends(self) -> None:
        history = registry.history(self.home, "helper")
        if history:
            assert self.steps_back() <= len(history)
            assert registry.stack_of(self.home, "helper") == ()
            assert fsck.check(self.home, quick=True).problems == ()


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
