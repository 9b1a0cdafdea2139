"""What training keeps of the old while it learns the new, on real text, beside plain PEFT.

    python -m benchmarks.retention --base tldr-base --data tldr --json

DATA holds git.jsonl and gh.jsonl, corrections in two subjects the base never saw, and base-heldout.jsonl, what it
knows. For each seed git is learned, then gh: by plain PEFT (rank 16, alpha 32, 3 epochs, nothing replayed), and by jobs
with genome.toml's defaults, once as two batches of one domain and once as two domains whose adapters add up. Asked are
questions that nobody was trained on: accuracy of response tokens, the end included, each given those before it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import anyio
import torch

from benchmarks import corrections, learning
from benchmarks.intervals import Answers, Figure, interval
from benchmarks.learning import Learner
from benchmarks.measure import Report
from benchmarks.scoring import Score, Scorer
from genome import config
from genome.layout import Home
from genome.signals import Signal
from genome.training import TrainingSettings

GIT, GH = 500, 200
"""Corrections of each that are trained; the others are asked."""
PLAIN = TrainingSettings(
    rank=16, alpha=32, epochs=3, batch_size=16, learning_rate=3e-3, min_rate_fraction=0, anchor_weight=0
)
DOMAIN = "git"
FILES = ("git.jsonl", "gh.jsonl", "base-heldout.jsonl")


@dataclass
class Bench:
    """One run: its questions, and where what it makes lies."""

    given: argparse.Namespace
    directory: Path

    @cached_property
    def taught(self) -> dict[str, list[Signal]]:
        return {"git": self._read("git")[: self.given.git], "gh": self._read("gh")[: self.given.gh]}

    @cached_property
    def asked(self) -> dict[str, list[Signal]]:
        """By set of questions; ``new`` is both subjects."""
        most = self.given.questions
        git, gh = self._read("git")[self.given.git :][:most], self._read("gh")[self.given.gh :][:most]
        return {"old": self._read("base-heldout")[:most], "git": git, "new": [*git, *gh]}

    @cached_property
    def anchored(self) -> Path:
        """A home with anchors of the base, sampled once."""
        return self._made("anchors", lambda root: anyio.run(self._sample, root))

    def _read(self, name: str) -> list[Signal]:
        return corrections.read(self.given.data / f"{name}.jsonl", name)

    async def _sample(self, root: Path) -> None:
        home = Home(root)
        config.init(home, str(self.given.base))
        home.config.write_text(f'base = "{self.given.base}"\n[gate]\nanchors = {self.given.anchors}\n')
        await learning.sample_anchors(home, config.load(home))

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        """A directory of this run, made unless it is there whole."""
        path = self.directory / name
        if not path.exists():
            print(f"making {name}", file=sys.stderr, flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f"{path.name}.part")
            shutil.rmtree(aside, ignore_errors=True)
            make(aside)
            aside.rename(path)
        return path

    # Arms: each gives the adapters that serve after it

    def plain(self, seed: int) -> list[Path]:
        return [self._plain(seed, "plain-git", "git", None)]

    def plain_both(self, seed: int) -> list[Path]:
        return [self._plain(seed, "plain-both", "gh", self.plain(seed)[0])]

    def _plain(self, seed: int, name: str, subject: str, parent: Path | None) -> Path:
        changed = {"seed": seed} | ({"epochs": self.given.epochs} if self.given.epochs else {})
        settings = PLAIN.model_copy(update=changed)
        signals = self.taught[subject]
        return self._made(
            f"seed-{seed}/{name}",
            lambda out: learning.plain_peft(out, self.given.base, signals, settings, parent),
        )

    def git(self, seed: int) -> list[Path]:
        return self._learner(seed, "git", lambda root: self._first(root, seed, self.taught["git"])).stack

    def shuffled(self, seed: int) -> list[Path]:
        wrong = with_others_answers(self.taught["git"], seed)
        return self._learner(seed, "shuffled", lambda root: self._first(root, seed, wrong)).stack

    def continued(self, seed: int) -> list[Path]:
        """gh as git's second batch."""
        return self._learner(seed, "continued", lambda root: self._second(root, seed, DOMAIN)).stack

    def stacked(self, seed: int) -> list[Path]:
        """gh as a domain of its own."""
        return self._learner(seed, "stacked", lambda root: self._second(root, seed, "gh")).stack

    def _first(self, root: Path, seed: int, signals: Sequence[Signal]) -> None:
        epochs = f"epochs = {self.given.epochs}\n" if self.given.epochs else ""
        settings = f'[training]\ntrainer = "torch"\nseed = {seed}\n{epochs}[gate]\nanchors = {self.given.anchors}\n'
        Learner.new(root, self.given.base, settings, self.anchored).learn(DOMAIN, signals)

    def _second(self, root: Path, seed: int, domain: str) -> None:
        self.git(seed)
        Learner(Home(self.directory / f"seed-{seed}/git"), self.given.base).copied(root).learn(
            domain, self.taught["gh"]
        )

    def _learner(self, seed: int, name: str, make: Callable[[Path], object]) -> Learner:
        return Learner(Home(self._made(f"seed-{seed}/{name}", make)), self.given.base)


