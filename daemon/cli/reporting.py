"""`genome training show`: a job's training as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from daemon.cli import drawing

CURVE_LINES = 6
WIDEST_CURVE = 100
"""Columns: a wider one says no more."""


def text(found: dict[str, Any], width: int) -> str:
    """What `genome.runs.described` found, in lines of ``width`` columns where words allow it."""
    rows = [*_about(found), *_run(found)]
    margin = max(len(name) for name, _ in rows) + 2
    lines = []
    for name, said in rows:
        wrapped = textwrap.wrap(said, max(20, width - margin), break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"{name:<{margin}}{wrapped[0]}", *(" " * margin + more for more in wrapped[1:])]
    for title, curve in (("loss, by step", found["losses"]), ("validation loss, by step", found["validation_losses"])):
        if curve:
            lines += ["", f"{title} {min(curve)} to {max(curve)}"]
            lines += drawing.curve(list(curve.values()), min(width, WIDEST_CURVE), CURVE_LINES)
    return "\n".join(lines)


def _about(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    attempt = f", attempt {found['attempt']}" if found["attempt"] > 1 else ""
    yield "job", f"{found['job']} of {found['batch']}, {found['persona']}/{found['domain']}{attempt}"
    yield "state", found["state"]
    yield "trainer", f"{found['trainer']}, from {found['parent'] or 'the base'}"
    yield "base", found["base"]
    yield "settings", ", ".join(f"{name} {_short(value)}" for name, value in found["settings"].items())
    if found["counts"]:
        said = (f"{name.replace('_', ' ')} {count}" for name, count in found["counts"].items() if count is not None)
        yield "examples", ", ".join(said)


def _run(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    metrics, first = found["metrics"], True
    for process in found["processes"]:
        ended = f"{process['ended'] or 'last heard from'} {_clock(process['last_word'])}"
        reason = f": {process['reason']}" if process["reason"] else ""
        at = f" at step {process['step']}" if process["step"] is not None else ""
        yield "processes" if first else "", f"started {_clock(process['started'])}, {ended}{at}{reason}"
        first = False
    if "steps" in metrics:
        best = f"; the weights after step {metrics['best_step']:.0f} were kept" if metrics.get("best_step") else ""
        yield "steps", f"{metrics['steps']:.0f} of {found['of']}{best}"
    for name, said in (("last_loss", "{:.4f} nats a token"), ("validation_loss", "{:.4f} nats a token at its lowest"),
                       ("tokens_per_second", "{:,.0f}"), ("memory_mb", "{:,.0f} MiB at its highest")):  # fmt: skip
        if name in metrics:
            yield name.removesuffix("_mb").replace("_", " "), said.format(metrics[name])
    if metrics["train_seconds"]:
        yield "duration", str(timedelta(seconds=round(metrics["train_seconds"])))
    if found["adapter"]:
        yield "adapter", found["adapter"]
    if found["reason"]:
        yield "reason", found["reason"]
    if verdict := found["verdict"]:
        yield "verdict", f"{'promote' if verdict['promote'] else 'do not promote'}: {verdict['reason']}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
