"""Training signals: what a person or a program says about an answer, in one canonical form.

The common shapes of the field are read too (chat messages, prompt/completion, preference pairs, labelled completions);
`parse` brings a line into the canonical form or says why it cannot. docs/signals.md describes every field.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticSerializationError

from genome.errors import InvalidInput
from genome.layout import check_name

Source = Literal["human", "ai", "automated"]
WEIGHTS: dict[str, float] = {"human": 1.0, "ai": 0.5, "automated": 0.25}
"""Gold, silver and bronze: what a signal weighs where it does not say."""

MAX_WEIGHT = 1000.0
MAX_CONTEXT_DEPTH = 32
"""Far below what JSON readers and writers stand."""
SHOWN = reprlib.Repr()
"""Shows a value in a reason. Plain repr fails on what is nested almost too deeply, and shows a megabyte in whole."""
SHOWN.maxstring = SHOWN.maxother = SHOWN.maxlong = 80
METRIC = "metric"
"""The type of a signal that is one value of a metric: ``input`` is the metric's name."""
TURN_ROLES = ("system", "user", "assistant")


_encode = msgspec.msgpack.Encoder().encode
"""Lengths before contents, so that no two lessons are written alike."""


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        populate_by_name=True,
        extra="ignore",
        alias_generator=AliasGenerator(validation_alias=to_camel),
        str_strip_whitespace=False,
    )


class AnsweredBy(Part):
    """Which adapter gave the answer the signal is about, where the application knows."""

    id: str
    digest: str = ""
    generation: int = 0


class Turn(Part):
    role: Literal["system", "user", "assistant"]
    content: str


class Signal(Part):
    """One accepted signal. snake_case on disk; camelCase is read as well."""

    id: str = Field("", max_length=200)
    """Given, or the hash of what it teaches: dropping it twice trains it once."""
    type: Literal["mistake", "correction", "positive", "import", "metric"]
    persona_id: str
    domain: str
    input: str = Field(min_length=1)
    history: tuple[Turn, ...] = ()
    """Turns before ``input``, oldest first."""
    context: str | dict[str, Any] | None = None
    wrong_output: str | None = None
    correct_output: str | None = None
    source: Source = "human"
    timestamp: int = Field(ge=0)
    """Milliseconds since 1970."""
    weight: float = Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False)
    adapter: AnsweredBy | None = None
    session: str | None = None
    value: float | None = Field(None, allow_inf_nan=False)
    """Of a metric."""

    @field_validator("persona_id")
    @classmethod
    def _persona(cls, name: str) -> str:
        return check_name(name, "persona")

    @field_validator("domain")
    @classmethod
    def _domain(cls, name: str) -> str:
        return check_name(name, "domain")

    @property
    def teaches(self) -> bool:
        """Whether there is an answer to learn from. Else it is evidence: it counts for quality alone."""
        return teaches(self.correct_output, self.weight)

    @property
    def question(self) -> str:
        """What is asked, as one string: equal for signals that must not stand on both sides of a split."""
        return json.dumps([[turn.role, turn.content] for turn in self.prompt()], ensure_ascii=False)

    def prompt(self) -> list[Turn]:
        """The turns a model is asked with. Context goes before the input: not every chat template has a system turn."""
        context = self.context if isinstance(self.context, str) else json.dumps(self.context, ensure_ascii=False)
        asked = f"{context}\n\n{self.input}" if self.context else self.input
        return [*self.history, Turn(role="user", content=asked)]

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=False)


@dataclass(frozen=True)
class Defaults:
    """What a line need not say. Persona and domain come from its place in the inbox or from the config."""

    timestamp: int
    persona: str = ""
    domain: str = ""
    place: str = ""
    """Where the line was read. Two equal values of a metric that say no time are told apart by it."""


def parse(line: bytes, defaults: Defaults) -> Signal:
    """The signal in one JSON line, or InvalidInput with the reason it is refused."""
    try:
        value = json.loads(line.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8 (byte {error.start} of the line)") from None
    except RecursionError:
        raise InvalidInput("nested too deeply") from None
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"not a JSON object but a {type(value).__name__}")
    return from_object(value, defaults)


def from_object(value: dict[str, Any], defaults: Defaults) -> Signal:
    """The same, from an object already decoded."""
    fields = _canonical(value)
    if fields.get("type") != METRIC:
        fields.pop("value", None)  # a key of somebody's own
    place = "" if "timestamp" in fields else defaults.place
    fields.setdefault("persona_id", defaults.persona)
    fields.setdefault("domain", defaults.domain)
    fields.setdefault("timestamp", defaults.timestamp)
    if not fields["persona_id"]:
        raise InvalidInput(
            "no personaId; name one, drop the file in inbox/<persona>/<domain>/, or set intake.default_persona"
        )
    fields.setdefault("weight", WEIGHTS.get(str(fields.get("source", "human")), 1.0))
    _check_depth(fields.get("context"))
    try:
        signal = Signal.model_validate(fields)
        _check_type(signal)
        signal.model_dump_json()  # what cannot be written must not be accepted
        content = content_id(_taught(signal, place))
        return signal if signal.id else signal.model_copy(update={"id": content})
    except ValidationError as error:
        raise InvalidInput("; ".join(_complaint(item) for item in error.errors())) from None
    except (UnicodeEncodeError, PydanticSerializationError):
        raise InvalidInput("holds half of a surrogate pair, which is no text") from None


