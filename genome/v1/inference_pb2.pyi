from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BACKGROUND: _ClassVar[Priority]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BACKGROUND: Priority

class LoadAdapterRequest(_message.Message):
    __slots__ = ("adapter_path", "adapter_id", "scale", "replace_id", "expected_digest", "standby", "expected_generation", "grace_seconds")
    ADAPTER_PATH_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    adapter_path: str
    adapter_id: str
    scale: float
    replace_id: str
    expected_digest: str
    standby: bool
    expected_generation: int
    grace_seconds: float
    def __init__(self, adapter_path: _Optional[str] = ..., adapter_id: _Optional[str] = ..., scale: _Optional[float] = ..., replace_id: _Optional[str] = ..., expected_digest: _Optional[str] = ..., standby: _Optional[bool] = ..., expected_generation: _Optional[int] = ..., grace_seconds: _Optional[float] = ...) -> None: ...

class LoadAdapterResponse(_message.Message):
    __slots__ = ("adapter", "generation", "already_loaded", "load_ms", "swap_ms")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ALREADY_LOADED_FIELD_NUMBER: _ClassVar[int]
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    SWAP_MS_FIELD_NUMBER: _ClassVar[int]
    adapter: AdapterInfo
    generation: int
    already_loaded: bool
    load_ms: float
    swap_ms: float
    def __init__(self, adapter: _Optional[_Union[AdapterInfo, _Mapping]] = ..., generation: _Optional[int] = ..., already_loaded: _Optional[bool] = ..., load_ms: _Optional[float] = ..., swap_ms: _Optional[float] = ...) -> None: ...

class UnloadAdapterRequest(_message.Message):
    __slots__ = ("adapter_id", "grace_seconds")
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    adapter_id: str
    grace_seconds: float
    def __init__(self, adapter_id: _Optional[str] = ..., grace_seconds: _Optional[float] = ...) -> None: ...

class UnloadAdapterResponse(_message.Message):
    __slots__ = ("in_flight",)
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    in_flight: int
    def __init__(self, in_flight: _Optional[int] = ...) -> None: ...

class ListAdaptersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAdaptersResponse(_message.Message):
    __slots__ = ("adapters",)
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterInfo]
    def __init__(self, adapters: _Optional[_Iterable[_Union[AdapterInfo, _Mapping]]] = ...) -> None: ...

