"""Training: our steps and whole jobs ÷ PEFT, TRL, mlx-lm's command and Unsloth's script; what serving feels of it.

    python -m benchmarks.train --json
    python -m benchmarks.train --base BASE --signals git.jsonl --only mlx_over_mlx_lm_cli

S and M are as in `benchmarks.models`, with random weights in float32. 500 corrections with the lengths they have; of M
only so many as fill --steps. A step is of 16, rank 16, every linear layer, one thread; all sides in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import corrections, models, steps, training_jobs
from benchmarks.beside import beside
from benchmarks.commands import Shop
from benchmarks.measure import Report, in_turns, ms
from benchmarks.scoring import Scorer
from genome.signals import Signal
from genome.training import TrainingSettings

TRAINED = 500
PLAIN = TrainingSettings(rank=models.RANK, alpha=2 * models.RANK, epochs=1, anchor_weight=0, dtype="float32")
"""What steps are timed with."""
GAP_EPOCHS = 3
PEFT, TRL = "tokens_per_s_over_peft_padded", "tokens_per_s_over_trl_sft"
WANTED = {"S": "≥ 2.0", "M": "≥ 1.7"}


@dataclass
class Bench:
    """One run: what was asked for, and what all arms need."""

    given: argparse.Namespace
    directory: Path
    report: Report
    bases: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def signals(self) -> list[Signal]:
        return corrections.read(self.given.signals)

    @property
    def trained(self) -> list[Signal]:
        return self.signals[: self.given.examples]

    @property
    def speaks(self) -> Path:
        """The base whose tokenizer S and M have."""
        return Path(self.given.base or models.SHIPPED_BASE)

    def base(self, name: str) -> Path:
        if name not in self.bases:
            self.bases[name] = corrections.random_base(name, self.directory, self.speaks)
        return self.bases[name]

    def settings(self, **changed: Any) -> TrainingSettings:
        """With as many epochs as were asked for, by default ``changed``'s."""
        epochs = {"epochs": self.given.epochs} if self.given.epochs else {}
        return TrainingSettings(**(changed | epochs))

    def shop(self, name: str) -> Shop:
        """Whole batches alone: mlx-lm's command leaves out what fills none."""
        whole = len(self.trained) // PLAIN.batch_size * PLAIN.batch_size
        settings = self.settings(**PLAIN.model_dump(exclude={"epochs"}), epochs=GAP_EPOCHS)
        place = self.directory / f"shop-{name}"
        place.mkdir(exist_ok=True)
        return Shop(place, self.base("S"), self.trained[:whole], settings)


def speed(bench: Bench, wanted: set[str]) -> None:
    """Steps of one process that does nothing else, model by model."""
    sides = tuple({PEFT: "peft", TRL: "trl"}[key] for key in (PEFT, TRL) if key in wanted)
    worst: dict[str, steps.Found] = {}
    for name in bench.given.models:
        work = _work(bench, name)
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawned, initializer=_quiet) as aside:
            found = aside.submit(steps.compare, work, bench.given.rounds, sides).result()
        report, per_s = bench.report, lambda side, found=found: f"{found.rate(side):.0f} tok/s"
        report.keys.setdefault("padding_ratio", {})[name] = round(found.padding, 4)
        report.remark(f"cells of padded batches ÷ real tokens ({name})", "", "", found.padding)
        if "peft" in sides:
            ratio = found.rate("ours") / found.rate("peft")
            report.ratio(PEFT, name, per_s("ours"), per_s("peft"), ratio, WANTED[name], nested=True)
            report.remark(
                f"… in our batches ({name})", per_s("ours"), per_s("same"), found.took["same"] / found.took["ours"]
            )
            difference = abs(found.first_losses["ours"] - found.first_losses["same"])
            report.ratio(
                "first_loss_difference", name, f"{found.first_losses['ours']:.5f}",
                f"{found.first_losses['same']:.5f}", difference, f"≤ {steps.SAME_LOSS:g}", nested=True,
            )  # fmt: skip
        if "trl" in sides:
            worst[name] = found
            report.remark(
                f"TRL, {found.trl} ({name})", per_s("ours"), per_s("trl"), found.rate("ours") / found.rate("trl")
            )
    if worst:
        name, found = min(worst.items(), key=lambda each: each[1].rate("ours") / each[1].rate("trl"))
        ratio, ours, trl = found.rate("ours") / found.rate("trl"), found.rate("ours"), found.rate("trl")
        bench.report.ratio(TRL, f"{name}, {found.trl}", f"{ours:.0f} tok/s", f"{trl:.0f} tok/s", ratio, "≥ 1.2")


def _work(bench: Bench, name: str) -> steps.Work:
    """All of one epoch on S, some steps on M."""
    base = bench.base(name)
    count = len(bench.trained) if name == "S" else bench.given.steps * PLAIN.batch_size
    job = training_jobs.order(base, "torch", PLAIN)
    return steps.Work(job, corrections.tokens(bench.trained[:count], base))