def content_id(taught: tuple[Any, ...]) -> str:
    """32 hex digits over what a signal teaches to whom; not over when, by whom or how strongly.

    ``taught``: persona, domain, type, input, context as text, wrong output, right output, (role, content) of each turn;
    then what tells apart those that say the same: `version`, or of a metric its value and time.
    """
    return hashlib.sha256(_encode(taught)).hexdigest()[:32]


def teaches(correct_output: str | None, weight: float) -> bool:
    """`Signal.teaches`, for those who have only these two."""
    return bool(correct_output and correct_output.strip()) and weight > 0


def context_json(context: dict[str, Any]) -> str:
    """An object as context, as it is stored and hashed. Raises InvalidInput if it holds what JSON cannot carry."""
    try:
        return json.dumps(context, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise InvalidInput("context holds a number that is too large for JSON") from None


def version(adapter: str | None, session: str | None) -> tuple[Any, ...]:
    """What tells two signals apart that say the same: the version they are about, where they name one."""
    return () if adapter is None else (adapter, session)


def _observed(signal: Signal, place: str) -> tuple[Any, ...]:
    """The same of a metric: each value is one of its own by its time, or by its place where it says no time."""
    adapter = signal.adapter.id if signal.adapter else None
    if signal.type != METRIC or signal.value is None:
        return version(adapter, signal.session)
    return adapter, signal.session, signal.value + 0.0, place or str(signal.timestamp)  # -0.0 is 0.0


def _taught(signal: Signal, place: str) -> tuple[Any, ...]:
    context = context_json(signal.context) if isinstance(signal.context, dict) else signal.context
    turns = tuple((turn.role, turn.content) for turn in signal.history)
    outputs = (signal.wrong_output, signal.correct_output)
    said = (signal.persona_id, signal.domain, signal.type, signal.input, context, *outputs, turns)
    return (*said, *_observed(signal, place))


def _canonical(value: dict[str, Any]) -> dict[str, Any]:
    """snake_case keys, and the field's common shapes turned into input and outputs."""
    fields = {_snake(key): item for key, item in value.items() if item is not None}
    if "input" in fields:
        return fields
    if "messages" in fields:
        turns = _turns(fields.pop("messages"), "messages")
        if not turns or turns[-1]["role"] != "assistant":
            raise InvalidInput("the last of messages is not the assistant's")
        return {"type": "import", "correct_output": turns[-1]["content"], **_asked(turns[:-1]), **fields}
    if "prompt" in fields:
        asked = _asked(_turns(fields.pop("prompt"), "prompt"))
        return {**asked, **_outputs(fields)}
    if "metric" in fields:
        return {"type": METRIC, "input": fields.pop("metric"), **fields}
    raise InvalidInput("no input; a line has input, messages, prompt or metric (docs/signals.md)")


def _outputs(fields: dict[str, Any]) -> dict[str, Any]:
    """The answer of a line that has a prompt: completion, chosen and rejected, or completion and label."""
    if "chosen" in fields:
        chosen, rejected = fields.pop("chosen"), fields.pop("rejected", None)
        outputs = {"type": "correction", "correct_output": _text(chosen, "chosen")}
        if rejected is not None:
            outputs["wrong_output"] = _text(rejected, "rejected")
        return {**outputs, **fields}
    if "completion" not in fields:
        raise InvalidInput("a prompt without completion, or chosen and rejected")
    completion = _text(fields.pop("completion"), "completion")
    label = fields.pop("label", None)
    if label is None:
        return {"type": "import", "correct_output": completion, **fields}
    if not isinstance(label, bool):
        raise InvalidInput(f"label is {SHOWN.repr(label)}, not true or false")
    if label:
        return {"type": "positive", "correct_output": completion, **fields}
    return {"type": "mistake", "wrong_output": completion, **fields}


def _asked(turns: list[dict[str, Any]]) -> dict[str, Any]:
    if not turns or turns[-1]["role"] != "user":
        raise InvalidInput("the turn before the answer is not the user's")
    return {"input": turns[-1]["content"], "history": tuple(turns[:-1])}


def _turns(value: Any, name: str) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise InvalidInput(f"{name} is neither text nor a list of turns")
    for turn in value:
        if not isinstance(turn, dict) or turn.get("role") not in TURN_ROLES or not isinstance(turn.get("content"), str):
            raise InvalidInput(f"{name} holds a turn without a role of {', '.join(TURN_ROLES)} and text content")
    return value


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    turns = _turns(value, name)
    if not turns or turns[-1]["role"] != "assistant":
        raise InvalidInput(f"{name} does not end with the assistant's turn")
    return str(turns[-1]["content"])


def _check_type(signal: Signal) -> None:
    if signal.type == METRIC:
        if signal.value is None:
            raise InvalidInput("a metric needs a value, a number")
        if signal.wrong_output is not None or signal.correct_output is not None:
            raise InvalidInput("a metric has a value and no outputs; drop them in a signal of their own")
    if signal.type in ("correction", "import") and not (signal.correct_output or "").strip():
        raise InvalidInput(f"a {signal.type} needs a correctOutput that is not empty")
    if signal.type == "mistake" and signal.wrong_output is None and signal.correct_output is None:
        raise InvalidInput("a mistake needs a wrongOutput or a correctOutput")


def _check_depth(value: Any, left: int = MAX_CONTEXT_DEPTH) -> None:
    if left < 0:
        raise InvalidInput(f"context is nested deeper than {MAX_CONTEXT_DEPTH} levels")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        _check_depth(item, left - 1)


def _snake(key: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number JSON has")


def _complaint(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return f"no {field}"
    return f"{field}: {item['msg']}, not {SHOWN.repr(item['input'])[:80]}"
