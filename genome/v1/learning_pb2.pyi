from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainingSignal(_message.Message):
    __slots__ = ("id", "type", "persona_id", "domain", "input", "wrong_output", "correct_output", "context", "source", "timestamp", "weight", "adapter", "session", "value")
    class AnsweredBy(_message.Message):
        __slots__ = ("id", "digest", "generation")
        ID_FIELD_NUMBER: _ClassVar[int]
        DIGEST_FIELD_NUMBER: _ClassVar[int]
        GENERATION_FIELD_NUMBER: _ClassVar[int]
        id: str
        digest: str
        generation: int
        def __init__(self, id: _Optional[str] = ..., digest: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PERSONA_ID_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    WRONG_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CORRECT_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    persona_id: str
    domain: str
    input: str
    wrong_output: str
    correct_output: str
    context: str
    source: str
    timestamp: int
    weight: float
    adapter: TrainingSignal.AnsweredBy
    session: str
    value: float
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., persona_id: _Optional[str] = ..., domain: _Optional[str] = ..., input: _Optional[str] = ..., wrong_output: _Optional[str] = ..., correct_output: _Optional[str] = ..., context: _Optional[str] = ..., source: _Optional[str] = ..., timestamp: _Optional[int] = ..., weight: _Optional[float] = ..., adapter: _Optional[_Union[TrainingSignal.AnsweredBy, _Mapping]] = ..., session: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class SubmitSignalsRequest(_message.Message):
    __slots__ = ("signals",)
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    signals: _containers.RepeatedCompositeFieldContainer[TrainingSignal]
    def __init__(self, signals: _Optional[_Iterable[_Union[TrainingSignal, _Mapping]]] = ...) -> None: ...

class SubmitSignalsResponse(_message.Message):
    __slots__ = ("accepted", "duplicates", "rejected")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    duplicates: int
    rejected: _containers.RepeatedCompositeFieldContainer[Rejection]
    def __init__(self, accepted: _Optional[int] = ..., duplicates: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[Rejection, _Mapping]]] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("index", "reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ReportMetricRequest(_message.Message):
    __slots__ = ("persona", "domain", "metric", "value", "adapter_id", "timestamp", "id")
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    persona: str
    domain: str
    metric: str
    value: float
    adapter_id: str
    timestamp: int
    id: str
    def __init__(self, persona: _Optional[str] = ..., domain: _Optional[str] = ..., metric: _Optional[str] = ..., value: _Optional[float] = ..., adapter_id: _Optional[str] = ..., timestamp: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class ReportMetricResponse(_message.Message):
    __slots__ = ("duplicate",)
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    def __init__(self, duplicate: _Optional[bool] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class FlushBufferRequest(_message.Message):
    __slots__ = ("persona", "domain")
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    persona: str
    domain: str
    def __init__(self, persona: _Optional[str] = ..., domain: _Optional[str] = ...) -> None: ...

class FlushBufferResponse(_message.Message):
    __slots__ = ("batch", "signals")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    batch: str
    signals: int
    def __init__(self, batch: _Optional[str] = ..., signals: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "batch", "persona", "domain", "trainer", "state", "step", "steps", "loss", "adapter", "reason", "tokens_per_second", "eta_seconds", "memory_mb", "validation_loss")
    ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    id: str
    batch: str
    persona: str
    domain: str
    trainer: str
    state: str
    step: int
    steps: int
    loss: float
    adapter: str
    reason: str
    tokens_per_second: float
    eta_seconds: float
    memory_mb: float
    validation_loss: float
    def __init__(self, id: _Optional[str] = ..., batch: _Optional[str] = ..., persona: _Optional[str] = ..., domain: _Optional[str] = ..., trainer: _Optional[str] = ..., state: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., adapter: _Optional[str] = ..., reason: _Optional[str] = ..., tokens_per_second: _Optional[float] = ..., eta_seconds: _Optional[float] = ..., memory_mb: _Optional[float] = ..., validation_loss: _Optional[float] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class StartJobRequest(_message.Message):
    __slots__ = ("persona", "domain", "job")
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    persona: str
    domain: str
    job: str
    def __init__(self, persona: _Optional[str] = ..., domain: _Optional[str] = ..., job: _Optional[str] = ...) -> None: ...

class StartJobResponse(_message.Message):
    __slots__ = ("batch", "job")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    batch: str
    job: str
    def __init__(self, batch: _Optional[str] = ..., job: _Optional[str] = ...) -> None: ...

class StopJobRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class StopJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Promotion(_message.Message):
    __slots__ = ("number", "persona", "adapters", "reason", "timestamp", "kind", "by", "numbers", "share", "pinned", "quarantined")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    number: int
    persona: str
    adapters: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    timestamp: int
    kind: str
    by: str
    numbers: _containers.ScalarMap[str, float]
    share: float
    pinned: bool
    quarantined: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., persona: _Optional[str] = ..., adapters: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., timestamp: _Optional[int] = ..., kind: _Optional[str] = ..., by: _Optional[str] = ..., numbers: _Optional[_Mapping[str, float]] = ..., share: _Optional[float] = ..., pinned: _Optional[bool] = ..., quarantined: _Optional[_Iterable[str]] = ...) -> None: ...

class ListPromotionsRequest(_message.Message):
    __slots__ = ("persona",)
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    persona: str
    def __init__(self, persona: _Optional[str] = ...) -> None: ...

class ListPromotionsResponse(_message.Message):
    __slots__ = ("promotions",)
    PROMOTIONS_FIELD_NUMBER: _ClassVar[int]
    promotions: _containers.RepeatedCompositeFieldContainer[Promotion]
    def __init__(self, promotions: _Optional[_Iterable[_Union[Promotion, _Mapping]]] = ...) -> None: ...

class DeployAdapterRequest(_message.Message):
    __slots__ = ("adapter_id", "force")
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    adapter_id: str
    force: bool
    def __init__(self, adapter_id: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class DeployAdapterResponse(_message.Message):
    __slots__ = ("promotion",)
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    promotion: Promotion
    def __init__(self, promotion: _Optional[_Union[Promotion, _Mapping]] = ...) -> None: ...

class RollBackAdapterRequest(_message.Message):
    __slots__ = ("persona", "adapter_id")
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_ID_FIELD_NUMBER: _ClassVar[int]
    persona: str
    adapter_id: str
    def __init__(self, persona: _Optional[str] = ..., adapter_id: _Optional[str] = ...) -> None: ...

class RollBackAdapterResponse(_message.Message):
    __slots__ = ("promotion",)
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    promotion: Promotion
    def __init__(self, promotion: _Optional[_Union[Promotion, _Mapping]] = ...) -> None: ...

class PinPersonaRequest(_message.Message):
    __slots__ = ("persona",)
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    persona: str
    def __init__(self, persona: _Optional[str] = ...) -> None: ...

class PinPersonaResponse(_message.Message):
    __slots__ = ("promotion",)
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    promotion: Promotion
    def __init__(self, promotion: _Optional[_Union[Promotion, _Mapping]] = ...) -> None: ...

class UnpinPersonaRequest(_message.Message):
    __slots__ = ("persona",)
    PERSONA_FIELD_NUMBER: _ClassVar[int]
    persona: str
    def __init__(self, persona: _Optional[str] = ...) -> None: ...

class UnpinPersonaResponse(_message.Message):
    __slots__ = ("promotion",)
    PROMOTION_FIELD_NUMBER: _ClassVar[int]
    promotion: Promotion
    def __init__(self, promotion: _Optional[_Union[Promotion, _Mapping]] = ...) -> None: ...

class PauseTrainingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseTrainingResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeTrainingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeTrainingResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Event(_message.Message):
    __slots__ = ("timestamp", "name", "json")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    timestamp: int
    name: str
    json: str
    def __init__(self, timestamp: _Optional[int] = ..., name: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...
