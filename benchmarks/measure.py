"""Sides that take turns, and what is printed of them."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


def seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_turns(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what each side returns; every round asks all of them, after one round that does not count."""
    for side in sides.values():
        side()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return {name: statistics.median(values) for name, values in found.items()}


@dataclass
class Report:
    """Rows of figure, peer and ratio, and the one object for programs."""

    title: str
    keys: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def ratio(
        self, key: str, model: str, ours: str, peer: str, value: float, wanted: str, nested: bool = False
    ) -> None:
        """A ratio that is asked for. ``nested``: the key has one value for each model."""
        if nested:
            self.keys.setdefault(key, {})[model] = round(value, 4)
        else:
            self.keys[key] = round(value, 4)
        self.rows.append((f"{key} ({model})", ours, peer, f"{value:.3g}", wanted))

    def remark(self, name: str, ours: str, peer: str, value: float) -> None:
        """A ratio that explains another."""
        self.rows.append((name, ours, peer, f"{value:.3g}", ""))

    def count(self, key: str, value: int, wanted: str) -> None:
        self.keys[key] = value
        self.rows.append((key, str(value), "", "", wanted))

    def rate(self, key: str, kind: str, value: float, promised: float) -> None:
        """A rate of errors beside the one that is promised. ``kind``: of several with the same promise."""
        found = self.keys.setdefault(key, {})
        found |= {kind or "rate": round(value, 4), "promised": round(promised, 4)}
        self.rows.append((f"{key} ({kind})" if kind else key, f"{value:.4f}", "", "", f"≤ {promised:g}"))

    def show(self, as_json: bool) -> None:
        table = Table(title=self.title)
        for name in ("", "ours", "peer", "ratio", "asked"):
            table.add_column(name, justify="left" if not name else "right")
        for row in self.rows:
            table.add_row(*row)
        Console(stderr=as_json, width=120).print(table)
        if as_json:
            print(json.dumps(self.keys))


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one object on the last line; the table goes to stderr")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"], help="as worker.dtype")
    parser.add_argument("--rounds", type=int, default=7, help="how often each side takes its turn")
    return parser


def ms(value: float) -> str:
    return f"{value * 1e3:.2f} ms"