def with_others_answers(signals: Sequence[Signal], seed: int) -> list[Signal]:
    """Every question with another one's answer: only the style can be learned."""
    order = list(range(len(signals)))
    random.Random(seed).shuffle(order)
    moved = dict(zip(order, order[1:] + order[:1], strict=True))
    return [
        signal.model_copy(update={"id": f"shuffled-{index}", "correct_output": signals[moved[index]].correct_output})
        for index, signal in enumerate(signals)
    ]


ARMS: dict[str, Callable[[Bench, int], list[Path]]] = {
    "base": lambda bench, seed: [],
    "plain": Bench.plain,
    "plain_both": Bench.plain_both,
    "git": Bench.git,
    "continued": Bench.continued,
    "stacked": Bench.stacked,
    "shuffled": Bench.shuffled,
}


def _kept(arm: str, questions: str = "old", before: str = "base") -> Figure:
    return Figure((arm, before), (questions,), lambda of: of(arm, questions) / of(before, questions))


def _gain(arm: str, peer: str, questions: str) -> Figure:
    def value(of: Answers) -> float:
        before = of("base", questions)
        theirs = of(peer, questions) - before
        return (of(arm, questions) - before) / theirs if theirs else math.nan

    return Figure((arm, peer, "base"), (questions,), value)


FIGURES: dict[str, tuple[Figure, str]] = {
    "retention": (_kept("continued"), "≥ 0.98"),
    "gain_over_plain": (_gain("continued", "plain_both", "new"), "≥ 1.0"),
    "retention_first_batch": (_kept("continued", "git", "git"), "≥ 0.98"),
    "gain_over_shuffled": (
        Figure(("git", "shuffled"), ("git",), lambda of: of("git", "git") - of("shuffled", "git")), "≥ 0.06",
    ),
    "retention_after_git": (_kept("git"), ""),
    "gain_over_plain_after_git": (_gain("git", "plain", "git"), ""),
    "retention_stacked": (_kept("stacked"), ""),
    "gain_over_plain_stacked": (_gain("stacked", "plain_both", "new"), ""),
    "retention_first_domain": (_kept("stacked", "git", "git"), ""),
    "plain_retention": (_kept("plain_both"), ""),
    "plain_retention_after_git": (_kept("plain"), ""),
}  # fmt: skip
"""By key: the ones that are asked for, then those that explain them."""


def measure(bench: Bench, keys: Sequence[str]) -> Report:
    report, scorer = Report(f"retention, {bench.given.seeds} seeds"), Scorer(bench.given.base)
    wanted: dict[str, set[str]] = {}
    for key in keys:
        for arm in FIGURES[key][0].arms:
            wanted.setdefault(arm, set()).update(FIGURES[key][0].questions)
    scores: dict[tuple[str, str], list[Score]] = {}
    for seed in range(bench.given.seeds):
        for arm, sets in wanted.items():
            stack = ARMS[arm](bench, seed)
            for name in sorted(sets):
                scores.setdefault((arm, name), []).append(scorer.score(bench.asked[name], stack))
    for (arm, name), found in scores.items():
        accuracy = sum(each.accuracy for each in found) / len(found)
        loss = sum(each.mean_loss for each in found) / len(found)
        report.rows.append((f"accuracy, {arm} on {name}", f"{accuracy:.4f}", "", "", ""))
        report.rows.append((f"nats a token, {arm} on {name}", f"{loss:.4f}", "", "", ""))
    report.keys["intervals"] = {}
    for key in keys:
        figure, asked_for = FIGURES[key]
        value, low, high = interval(figure, scores)
        report.ratio(key, "95 %", f"{low:.4f}", f"{high:.4f}", value, asked_for)
        report.keys["intervals"][key] = [round(low, 4), round(high, 4)]
        if math.isnan(value):  # plain PEFT gained nothing; JSON knows no such number
            report.keys[key] = None
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object on the last line; the table goes to stderr")
    parser.add_argument("--base", type=Path, help="directory of a base model with a chat template")
    parser.add_argument("--data", type=Path, help=f"directory with {', '.join(FILES)}")
    parser.add_argument("--only", action="append", choices=FIGURES, help="one key; may be given again")
    parser.add_argument("--seeds", type=int, default=3, help="runs of everything that is trained")
    parser.add_argument(
        "--keep", type=Path, help="what is made stays there; with the same options a run goes on from it"
    )
    parser.add_argument("--git", type=int, default=GIT, help="corrections of git that are trained")
    parser.add_argument("--gh", type=int, default=GH, help="… and of gh")
    parser.add_argument("--questions", type=int, help="asked of each set; else all")
    parser.add_argument("--epochs", type=float, help="of every training, to try the benchmark; else 3 and the default")
    parser.add_argument("--anchors", type=int, default=config.Gate().anchors, help="as gate.anchors")
    given = parser.parse_args()
    if given.base is None or given.data is None or not all((given.data / name).exists() for name in FILES):
        reason = f"nothing is measured: give --base, and --data with {', '.join(FILES)}"
        print(reason, file=sys.stderr)
        if given.json:
            print(json.dumps({"skipped": reason}))
        return
    torch.set_num_threads(1)
    given.base, given.data = given.base.resolve(), given.data.resolve()
    with tempfile.TemporaryDirectory(prefix="genome-retention-") as directory:
        report = measure(Bench(given, given.keep or Path(directory)), given.only or list(FIGURES))
    report.show(given.json)


if __name__ == "__main__":
    main()