def _quiet() -> None:
    """Libraries print what they like; the last line of this process's output is the caller's."""
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging

    os.dup2(2, 1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets_logging.disable_progress_bar()


def mlx_command(bench: Bench) -> None:
    _whole(bench, "mlx_over_mlx_lm_cli", "mlx", bench.shop("mlx"), "mlx_lm")


def unsloth_script(bench: Bench) -> None:
    _whole(bench, "unsloth_over_unsloth_script", "unsloth", bench.shop("unsloth"), "unsloth_script")


def _whole(bench: Bench, key: str, trainer: str, shop: Shop, peer: str) -> None:
    """Processes from start to exit, with as many steps on the same examples: their times say their speeds."""
    took = in_turns({"ours": shop.job(trainer), "peer": getattr(shop, peer)}, bench.given.rounds)
    sides = [f"{took[side]:.1f} s" for side in ("ours", "peer")]
    bench.report.ratio(key, f"S, {shop.steps} steps", *sides, took["peer"] / took["ours"], "≥ 1.0")


def job_wall(bench: Bench) -> None:
    """A job with the settings that genome.toml has by default."""
    base, found = bench.base("S"), []
    for number in range(bench.given.rounds):
        job = training_jobs.order(base, "torch", bench.settings())
        written = training_jobs.write(bench.directory / f"wall-{number}", job, corrections.examples(bench.trained))
        found.append(training_jobs.run("torch", written))
    run = sorted(found, key=lambda each: each.seconds / each.step_seconds)[len(found) // 2]
    value = run.seconds / run.step_seconds
    bench.report.ratio(
        "job_wall_over_step_time", f"S, {run.events[-1].steps} steps", f"{run.seconds:.2f} s",
        f"{run.step_seconds:.2f} s", value, "≤ 1.15",
    )  # fmt: skip


def serving(bench: Bench) -> None:
    """Of S and M, the one that feels more of it."""
    worst = 0.0
    for name in bench.given.models:
        alone, beside_it = asyncio.run(
            beside(name, bench.base(name), bench.trained, bench.directory, bench.given.rounds)
        )
        bench.report.remark(
            f"p99 gap beside a job ({name})", ms(beside_it.p99), ms(alone.p99), beside_it.p99 / alone.p99
        )
        bench.report.remark(
            f"p50 gap beside a job ({name})", ms(beside_it.median), ms(alone.median), beside_it.median / alone.median
        )
        worst = max(worst, beside_it.p99 / alone.p99)
    bench.report.ratio("serving_p99_over_idle", bench.given.models, "", "", worst, "≤ 1.5")


def provider_gap(bench: Bench) -> None:
    """The same job by each trainer on a base that knows something; loss on corrections that none of them saw."""
    base, held_out = bench.speaks, bench.signals[bench.given.examples :]
    if not held_out:
        raise SystemExit(f"provider_gap needs more than {bench.given.examples} corrections: the others are asked")
    settings = bench.settings(**PLAIN.model_dump(exclude={"epochs"}), epochs=GAP_EPOCHS)
    scorer, losses = Scorer(base), {}
    for trainer in ("torch", "mlx", "unsloth"):
        job = training_jobs.order(base, trainer, settings)
        written = training_jobs.write(bench.directory / f"gap-{trainer}", job, corrections.examples(bench.trained))
        losses[trainer] = scorer.score(held_out, [training_jobs.run(trainer, written).adapter]).mean_loss
        bench.report.remark(
            f"held-out loss, {trainer}", f"{losses[trainer]:.4f}", f"{losses['torch']:.4f}",
            losses[trainer] / losses["torch"],
        )  # fmt: skip
    furthest = max(losses, key=lambda each: abs(losses[each] - losses["torch"]))
    gap = abs(losses[furthest] / losses["torch"] - 1)
    sides = f"{losses[furthest]:.4f}", f"{losses['torch']:.4f}"
    bench.report.ratio("provider_gap", furthest, *sides, gap, "≤ 0.02")


ARMS: dict[str, Callable[[Bench], None]] = {
    "mlx_over_mlx_lm_cli": mlx_command,
    "unsloth_over_unsloth_script": unsloth_script,
    "job_wall_over_step_time": job_wall,
    "serving_p99_over_idle": serving,
    "provider_gap": provider_gap,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object on the last line; the table goes to stderr")
    parser.add_argument("--only", action="append", choices=[PEFT, TRL, *ARMS], help="one key; may be given again")
    parser.add_argument("--models", default="SM", help="which of S and M")
    parser.add_argument(
        "--base", type=Path, help="a base that knows something, and its tokenizer; else the shipped one"
    )
    parser.add_argument("--signals", type=Path, help="JSONL of corrections, over 500; else the shipped ones")
    parser.add_argument("--examples", type=int, default=TRAINED, help="corrections that are trained")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side takes its turn")
    parser.add_argument("--steps", type=int, default=4, help="of one turn on M; S makes a whole epoch")
    by_default = f"{GAP_EPOCHS}, and {TrainingSettings().epochs:g} against pure step time"
    parser.add_argument("--epochs", type=float, help=f"of whole jobs; by default {by_default}")
    given = parser.parse_args()
    wanted = set(given.only or [PEFT, TRL, *ARMS])
    report = Report("training, one thread, float32")
    with tempfile.TemporaryDirectory(prefix="genome-train-", ignore_cleanup_errors=True) as directory:
        bench = Bench(given, Path(directory), report)
        if wanted & {PEFT, TRL}:
            speed(bench, wanted)
        for key in [key for key in ARMS if key in wanted]:
            ARMS[key](bench)
    report.show(given.json)


if __name__ == "__main__":
    main()
