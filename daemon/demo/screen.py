"""What a demo shows: steps as they happen, a bar while it trains, a table at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from daemon.worker_client import Reply
from genome.layout import Home
from genome.signals import Signal

if TYPE_CHECKING:
    from daemon.demo.circle import Answers, Settings
    from daemon.demo.material import Material

SHOWN = 6
"""Questions in the final table."""


class Screen:
    """With ``as_json`` everything but the last line goes to standard error."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:6.1f} s[/dim]  {escape(text)}", soft_wrap=True)

    def begin(self, settings: Settings, base: str, taught: Material, home: Home) -> None:
        self.console.print(f"[bold]One turn of the loop[/bold] in {escape(str(home.root))}")
        self.say(f"base {base}, trainer {settings.trainer}")
        self.say(f"starting a worker and a daemon; {len(taught.held_out)} held-out questions are in no training line")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        began = time.monotonic()
        with self.console.status(text):
            yield
        self.say(f"{text}: done in {time.monotonic() - began:.1f} s")

    def scores(self, when: str, answers: Answers) -> None:
        self.say(
            f"{when}: exact match {answers.exact_match:.2f}, loss {answers.measures.loss:.2f}, "
            f"token accuracy {answers.measures.token_accuracy:.3f}, old skills {answers.old:.3f}"
        )

    def dropped(self, lines: int, home: Home) -> None:
        self.say(f"dropped {lines} corrections into {home.inbox} with one rename; the daemon does the rest")

    def event(self, name: str, facts: dict[str, Any]) -> None:
        """One thing the daemon told."""
        if name == "training_progress":
            return self._progress(facts)
        if self.bar is not None and name != "training_checkpoint":
            self.bar.stop()
            self.bar = None
        if sentence := SENTENCES.get(name):
            stack = ", ".join(facts.get("adapters", [])) or "the base alone"
            verdict = "promotes" if facts.get("promote") else "refuses"
            self.say(sentence.format_map({**facts, "stack": stack, "verdict": verdict}))
        return None

    def _progress(self, facts: dict[str, Any]) -> None:
        if facts.get("step") is None:  # it measures, and has no step to tell of
            return
        if self.bar is None:
            columns = (
                TextColumn("          training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.3f}"),
            )
            self.bar = Progress(*columns, TimeElapsedColumn(), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("training", total=facts.get("steps"), loss=0.0)
        assert self.task is not None
        newest = {"loss": facts["loss"]} if facts.get("loss") is not None else {}
        self.bar.update(self.task, completed=facts.get("step"), **newest)

    def side_by_side(self, questions: Sequence[Signal], before: Sequence[Reply], after: Sequence[Reply]) -> None:
        drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
        for column in ("question", "before", "after", "right answer"):
            drawn.add_column(column, overflow="fold")
        for signal, old, new in list(zip(questions, before, after, strict=True))[:SHOWN]:
            right = signal.correct_output or ""
            colour = "green" if new.text.strip() == right.strip() else "red"
            new_text = f"[{colour}]{escape(new.text)}[/{colour}]"
            drawn.add_row(escape(signal.input), escape(old.text[:80]), new_text, escape(right))
        self.console.print(drawn)

    def end(self, report: dict[str, Any], good: bool) -> None:
        self.console.print(
            f"Everything lies in {escape(report['home'])}: corrections.jsonl, adapters/, training-jobs/, logs/",
            soft_wrap=True,
        )
        self.console.print(_last_line(report, good), soft_wrap=True)
        if self.as_json:
            print(json.dumps(report, ensure_ascii=False))


SENTENCES = {
    "ingested": "ingested: {accepted} accepted, {duplicates} duplicates, {rejected} rejected",
    "batch_formed": "batch {batch}: {signals} signals, {held_out} of them held out for the gate ({reason})",
    "job_ordered": "job {job}, trainer {trainer}",
    "training_started": "training in a child process",
    "trained": "candidate {adapter} after {seconds} s",
    "judged": "the gate {verdict}: {reason}",
    "deployed": "serving {stack}: promotion {promotion}, generation {generation}, swapped in {swap_ms:.1f} ms",
    "job_failed": "{job} failed: {reason}",
    "loop_failed": "{loop}: {error}",
}


def _last_line(report: dict[str, Any], good: bool) -> str:
    kept = (
        f"{report['requests_during_turn']} requests meanwhile, {report['failed_requests']} failed, "
        f"{report['mixed_replies']} mixed"
    )
    if report["refused"]:
        verdict = "[green]done[/green]" if good else "[red]not as it should be[/red]"
        return f"{verdict}: the gate refused the candidate, the old one serves on; {kept}"
    verdict = "[green]done[/green]" if good else "[red]not as it should be[/red]"
    return (
        f"{verdict}: exact match {report['before_exact_match']:.2f} → {report['after_exact_match']:.2f}, "
        f"retention {report['retention']:.3f}, live {report['drop_to_live_seconds']} s after the drop; {kept}"
    )
