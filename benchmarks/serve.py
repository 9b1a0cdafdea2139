"""Decoding: adapters ÷ the base alone, and the engine ÷ transformers' generate and PEFT's mixed batches."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from benchmarks import models
from benchmarks.measure import Report, arguments, in_turns, ms, seconds
from genome import lora
from genome.config import Worker
from genome.layout import Home
from inference_worker import engine as engines
from inference_worker.engine import Engine, Term, Terms
from inference_worker.requests import Generation
from inference_worker.sampling import Sampler, Sampling
from inference_worker.scheduler import Scheduler

SHORT = 16
"""Tokens of a prompt."""
NEW = {"S": 64, "M": 16}
"""Tokens of a reply."""


@dataclass
class Sides:
    """One model, served by us and by its library."""

    name: str
    engine: Engine
    library: Any
    peft: Any
    terms: list[Term]
    new: int

    def request(self, terms: Terms, length: int, new: int) -> Generation:
        """Of random tokens, so that no two prompts begin alike."""
        return Generation(terms, _prompt(length), Sampler(Sampling()), new, frozenset())

    def reply(self, stacks: Sequence[Terms], length: int = SHORT) -> tuple[float, float]:
        """Seconds from submitting requests to their last token, and of these the seconds after the first token."""
        requests = [self.request(terms, length, self.new) for terms in stacks]
        steps = Scheduler(self.engine, len(requests), len(requests), lambda events: None)
        for request in requests:
            steps.submit(request)

        def first() -> None:
            while not all(request.written for request in requests):
                steps.step()

        def rest() -> None:
            while any(len(request.written) < self.new for request in requests):
                steps.step()

        before, after = seconds(first), seconds(rest)
        return before + after, after

    def generate(self, batch: int, length: int = SHORT) -> float:
        """Seconds of transformers' generate over such prompts."""
        return seconds(lambda: _generate(self.library, batch, length, self.new))

    def peft_mixed(self) -> float:
        """Seconds after the first token of PEFT's batch of four adapters and eight rows."""
        names = [f"a{index % 4}" for index in range(8)]
        whole = seconds(lambda: _generate(self.peft, 8, SHORT, self.new, adapter_names=names))
        return whole - seconds(lambda: _generate(self.peft, 8, SHORT, 1, adapter_names=names))

    def staggered(self) -> float:
        """Seconds to answer 16 requests that arrive within a quarter of a solo one."""
        solo = self.reply([()])[0]
        requests = [self.request((), SHORT, self.new) for _ in range(16)]
        steps = Scheduler(self.engine, 16, 16, lambda events: None)
        arriving, clock = list(requests), 0.0
        while any(len(request.written) < self.new for request in requests):
            while arriving and clock >= (16 - len(arriving)) * solo / 4 / 16:
                steps.submit(arriving.pop(0))
            clock += seconds(steps.step)
        return clock


def open_sides(name: str, directory: Path, dtype: str) -> Sides:
    saved = "bfloat16" if dtype == "auto" else dtype
    base = models.make_base(name, directory, saved)
    home = Home(directory / f"home-{name}")
    ids = models.make_adapters(home, base, saved, 4)
    engine = engines.load(base, Worker(engine="torch", dtype=dtype))  # type: ignore[arg-type]
    actual = engine.facts.dtype
    paths = [home.adapter(each) for each in ids]
    peft = PeftModel.from_pretrained(models.library_model(base, actual), paths[0], adapter_name="a0")
    for number, path in enumerate(paths[1:], start=1):
        peft.load_adapter(path, f"a{number}")
    terms = [Term(engine.load(lora.read(path)), 1.0) for path in paths]
    return Sides(name, engine, models.library_model(base, actual), peft.eval(), terms, NEW[name])


def measure(sides: Sides, report: Report, rounds: int) -> None:
    a, b, c, d = ((term,) for term in sides.terms)
    wholes = in_turns(
        {
            "base_b1": lambda: sides.reply([()])[0],
            "generate_b1": lambda: sides.generate(1),
            "base_b8": lambda: sides.reply([()] * 8)[0],
            "generate_b8": lambda: sides.generate(8),
        },
        rounds,
    )
    decoding = in_turns(
        {
            "base_b1": lambda: sides.reply([()])[1],
            "one_b1": lambda: sides.reply([a])[1],
            "base_b8": lambda: sides.reply([()] * 8)[1],
            "mixed4_b8": lambda: sides.reply([a, b, c, d] * 2)[1],
            "two_b8": lambda: sides.reply([(*a, *b)] * 8)[1],
        },
        rounds,
    )
    step = {name: value / (sides.new - 1) for name, value in decoding.items()}
    name = sides.name

    def over(key: str, ours: float, peer: float, wanted: str, nested: bool = False) -> None:
        report.ratio(key, name, ms(ours), ms(peer), peer / ours, wanted, nested)

    over("one_adapter_over_base_b1", step["one_b1"], step["base_b1"], "≥ 0.85" if name == "S" else "≥ 0.90", True)
    for batch in (1, 8):
        key = f"base_over_hf_generate_b{batch}"
        over(key, wholes[f"base_b{batch}"], wholes[f"generate_b{batch}"], "≥ 1.0", True)
    if name == "S":
        context = in_turns(
            {
                "ours": lambda: sides.reply([()] * 8, 512)[0],
                "generate": lambda: sides.generate(8, 512),
            },
            rounds,
        )
        over("base_over_hf_generate_b8_ctx512", context["ours"], context["generate"], "≥ 0.95")
        return
    over("mixed4_over_base_b8", step["mixed4_b8"], step["base_b8"], "≥ 0.85")
    over("two_stacked_over_base_b8", step["two_b8"], step["base_b8"], "≥ 0.92")
    mixed = in_turns({"ours": lambda: sides.reply([a, b, c, d] * 2)[1], "peft": sides.peft_mixed}, max(3, rounds // 2))
    over("mixed4_over_peft_mixed_b8", mixed["ours"], mixed["peft"], "≥ 1.6")
    staggered = in_turns(
        {"ours": sides.staggered, "sequential": lambda: sum(sides.generate(1) for _ in range(16))}, max(3, rounds // 3)
    )
    over("staggered_over_hf_sequential", staggered["ours"], staggered["sequential"], "≥ 3")


def _prompt(length: int) -> tuple[int, ...]:
    return tuple(random.randrange(5, 400) for _ in range(length))


@torch.inference_mode()
def _generate(model: Any, batch: int, length: int, new: int, **rest: Any) -> None:
    ids = torch.tensor([_prompt(length) for _ in range(batch)])
    mask = torch.ones_like(ids)
    model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False, **rest)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", default="SM", help="which of S and M")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(f"decoding, one thread, {options.dtype}")
    with tempfile.TemporaryDirectory() as directory:
        for name in options.models:
            sides = open_sides(name, Path(directory), options.dtype)
            report.title = f"decoding, {torch.get_num_threads()} thread, {sides.engine.facts.dtype}"
            measure(sides, report, options.rounds)
    report.show(options.json)


if __name__ == "__main__":
    main()
