"""Loading and swapping: file to servable ÷ a read and ÷ PEFT, the first token after a load, gaps, a swap storm."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.utils.hotswap import hotswap_adapter

from benchmarks import models
from benchmarks.measure import Report, arguments, in_turns, ms, seconds
from benchmarks.offline import Offline, is_mixed
from benchmarks.streams import TEXTS, Client, Reply, streams, worker
from genome import bases, lora
from genome.config import Worker
from genome.layout import Home
from genome.v1 import inference_pb2 as pb
from inference_worker import engine as engines
from inference_worker.engine import Engine, Term
from inference_worker.sources import Source

SWAP_EVERY = 30
"""Tokens."""
VERSIONS = 24
"""Of the storm: more than replies hold at a time, so that most have left memory before they are loaded again."""


def loading(report: Report, home: Home, base: Path, ids: list[str], rounds: int, dtype: str) -> tuple[Engine, float]:
    """File to servable against a plain read and PEFT; returns the engine, and the seconds of one load."""
    engine = engines.load(base, Worker(engine="torch", dtype=dtype))  # type: ignore[arg-type]
    described = bases.describe(base)
    source = Source((home.adapters.resolve(),), described, described)
    path = home.adapter(ids[0])
    model = models.library_model(base, engine.facts.dtype)
    peft = PeftModel.from_pretrained(model, path, adapter_name="default")
    names = (f"n{number}" for number in itertools.count())

    def peft_load() -> float:
        name = next(names)
        took = seconds(lambda: (peft.load_adapter(path, name), peft.set_adapter(name)))
        peft.set_adapter("default")
        peft.delete_adapter(name)
        return took

    took = in_turns(
        {
            "read": lambda: seconds((path / lora.PEFT_WEIGHTS).read_bytes),
            "load": lambda: seconds(lambda: engine.load(source.read(path))),
            "peft_hotswap": lambda: seconds(lambda: hotswap_adapter(peft, str(path), "default", torch_device="cpu")),
            "peft_load": peft_load,
        },
        4 * rounds,
    )
    ours, read = took["load"], took["read"]
    report.ratio("servable_load_over_read", "M", ms(ours), ms(read), ours / read, "≤ 5")
    for peer, wanted in (("load", "≥ 30"), ("hotswap", "≥ 4.5")):
        theirs = took[f"peft_{peer}"]
        report.ratio(f"speedup_vs_peft_{peer}", "M", ms(ours), ms(theirs), theirs / ours, wanted)
    return engine, ours


def one_step(engine: Engine, home: Home, adapter_id: str) -> float:
    """Seconds of one decoding step of one row under an adapter."""
    term = Term(engine.load(lora.read(home.adapter(adapter_id))), 1.0)
    row = engine.open((term,))
    engine.forward([(row, range(5, 13))])
    took = in_turns({"step": lambda: seconds(lambda: engine.forward([(row, [7])]))}, 10)
    engine.close(row)
    return took["step"]


async def first_token(client: Client, rounds: int) -> tuple[float, float]:
    """Median seconds from calling LoadAdapter to the new adapter's first token, and of an empty call."""
    whole, empty = [], []
    for number in range(1, 2 * rounds + 1):
        old, new = client.ids[(number - 1) % 4], client.ids[number % 4]
        started = time.perf_counter()
        await client.load(new, old)
        reply = await client.ask(0, 1)
        whole.append(reply.arrivals[0] - started)
        assert set(reply.adapters) == {new}
        started = time.perf_counter()
        await client.stub.ListAdapters(pb.ListAdaptersRequest())
        empty.append(time.perf_counter() - started)
    return float(np.median(whole)), float(np.median(empty))


def gaps(replies: list[Reply]) -> list[float]:
    return [after - before for reply in replies for before, after in itertools.pairwise(reply.arrivals)]


async def gap_ratios(report: Report, client: Client, rounds: int) -> None:
    """Gaps between a stream's tokens with a swap every 30 tokens ÷ without, the two in turns."""
    still: list[float] = []
    swapped: list[float] = []
    for _ in range(rounds):
        still += gaps(await streams(client, 6, 60))
        swapped += gaps(await streams(client, 6, 60, swap_every=SWAP_EVERY))
    for key, share, wanted in (("p99_gap_ratio", 0.99, "≤ 1.25"), ("p999_gap_ratio", 0.999, "≤ 1.5")):
        ours, peer = (float(np.quantile(values, share)) for values in (swapped, still))
        report.ratio(key, "S", ms(ours), ms(peer), ours / peer, wanted)
    ours, peer = (float(np.median(values)) for values in (swapped, still))
    report.remark("p50 gap (S)", ms(ours), ms(peer), ours / peer)


async def storm(directory: Path, dtype: str, swaps: int) -> tuple[int, int, int]:
    """So many swaps under eight streams; returns failed replies, mixed replies and all replies."""
    home = Home(directory / f"storm-{dtype}")
    # Wider weights than a fresh model's, so that its tokens are no near ties.
    base = models.make_base("S", home.root, dtype, spread=0.1)
    ids = models.make_adapters(home, base, dtype, VERSIONS, spread=0.1)
    async with worker(home, base, dtype, ids) as client:
        replies = await streams(client, 1, 24, swaps=swaps)
    tokenizer = engines.load(base, Worker(engine="torch", dtype=dtype)).tokenizer  # type: ignore[arg-type]
    offline = Offline(home, base, ids, dtype, [tokenizer.encode(text) for text in TEXTS])
    mixed = sum(is_mixed(reply, offline, ids, dtype == "float32") for reply in replies if not reply.failed)
    return sum(reply.failed for reply in replies), mixed, len(replies)


async def swapping(report: Report, directory: Path, options: Any) -> None:
    saved = "bfloat16" if options.dtype == "auto" else options.dtype
    home = Home(directory / "M")
    base = models.make_base("M", home.root, saved)
    ids = models.make_adapters(home, base, saved, 4)
    engine, load = loading(report, home, base, ids, options.rounds, options.dtype)
    step = one_step(engine, home, ids[0])
    del engine
    async with worker(home, base, options.dtype, ids) as client:
        whole, empty = await first_token(client, options.rounds)
    floor = load + empty + step
    report.ratio("rpc_to_first_token_over_floor", "M", ms(whole), ms(floor), whole / floor, "≤ 2")

    home = Home(directory / "S")
    base = models.make_base("S", home.root, saved)
    ids = models.make_adapters(home, base, saved, 4)
    async with worker(home, base, options.dtype, ids) as client:
        await gap_ratios(report, client, options.rounds)

    found = {dtype: await storm(directory, dtype, options.swaps) for dtype in ("float32", "bfloat16")}
    report.count("swaps", options.swaps, "1000")
    report.count("failed", sum(failed for failed, _, _ in found.values()), "0")
    report.count("mixed", sum(mixed for _, mixed, _ in found.values()), "0")
    for dtype, (_, _, replies) in found.items():
        report.rows.append((f"replies compared, {dtype}", str(replies), "", "", ""))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--swaps", type=int, default=1000, help="of the storm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(f"loading and swapping, dtype {options.dtype}")
    with tempfile.TemporaryDirectory(prefix="swap-") as directory:
        asyncio.run(swapping(report, Path(directory), options))
    report.show(options.json)


if __name__ == "__main__":
    main()
