"""What the tests of the worker run it with: adapters made by PEFT, steps by hand, a clock, a real gRPC channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import torch
from peft import LoraConfig, get_peft_model

from genome import bases
from genome.config import Worker
from genome.v1 import inference_pb2 as pb
from genome.v1 import inference_pb2_grpc
from inference_worker.adapters import Adapters
from inference_worker.engine import Engine, Terms
from inference_worker.requests import Event, Failed, Generation, Request, Scoring, Token
from inference_worker.sampling import Sampler, Sampling
from inference_worker.scheduler import Scheduler
from inference_worker.server import grpc_server, stepping
from inference_worker.service import InferenceService, server_info
from inference_worker.sources import Source

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = [(5, 9, 40, 33), (7,), (12, 60, 61, 62, 63, 64, 65, 66, 67, 90, 91, 14), (30, 31, 32)]


def library_tokens(model: Any, prompt: tuple[int, ...], count: int) -> list[int]:
    """What transformers' own generate goes on with, greedily."""
    model.generation_config.eos_token_id = None
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 128, "head_dim": 16,
}  # fmt: skip
"""Of every small random model."""


@dataclass
class Foundry:
    """Makes adapters with PEFT."""

    fresh_model: Callable[[], Any]
    directory: Path
    made: dict[str, Path] = field(default_factory=dict)

    def __call__(self, name: str, seed: int = 0, strength: float = 0.3, **config: Any) -> Path:
        """A PEFT directory of random factors strong enough to change what the base says."""
        if name not in self.made:
            settings = {"r": 4, "lora_alpha": 8, "target_modules": LINEARS, "task_type": "CAUSAL_LM"} | config
            model = get_peft_model(self.fresh_model(), LoraConfig(**settings))
            generator = torch.Generator().manual_seed(seed)
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.data.normal_(0, strength, generator=generator)
            model.save_pretrained(self.directory / name, save_embedding_layers=False)
            self.made[name] = self.directory / name
        return self.made[name]


class Steps(Scheduler):
    """A scheduler a test steps by hand; events lie in ``seen``."""

    def __init__(self, engine: Engine, max_rows: int = 8, max_queue: int = 64, prefix_bytes: int = 0) -> None:
        self.seen: list[tuple[Request, Event]] = []
        super().__init__(engine, max_rows, max_queue, self.seen.extend, prefix_bytes)

    def step_until_done(self, *requests: Request) -> None:
        def ended(request: Request) -> bool:
            if isinstance(request, Scoring):
                return any(request is other for other, _ in self.seen)
            last = next((event for other, event in reversed(self.seen) if other is request), None)
            return isinstance(last, Failed) or (isinstance(last, Token) and last.finish is not None)

        while not all(map(ended, requests)):
            self.step()


def close_all(scheduler: Scheduler) -> None:
    """Frees the engine's rows that a test left."""
    for request in list(scheduler._rows):
        scheduler.cancel(request)
    scheduler.step()


def generation(
    prompt: tuple[int, ...],
    max_tokens: int = 12,
    terms: Terms = (),
    end_tokens: frozenset[int] = frozenset(),
    **rest: Any,
) -> Generation:
    sampling = rest.pop("sampling", Sampling())
    return Generation(terms, prompt, Sampler(sampling), max_tokens, end_tokens, **rest)


@dataclass
class Clock:
    """`Later` that runs when a test says so."""

    waiting: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __call__(self, seconds: float, callback: Callable[[], None]) -> Any:
        entry = (seconds, callback)
        self.waiting.append(entry)
        clock = self

        class Cancel:
            def cancel(self) -> None:
                if entry in clock.waiting:
                    clock.waiting.remove(entry)

        return Cancel()

    def run_out(self) -> None:
        """Lets every grace period end."""
        waiting, self.waiting = self.waiting, []
        for _, callback in waiting:
            callback()


@dataclass
class RunningWorker:
    """A worker behind its socket."""

    stub: inference_pb2_grpc.InferenceServiceStub
    adapters: Adapters
    clock: Clock
    engine: Engine
    steps: Scheduler

    async def load(self, path: Path, adapter_id: str, **fields: Any) -> pb.LoadAdapterResponse:
        request = pb.LoadAdapterRequest(adapter_path=str(path), adapter_id=adapter_id, **fields)
        return await self.stub.LoadAdapter(request)

    async def ask(self, text: str, tokens: int = 24, **fields: Any) -> tuple[str, list[pb.GenerateResponse]]:
        """The whole reply, and the messages it came in."""
        fields.setdefault("sampling", pb.Sampling(max_tokens=tokens))
        request = pb.GenerateRequest(messages=[pb.Message(role="user", content=text)], **fields)
        messages = [message async for message in self.stub.Generate(request)]
        return "".join(message.text for message in messages), messages

    async def adapter(self, adapter_id: str) -> pb.AdapterInfo | None:
        listed = await self.stub.ListAdapters(pb.ListAdaptersRequest())
        return next((info for info in listed.adapters if info.id == adapter_id), None)

    async def routes(self) -> dict[str, list[str]]:
        """Route → the adapters of its first variant."""
        listed = await self.stub.ListRoutes(pb.ListRoutesRequest())
        return {route.name: [entry.adapter_id for entry in route.variants[0].stack.entries] for route in listed.routes}


@asynccontextmanager
async def running(
    engine: Engine,
    base_path: Path,
    roots: tuple[Path, ...],
    socket: Path,
    served: bases.Described | None = None,
    **settings: Any,
) -> AsyncIterator[RunningWorker]:
    """The worker's own composition around a loaded engine, with a clock the test turns."""
    clock = Clock()
    described = bases.describe(base_path)
    source = Source(tuple(root.resolve() for root in roots), described, served or described)
    configured = Worker(**settings)
    adapters = Adapters(engine, source, 30.0, clock, configured.adapter_memory_mb << 20)
    with stepping(engine, configured, asyncio.Event()) as steps:
        info = server_info(engine, str(base_path), source)
        server, _ = grpc_server(InferenceService(engine, adapters, steps, info, 64))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            yield RunningWorker(stub, adapters, clock, engine, steps)
        await server.stop(0)