class AdapterInfo(_message.Message):
    __slots__ = ("id", "version", "digest", "scale", "rank", "state", "in_flight", "memory_bytes", "path")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[AdapterInfo.State]
        STANDBY: _ClassVar[AdapterInfo.State]
        ROUTED: _ClassVar[AdapterInfo.State]
        RETIRING: _ClassVar[AdapterInfo.State]
    STATE_UNSPECIFIED: AdapterInfo.State
    STANDBY: AdapterInfo.State
    ROUTED: AdapterInfo.State
    RETIRING: AdapterInfo.State
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: str
    digest: str
    scale: float
    rank: int
    state: AdapterInfo.State
    in_flight: int
    memory_bytes: int
    path: str
    def __init__(self, id: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., scale: _Optional[float] = ..., rank: _Optional[int] = ..., state: _Optional[_Union[AdapterInfo.State, str]] = ..., in_flight: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class Stack(_message.Message):
    __slots__ = ("entries",)
    class Entry(_message.Message):
        __slots__ = ("adapter_id", "scale")
        ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
        SCALE_FIELD_NUMBER: _ClassVar[int]
        adapter_id: str
        scale: float
        def __init__(self, adapter_id: _Optional[str] = ..., scale: _Optional[float] = ...) -> None: ...
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Stack.Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Stack.Entry, _Mapping]]] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("name", "variants")
    class Variant(_message.Message):
        __slots__ = ("stack", "weight")
        STACK_FIELD_NUMBER: _ClassVar[int]
        WEIGHT_FIELD_NUMBER: _ClassVar[int]
        stack: Stack
        weight: float
        def __init__(self, stack: _Optional[_Union[Stack, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    variants: _containers.RepeatedCompositeFieldContainer[Route.Variant]
    def __init__(self, name: _Optional[str] = ..., variants: _Optional[_Iterable[_Union[Route.Variant, _Mapping]]] = ...) -> None: ...

class SetRouteRequest(_message.Message):
    __slots__ = ("routes", "expected_generation")
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    expected_generation: int
    def __init__(self, routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., expected_generation: _Optional[int] = ...) -> None: ...

class SetRouteResponse(_message.Message):
    __slots__ = ("generation", "swap_ms")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SWAP_MS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    swap_ms: float
    def __init__(self, generation: _Optional[int] = ..., swap_ms: _Optional[float] = ...) -> None: ...

class ListRoutesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRoutesResponse(_message.Message):
    __slots__ = ("routes", "generation")
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    generation: int
    def __init__(self, routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., generation: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "content", "name")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    name: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "seed", "max_tokens", "stop", "keep_special_tokens", "min_p", "repetition_penalty", "logprobs")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    KEEP_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    keep_special_tokens: bool
    min_p: float
    repetition_penalty: float
    logprobs: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ..., max_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., keep_special_tokens: _Optional[bool] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., logprobs: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("route", "stack", "session", "messages", "text", "sampling", "priority")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    route: str
    stack: Stack
    session: str
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    text: str
    sampling: Sampling
    priority: Priority
    def __init__(self, route: _Optional[str] = ..., stack: _Optional[_Union[Stack, _Mapping]] = ..., session: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., text: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class Served(_message.Message):
    __slots__ = ("route", "generation", "adapters")
    class Adapter(_message.Message):
        __slots__ = ("id", "version", "digest", "scale")
        ID_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        DIGEST_FIELD_NUMBER: _ClassVar[int]
        SCALE_FIELD_NUMBER: _ClassVar[int]
        id: str
        version: str
        digest: str
        scale: float
        def __init__(self, id: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., scale: _Optional[float] = ...) -> None: ...
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    route: str
    generation: int
    adapters: _containers.RepeatedCompositeFieldContainer[Served.Adapter]
    def __init__(self, route: _Optional[str] = ..., generation: _Optional[int] = ..., adapters: _Optional[_Iterable[_Union[Served.Adapter, _Mapping]]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens", "cached_prompt_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., cached_prompt_tokens: _Optional[int] = ...) -> None: ...

class Logprob(_message.Message):
    __slots__ = ("logprob", "alternatives")
    class Alternative(_message.Message):
        __slots__ = ("token_id", "logprob", "text")
        TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
        LOGPROB_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        token_id: int
        logprob: float
        text: str
        def __init__(self, token_id: _Optional[int] = ..., logprob: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    logprob: float
    alternatives: _containers.RepeatedCompositeFieldContainer[Logprob.Alternative]
    def __init__(self, logprob: _Optional[float] = ..., alternatives: _Optional[_Iterable[_Union[Logprob.Alternative, _Mapping]]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("text", "token_ids", "served", "finish_reason", "usage", "logprobs")
    class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FINISH_REASON_UNSPECIFIED: _ClassVar[GenerateResponse.FinishReason]
        STOP: _ClassVar[GenerateResponse.FinishReason]
        LENGTH: _ClassVar[GenerateResponse.FinishReason]
    FINISH_REASON_UNSPECIFIED: GenerateResponse.FinishReason
    STOP: GenerateResponse.FinishReason
    LENGTH: GenerateResponse.FinishReason
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    served: Served
    finish_reason: GenerateResponse.FinishReason
    usage: Usage
    logprobs: _containers.RepeatedCompositeFieldContainer[Logprob]
    def __init__(self, text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., served: _Optional[_Union[Served, _Mapping]] = ..., finish_reason: _Optional[_Union[GenerateResponse.FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., logprobs: _Optional[_Iterable[_Union[Logprob, _Mapping]]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("route", "stack", "items", "priority")
    class Continuation(_message.Message):
        __slots__ = ("text", "token_ids")
        TEXT_FIELD_NUMBER: _ClassVar[int]
        TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
        text: str
        token_ids: ScoreRequest.TokenIds
        def __init__(self, text: _Optional[str] = ..., token_ids: _Optional[_Union[ScoreRequest.TokenIds, _Mapping]] = ...) -> None: ...
    class TokenIds(_message.Message):
        __slots__ = ("ids",)
        IDS_FIELD_NUMBER: _ClassVar[int]
        ids: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...
    class Item(_message.Message):
        __slots__ = ("messages", "text", "continuations", "without")
        MESSAGES_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        CONTINUATIONS_FIELD_NUMBER: _ClassVar[int]
        WITHOUT_FIELD_NUMBER: _ClassVar[int]
        messages: _containers.RepeatedCompositeFieldContainer[Message]
        text: str
        continuations: _containers.RepeatedCompositeFieldContainer[ScoreRequest.Continuation]
        without: _containers.RepeatedCompositeFieldContainer[ScoreRequest.Parts]
        def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., text: _Optional[str] = ..., continuations: _Optional[_Iterable[_Union[ScoreRequest.Continuation, _Mapping]]] = ..., without: _Optional[_Iterable[_Union[ScoreRequest.Parts, _Mapping]]] = ...) -> None: ...
    class Parts(_message.Message):
        __slots__ = ("names",)
        NAMES_FIELD_NUMBER: _ClassVar[int]
        names: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    route: str
    stack: Stack
    items: _containers.RepeatedCompositeFieldContainer[ScoreRequest.Item]
    priority: Priority
    def __init__(self, route: _Optional[str] = ..., stack: _Optional[_Union[Stack, _Mapping]] = ..., items: _Optional[_Iterable[_Union[ScoreRequest.Item, _Mapping]]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("items", "served")
    class Continuation(_message.Message):
        __slots__ = ("logprob", "tokens", "greedy_tokens", "token_logprobs")
        LOGPROB_FIELD_NUMBER: _ClassVar[int]
        TOKENS_FIELD_NUMBER: _ClassVar[int]
        GREEDY_TOKENS_FIELD_NUMBER: _ClassVar[int]
        TOKEN_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
        logprob: float
        tokens: int
        greedy_tokens: int
        token_logprobs: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, logprob: _Optional[float] = ..., tokens: _Optional[int] = ..., greedy_tokens: _Optional[int] = ..., token_logprobs: _Optional[_Iterable[float]] = ...) -> None: ...
    class Item(_message.Message):
        __slots__ = ("continuations", "without")
        CONTINUATIONS_FIELD_NUMBER: _ClassVar[int]
        WITHOUT_FIELD_NUMBER: _ClassVar[int]
        continuations: _containers.RepeatedCompositeFieldContainer[ScoreResponse.Continuation]
        without: _containers.RepeatedCompositeFieldContainer[ScoreResponse.Item]
        def __init__(self, continuations: _Optional[_Iterable[_Union[ScoreResponse.Continuation, _Mapping]]] = ..., without: _Optional[_Iterable[_Union[ScoreResponse.Item, _Mapping]]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoreResponse.Item]
    served: Served
    def __init__(self, items: _Optional[_Iterable[_Union[ScoreResponse.Item, _Mapping]]] = ..., served: _Optional[_Union[Served, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("engine", "base", "base_fingerprint", "device", "dtype", "context_tokens", "in_flight", "generation", "adapter_roots", "user_turn", "user_turn_end", "version", "pid", "notes", "served_base", "served_fingerprint", "quantisation")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    BASE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_ROOTS_FIELD_NUMBER: _ClassVar[int]
    USER_TURN_FIELD_NUMBER: _ClassVar[int]
    USER_TURN_END_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    SERVED_BASE_FIELD_NUMBER: _ClassVar[int]
    SERVED_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    QUANTISATION_FIELD_NUMBER: _ClassVar[int]
    engine: str
    base: str
    base_fingerprint: str
    device: str
    dtype: str
    context_tokens: int
    in_flight: int
    generation: int
    adapter_roots: _containers.RepeatedScalarFieldContainer[str]
    user_turn: str
    user_turn_end: str
    version: str
    pid: int
    notes: str
    served_base: str
    served_fingerprint: str
    quantisation: str
    def __init__(self, engine: _Optional[str] = ..., base: _Optional[str] = ..., base_fingerprint: _Optional[str] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., context_tokens: _Optional[int] = ..., in_flight: _Optional[int] = ..., generation: _Optional[int] = ..., adapter_roots: _Optional[_Iterable[str]] = ..., user_turn: _Optional[str] = ..., user_turn_end: _Optional[str] = ..., version: _Optional[str] = ..., pid: _Optional[int] = ..., notes: _Optional[str] = ..., served_base: _Optional[str] = ..., served_fingerprint: _Optional[str] = ..., quantisation: _Optional[str] = ...) -> None: ...
