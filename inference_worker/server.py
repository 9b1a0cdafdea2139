"""The worker's composition: load, check, listen, serve, stop. `run` is what `genome worker` calls."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from genome import bases, copies, promotions, registry, sockets
from genome.config import Config, Worker
from genome.errors import Damaged, GenomeError, Unavailable
from genome.layout import Home
from genome.promotions import Promotion
from genome.service_manager import notify, watchdog_seconds
from genome.v1 import inference_pb2, inference_pb2_grpc
from inference_worker import engine as engines
from inference_worker import requests, sources
from inference_worker.adapters import Adapters, LoadOrder
from inference_worker.engine import Engine
from inference_worker.requests import Failed, Generation, Token
from inference_worker.routes import Entry, Variant
from inference_worker.sampling import Sampler, Sampling
from inference_worker.scheduler import Scheduler
from inference_worker.service import InferenceService, server_info

log = structlog.get_logger()

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
LARGEST_MESSAGE_BYTES = 64 << 20
STOP_SECONDS = 0.2
"""For calls that are no requests, such as a health watch, to end."""


def run(config: Config, home: Home) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    return asyncio.run(serve(config, home))


async def serve(config: Config, home: Home) -> int:
    """Loads the base and what the newest promotions name, then serves; 0 after a wanted stop, 1 after a failure."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    base = bases.resolve(config.base)
    served = copies.resolve(base, config.worker.base, "worker.base")
    with sockets.reserved(config.worker.listen, home.worker_socket) as address:
        engine = await asyncio.to_thread(engines.load, served, config.worker)
        roots = sources.roots(home.adapters, config.worker.adapter_roots)
        source = sources.Source(roots, bases.describe(base), bases.describe(served))
        budget = config.worker.adapter_memory_mb << 20
        adapters = Adapters(engine, source, config.worker.adapter_grace_seconds, loop.call_later, budget)
        with stepping(engine, config.worker, stop) as steps:
            await _warm_up(engine, steps)
            await load_promoted(home, adapters)
            info = server_info(engine, config.base, source)
            service = InferenceService(engine, adapters, steps, info, config.worker.max_reply_tokens)
            log.info("the worker is ready", address=address, base=str(source.served), notes=engine.facts.notes)
            await _listen(service, address, stop, config.worker.shutdown_seconds, steps)
            return 1 if steps.died else 0


async def load_promoted(home: Home, adapters: Adapters) -> None:
    """Serves what the newest promotions name. What cannot be loaded is left out, with every route that needs it."""
    for promotion in _newest(home):
        try:
            routes, entries = registry.routes(home, promotion), registry.served(home, promotion)
        except Damaged as error:
            log.error("a canary cannot be served", persona=promotion.persona, reason=str(error))
            continue
        broken = set()
        for entry in entries.values():
            path = str(home.adapter(entry.adapter))
            try:
                order = LoadOrder(path, entry.adapter, expected_digest=entry.digest, standby=True, evict=False)
                await adapters.load(order)
            except GenomeError as error:
                log.error("a promoted adapter cannot be served", adapter=entry.adapter, reason=str(error))
                broken.add(entry.adapter)
        whole = {name: variants for name, variants in routes.items() if not broken & _named(variants)}
        for name in sorted(routes.keys() - whole.keys()):
            log.error("a route falls back, because an adapter of its stack is missing", route=name)
        adapters.set_routes({name: tuple(map(_variant, variants)) for name, variants in whole.items()})


def _named(variants: promotions.Variants) -> set[str]:
    return {entry.adapter for variant in variants for entry in variant.stack}


def _variant(variant: promotions.Variant) -> Variant:
    return Variant(tuple(Entry(entry.adapter, entry.scale) for entry in variant.stack), variant.weight)


def _newest(home: Home) -> list[Promotion]:
    while True:
        try:
            return registry.newest(home)
        except Damaged as error:  # it was moved aside, so the one before is the newest now
            log.error("a promotion record is damaged; the one before it counts", reason=str(error))


@contextmanager
def stepping(engine: Engine, settings: Worker, stop: asyncio.Event) -> Iterator[Scheduler]:
    """Runs a scheduler in its own thread for the length of the block. Should it die, it sets ``stop``."""
    loop = asyncio.get_running_loop()

    def publish(events: list[tuple[requests.Request, requests.Event]]) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it everyone who waits
            loop.call_soon_threadsafe(requests.deliver, events)

    def work() -> None:
        try:
            steps.run()
        except BaseException:
            log.exception("the step thread died")
            steps.died = True
            loop.call_soon_threadsafe(stop.set)

    prefix_bytes = settings.prefix_cache_mb << 20
    steps = Scheduler(engine, settings.max_rows, settings.max_queue, publish, prefix_bytes)
    thread = threading.Thread(target=work, name="engine-steps", daemon=True)
    thread.start()
    try:
        yield steps
    finally:
        steps.stop()
        thread.join(timeout=5)


async def _warm_up(engine: Engine, steps: Scheduler) -> None:
    """Has one token made, the way every later one is. Raises if that fails."""
    answered: asyncio.Queue[Token | Failed] = asyncio.Queue()
    prompt = engine.tokenizer.encode("a") or (0,)
    steps.submit(Generation((), prompt, Sampler(Sampling()), 1, frozenset(), deliver=answered.put_nowait))
    event = await answered.get()
    if isinstance(event, Failed):
        raise Unavailable(f"the base model does not answer: {event.error}")


async def _listen(
    service: InferenceService, address: str, stop: asyncio.Event, shutdown_seconds: float, steps: Scheduler
) -> None:
    """Listens until ``stop``, then lets what runs end in time."""
    server, healthy = grpc_server(service)
    with sockets.private():
        server.add_insecure_port(address)
    await healthy.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    notify("READY=1")
    pulse = asyncio.create_task(watchdog(lambda interval: steps.stalled_seconds() < interval))
    await stop.wait()
    notify("STOPPING=1")
    pulse.cancel()
    await healthy.enter_graceful_shutdown()
    if not await service.drain(shutdown_seconds):
        log.warning("requests were cut off", seconds=shutdown_seconds)
    await server.stop(STOP_SECONDS)


async def watchdog(alive: Callable[[float], bool]) -> None:
    """Tells the service manager in time that the worker lives, while ``alive(interval)`` says so."""
    interval = watchdog_seconds()
    while interval:
        if alive(interval):
            notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def grpc_server(service: InferenceService) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """A server with the inference, health and reflection services, neither bound nor started."""
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
        ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=options)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, healthy
