"""Between the wire's messages and the worker's own types. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Sequence

from genome.errors import InvalidInput
from genome.v1 import inference_pb2 as pb
from inference_worker.adapters import Adapter, Adapters, Lease, Loaded, LoadOrder
from inference_worker.engine import Likelihood, Tokenizer
from inference_worker.requests import Finish
from inference_worker.routes import Entry, Stack, Table, Variant, Variants
from inference_worker.sampling import Logprobs, Sampling

STATES = {
    "standby": pb.AdapterInfo.STANDBY,
    "routed": pb.AdapterInfo.ROUTED,
    "retiring": pb.AdapterInfo.RETIRING,
}
FINISHES: dict[Finish, pb.GenerateResponse.FinishReason] = {
    "stop": pb.GenerateResponse.STOP,
    "length": pb.GenerateResponse.LENGTH,
}


def load_order(request: pb.LoadAdapterRequest) -> LoadOrder:
    return LoadOrder(
        path=request.adapter_path,
        id=request.adapter_id,
        scale=request.scale if request.HasField("scale") else None,
        replace_id=request.replace_id,
        expected_digest=request.expected_digest.lower(),
        standby=request.standby,
        expected_generation=request.expected_generation if request.HasField("expected_generation") else None,
        grace_seconds=request.grace_seconds if request.HasField("grace_seconds") else None,
    )


def load_response(loaded: Loaded, adapters: Adapters) -> pb.LoadAdapterResponse:
    return pb.LoadAdapterResponse(
        adapter=adapter_info(loaded.adapter, adapters),
        generation=loaded.generation,
        already_loaded=loaded.already_loaded,
        load_ms=loaded.load_ms,
        swap_ms=loaded.swap_ms,
    )


def adapter_info(adapter: Adapter, adapters: Adapters) -> pb.AdapterInfo:
    return pb.AdapterInfo(
        id=adapter.id,
        version=adapter.version,
        digest=adapter.digest,
        scale=adapter.scale,
        rank=adapter.rank,
        state=STATES[adapters.state(adapter.id)],
        in_flight=adapters.in_flight(adapter.id),
        memory_bytes=adapter.weights.memory_bytes,
        path=adapter.path,
    )


def stack(message: pb.Stack) -> Stack:
    return tuple(Entry(entry.adapter_id, entry.scale if entry.HasField("scale") else None) for entry in message.entries)


def stack_message(stack: Stack) -> pb.Stack:
    return pb.Stack(entries=[pb.Stack.Entry(adapter_id=entry.adapter_id, scale=entry.scale) for entry in stack])


def routes(request: pb.SetRouteRequest) -> dict[str, Variants]:
    return {
        route.name: tuple(
            Variant(stack(variant.stack), variant.weight if variant.weight != 0 else 1.0) for variant in route.variants
        )
        for route in request.routes
    }


def routes_response(table: Table) -> pb.ListRoutesResponse:
    return pb.ListRoutesResponse(
        generation=table.generation,
        routes=[
            pb.Route(
                name=name,
                variants=[
                    pb.Route.Variant(weight=variant.weight, stack=stack_message(variant.stack)) for variant in variants
                ],
            )
            for name, variants in sorted(table.routes.items())
        ],
    )


def target(request: pb.GenerateRequest | pb.ScoreRequest) -> str | Stack:
    """A route's name, "" if none was given, or an explicit stack."""
    return stack(request.stack) if request.WhichOneof("target") == "stack" else request.route


def prompt(request: pb.GenerateRequest | pb.ScoreRequest.Item, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The prompt's tokens; at least one."""
    if request.messages and request.text:
        raise InvalidInput("a prompt is messages or text, not both")
    tokens = tokenizer.chat(_messages(request.messages)) if request.messages else tokenizer.encode(request.text)
    if not tokens:
        raise InvalidInput("the prompt is empty", "Give messages or text")
    return tokens


def variants(item: pb.ScoreRequest.Item) -> list[pb.ScoreRequest.Item]:
    """The item itself, and for each of ``without`` the same with those messages left out."""
    names = {message.name for message in item.messages if message.name}
    found = [item]
    for parts in item.without:
        if unknown := set(parts.names) - names:
            raise InvalidInput(f"no message is named {sorted(unknown)[0]!r}", "Name the messages to leave out")
        kept = [message for message in item.messages if message.name not in parts.names]
        found.append(pb.ScoreRequest.Item(messages=kept, text=item.text, continuations=item.continuations))
    return found


def continuations(item: pb.ScoreRequest.Item, tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The tokens of every continuation; at least one each."""
    found = tuple(_continuation(item, form, tokenizer) for form in item.continuations)
    if not all(found):
        raise InvalidInput("a continuation is empty", "Give text, or at least one token id")
    return found


def _continuation(
    item: pb.ScoreRequest.Item, form: pb.ScoreRequest.Continuation, tokenizer: Tokenizer
) -> tuple[int, ...]:
    if form.WhichOneof("form") == "token_ids":
        return tuple(form.token_ids.ids)
    if item.messages:
        return tokenizer.answer(_messages(item.messages), form.text)
    return tokenizer.continuation(form.text)


def sampling(message: pb.Sampling) -> Sampling:
    return Sampling(
        temperature=message.temperature,
        top_p=message.top_p or 1.0,
        top_k=message.top_k,
        seed=message.seed if message.HasField("seed") else None,
        max_tokens=message.max_tokens,
        stop=tuple(message.stop),
        keep_special_tokens=message.keep_special_tokens,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty or 1.0,
        logprobs=message.logprobs if message.HasField("logprobs") else None,
    )


def logprob(found: Logprobs, tokenizer: Tokenizer) -> pb.Logprob:
    return pb.Logprob(
        logprob=found.chosen,
        alternatives=[
            pb.Logprob.Alternative(token_id=token, logprob=value, text=tokenizer.decode([token], special=True))
            for token, value in found.likeliest
        ],
    )


def background(request: pb.GenerateRequest | pb.ScoreRequest) -> bool:
    return request.priority == pb.PRIORITY_BACKGROUND


def served(lease: Lease) -> pb.Served:
    return pb.Served(
        route=lease.route,
        generation=lease.generation,
        adapters=[
            pb.Served.Adapter(id=adapter.id, version=adapter.version, digest=adapter.digest, scale=scale)
            for adapter, scale in lease.adapters
        ],
    )


def scores(request: pb.ScoreRequest, answers: Sequence[Sequence[Likelihood]], lease: Lease) -> pb.ScoreResponse:
    """``answers`` to every item, each followed by those to its variants."""
    left = iter(answers)
    items = []
    for asked in request.items:
        item = _scored(next(left))
        item.without.extend(_scored(next(left)) for _ in asked.without)
        items.append(item)
    return pb.ScoreResponse(served=served(lease), items=items)


def _scored(answers: Sequence[Likelihood]) -> pb.ScoreResponse.Item:
    return pb.ScoreResponse.Item(
        continuations=[
            pb.ScoreResponse.Continuation(
                logprob=sum(answer.logprobs),
                tokens=len(answer.logprobs),
                greedy_tokens=sum(answer.greedy),
                token_logprobs=answer.logprobs,
            )
            for answer in answers
        ]
    )


def _messages(messages: Sequence[pb.Message]) -> list[dict[str, str]]:
    return [{"role": message.role or "user", "content": message.content} for message in messages]
