"""Signals by the hundred thousand a second: what `genome.signals` does to a line, in structs of msgspec.

The structs are made from the pydantic models, field by field and bound by bound, so there is one schema. `Reader` takes
the plain lines; whatever does not fit a struct goes to `signals.from_object`, which knows the other shapes and says why
a line is refused. So this can only be faster, never kinder; tests/genome/test_lines.py holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from msgspec.structs import astuple
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from genome import signals
from genome.errors import InvalidInput
from genome.layout import check_name
from genome.signals import METRIC, WEIGHTS, Defaults, Signal, content_id, context_json, version

BOUNDS = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt", MinLen: "min_length", MaxLen: "max_length"}
"""What pydantic says of a field → what msgspec calls it."""
KNOWN_PLACES = 10_000
"""Personas' domains whose names are remembered as good."""


def _struct(model: type[BaseModel], **options: Any) -> type[msgspec.Struct]:
    """A struct with the fields of ``model``, all optional: null counts as left out."""
    fields = [(name, _translated(field.annotation, field) | None, None) for name, field in model.model_fields.items()]
    return msgspec.defstruct(model.__name__, fields, gc=False, **options)


def _translated(annotation: Any, field: FieldInfo | None = None) -> Any:
    """The type msgspec checks as strictly as pydantic does, or more so."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        # An object as context is left to pydantic: its numbers and its depth are checked there.
        kinds = [kind for kind in inner if kind is not NoneType and get_origin(kind) is not dict]
        (annotation,) = kinds
        return _translated(annotation, field)
    if origin is tuple:
        return tuple[_translated(inner[0]), ...]  # type: ignore[misc]
    if origin is Literal:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _nested(annotation)
    bounds = {BOUNDS[type(bound)]: getattr(bound, BOUNDS[type(bound)]) for bound in field.metadata
              if type(bound) in BOUNDS} if field else {}  # fmt: skip
    return Annotated[annotation, msgspec.Meta(**bounds)] if bounds else annotation


@cache
def _nested(model: type[BaseModel]) -> type[msgspec.Struct]:
    """A part of a signal; what it lacks has its default, as pydantic has it, and null is refused."""
    required = [(name, _translated(field.annotation, field)) for name, field in model.model_fields.items()
                if field.is_required()]  # fmt: skip
    others = [(name, _translated(field.annotation, field), field.default) for name, field in model.model_fields.items()
              if not field.is_required()]  # fmt: skip
    return msgspec.defstruct(model.__name__, [*required, *others], gc=False, forbid_unknown_fields=True)


Camel = _struct(Signal, rename="camel", forbid_unknown_fields=True)
Snake = _struct(Signal, forbid_unknown_fields=True)
"""A line as it is given, in either spelling."""


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """A signal in canonical form, as it is stored. The fields of `Signal`, in its order."""

    id: str = ""
    type: str = ""
    persona_id: str = ""
    domain: str = ""
    input: str = ""
    history: tuple[Any, ...] | None = None
    context: Any = None
    wrong_output: str | None = None
    correct_output: str | None = None
    source: str = ""
    timestamp: int = -1
    weight: float = -1.0
    adapter: Any = None
    session: str | None = None
    value: float | None = None

    @property
    def teaches(self) -> bool:
        return signals.teaches(self.correct_output, self.weight)

    @property
    def standing(self) -> tuple[float, int]:
        """Of two signals that contradict each other the greater wins: by source, then by time."""
        return WEIGHTS[self.source], self.timestamp

    @property
    def question(self) -> bytes:
        """What is asked: equal for stored lines of one domain that a model is asked alike, however they are written."""
        if isinstance(self.context, str) and self.context:
            return msgspec.json.encode((self.history or (), None, f"{self.context}\n\n{self.input}"))
        return msgspec.json.encode((self.history or (), self.context or None, self.input))


assert Line.__struct_fields__ == tuple(Signal.model_fields), "the canonical line has the fields of the model of record"


class Reader:
    """Reads lines and messages. It only remembers what makes the next one faster, so threads may share it."""

    def __init__(self) -> None:
        self._decoders = [msgspec.json.Decoder(Camel), msgspec.json.Decoder(Snake)]
        self._places: set[tuple[str, str]] = set()

    def line(self, raw: bytes, defaults: Defaults) -> Line:
        """The signal in one JSON line, as `signals.parse` sees it, or InvalidInput with the reason."""
        first, second = self._decoders
        try:
            given = first.decode(raw)
        except ValueError:
            try:
                given = second.decode(raw)
            except ValueError:
                return from_signal(signals.parse(raw, defaults))
            self._decoders = [second, first]  # what one producer writes looks alike
        found = self._completed(given, defaults)
        return found or from_signal(signals.parse(raw, defaults))

    def fields(self, given: Mapping[str, Any], defaults: Defaults) -> Line:
        """The same from snake_case fields, whose text is valid Unicode, as that of protobuf is."""
        try:
            converted = msgspec.convert(given, Snake)
        except ValueError:
            return from_signal(signals.from_object(dict(given), defaults))
        found = self._completed(converted, defaults)
        return found or from_signal(signals.from_object(dict(given), defaults))

    def _completed(self, given: msgspec.Struct, defaults: Defaults) -> Line | None:
        """With what was left out, which is None in ``given``. None: it is to be refused, or looked at more closely."""
        (id_, kind, persona, domain, asked, history, context, wrong, correct,
         source, timestamp, weight, adapter, session, _) = astuple(given)  # fmt: skip
        if persona is None:
            persona = defaults.persona
        if domain is None:
            domain = defaults.domain
        if timestamp is None:
            timestamp = defaults.timestamp
        if source is None:
            source = "human"
        weight = WEIGHTS[source] if weight is None else weight + 0.0  # -0.0 is 0.0
        if kind is None or not asked or not ((persona, domain) in self._places or self._good_place(persona, domain)):
            return None
        if kind == "mistake":
            if correct is None and wrong is None:
                return None
        elif kind == METRIC or (kind != "positive" and not (correct and correct.strip())):
            return None
        turns: tuple[tuple[str, str], ...] = ()
        if history is not None:
            history = history or None
            turns = tuple((turn.role, turn.content) for turn in history or ())
        if not id_:
            once = version(adapter.id, session) if adapter is not None else ()
            id_ = content_id((persona, domain, kind, asked, context, wrong, correct, turns, *once))
        return Line(id_, kind, persona, domain, asked, history, context, wrong, correct,
                    source, timestamp, weight, adapter, session)  # fmt: skip

    def _good_place(self, persona: str, domain: str) -> bool:
        try:
            check_name(persona, "persona")
            check_name(domain, "domain")
        except InvalidInput:
            return False
        if len(self._places) >= KNOWN_PLACES:
            self._places.clear()
        self._places.add((persona, domain))
        return True


def from_signal(signal: Signal) -> Line:
    """The canonical line of a signal."""
    values = {name: getattr(signal, name) for name in Line.__struct_fields__}
    if isinstance(signal.context, dict):
        values["context"] = msgspec.Raw(context_json(signal.context).encode())
    values["history"] = tuple(turn.model_dump() for turn in signal.history) or None
    values["weight"] = signal.weight + 0.0
    values["value"] = None if signal.value is None else signal.value + 0.0
    if signal.adapter is not None:
        values["adapter"] = signal.adapter.model_dump()
    return Line(**values)


def to_signal(line: Line) -> Signal:
    """The signal of a canonical line."""
    return Signal.model_validate_json(msgspec.json.encode(line))
