"""genome.toml: one frozen schema, one default in one place, unknown keys refused. Units stand in the names."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from genome import bases, files, trigger_settings
from genome.errors import Conflict, InvalidConfig
from genome.layout import Home, check_name
from genome.quality import Bar
from genome.training import TrainingSettings
from genome.trigger_settings import Section, Triggers


class Worker(Section):
    """The inference worker, `genome worker`."""

    base: str = ""
    """A copy of the base in another precision, to serve with; empty: the base itself."""
    engine: Literal["auto", "torch", "mlx"] = "auto"
    """auto: mlx on Apple silicon where mlx-lm is installed, torch elsewhere."""
    listen: str = ""
    """``unix:/path`` or ``host:port`` on the loopback; empty: run/worker.sock in the home."""
    device: str = "auto"
    """auto, cpu, cuda, mps; with mlx: auto, cpu, gpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on an accelerator and on a CPU with instructions for it, else float32."""
    threads: int = Field(1, ge=1)
    """CPU threads of the engine."""
    max_rows: int = Field(16, ge=1)
    """Requests that are decoded together."""
    max_queue: int = Field(256, ge=1)
    """Requests that wait; one more is refused with RESOURCE_EXHAUSTED."""
    context_tokens: int = Field(0, ge=0)
    """Longest prompt and reply together; 0: what the base was made for, at most 4096."""
    max_reply_tokens: int = Field(256, ge=1)
    """Where a request sets no limit."""
    adapter_grace_seconds: float = Field(30.0, ge=0)
    """How long an unloaded adapter stays in memory after its last request."""
    adapter_memory_mb: int = Field(1024, ge=0)
    """Of all adapters together; 0: no limit."""
    prefix_cache_mb: int = Field(256, ge=0)
    """Of what beginnings of prompts left, kept for later ones; 0: none is kept."""
    shutdown_seconds: float = Field(20.0, ge=0)
    """How long running requests may take to end after SIGTERM."""
    adapter_roots: tuple[str, ...] = ()
    """Directories adapters may be loaded from, besides the home's adapters/."""


class Daemon(Section):
    """The supervisor, `genome daemon`."""

    listen: str = ""
    """``unix:/path`` or ``host:port`` on the loopback; empty: run/daemon.sock in the home."""
    shutdown_seconds: float = Field(30.0, ge=0)
    """How long a trainer may take to leave a checkpoint after SIGTERM."""
    backoff_seconds: float = Field(0.5, gt=0)
    """First wait after a failure; doubles up to ``max_backoff_seconds``."""
    max_backoff_seconds: float = Field(60.0, gt=0)


class Intake(Section):
    """What is taken from the inbox."""

    default_persona: str = ""
    """For lines that name none and lie in no persona's directory; empty: such lines are rejected."""
    default_domain: str = "general"
    max_line_bytes: int = Field(1 << 20, ge=256)
    settle_seconds: float = Field(2.0, ge=0)
    """A last line without newline is taken once its file has not changed for so long."""
    inbox_retention_hours: float = Field(24.0, ge=0)
    """A file taken in whole is removed when it has not changed for so long."""
    max_waiting_mb: int = Field(2048, ge=0)
    """Of signals that are pending or queued: with more, intake stops until batches were trained. 0: no limit."""
    min_free_mb: int = Field(64, ge=0)
    """Of the disk: with less, intake stops until there is more."""


class Training(Section, TrainingSettings):
    """`genome.training.TrainingSettings`, and which trainer."""

    base: str = ""
    """A copy of the base in another precision, to train on; empty: the base itself."""
    learning_rate: float = Field(0.0, ge=0)
    """Peak, as in every setting of a training. 0: what suits the base's width."""
    trainer: str = "auto"
    """auto, torch, mlx, unsloth, fireworks, command."""
    command: tuple[str, ...] = ()
    """With ``trainer = "command"``: program and arguments; the job's and the checkpoints' directory are appended."""
    replay_fraction: float = Field(0.5, ge=0)
    """Signals of earlier batches that are trained again beside a new one, ÷ the new batch's."""
    replay_half_life_days: float = Field(365.0, gt=0)
    """A signal so much older than another is half as likely to be replayed."""
    rehearsal: int = Field(200, ge=0)
    """Answers of what serves that hold the next training to it; made while the worker is idle. 0: none."""
    taught_anchors: int = Field(300, ge=0)
    """Signals that earlier batches of the persona taught, at which a new adapter is held to what serves."""
    max_starts: int = Field(3, ge=1)
    """Trainer processes started for one job before it counts as failed."""
    heartbeat_seconds: float = Field(600.0, gt=0)
    """A trainer that says nothing for so long is stopped."""
    max_jobs: int = Field(1, ge=1)
    """Jobs that train at the same time."""
    min_free_mb: int = Field(512, ge=0)
    """Of memory: no job starts that would leave less, and with less one that runs is stopped at a checkpoint."""
    memory_check_seconds: float = Field(5.0, gt=0)
    """From one look at the memory to the next, while a job runs or waits for it."""

    def settings(self, base: Path) -> TrainingSettings:
        """For a base: its directory."""
        stated = {name: getattr(self, name) for name in TrainingSettings.model_fields}
        return TrainingSettings(**{**stated, "learning_rate": self.learning_rate or bases.learning_rate(base)})


FIRST_TRY, LATER_TRIES = 0.7, 0.1
"""Shares of the error that is allowed in saying that something was learned: of the first try, and of all rungs of the
ladder together. What is left is kept back: in its tails the bootstrap is a little too sure of itself."""


class Rung(Section):
    """What differs when a refused batch is tried again."""

    fresh: bool = False
    """Begin anew on all that earlier batches taught, instead of going on from what serves."""
    learning_rate: float = Field(1.0, gt=0)
    """× training.learning_rate."""
    epochs: float = Field(1.0, gt=0)
    """× training.epochs."""
    replay: float = Field(1.0, ge=0)
    """× training.replay_fraction."""
    anchors: float = Field(1.0, ge=0)
    """× training.anchor_weight."""


class Gate(Section):
    """What a candidate must show before it serves."""

    held_out_fraction: float = Field(0.3, gt=0, lt=1)
    """Largest part of a batch that is kept from training to judge by; it is trained with the next one."""
    expected_gain: float = Field(0.25, gt=0)
    """Nats a token by which the contrast should rise: as many questions are held out as tell that from nothing …"""
    power: float = Field(0.8, gt=0.5, lt=1)
    """… with this probability."""
    min_held_out: int = Field(8, ge=2)
    """With fewer there is not enough evidence: no batch is formed, or its candidate is refused."""
    contrast_answers: int = Field(8, ge=1)
    """Answers of other questions each held-out question is scored against."""
    min_retention: float = Field(0.95, gt=0, le=1)
    """Of what the incumbent knew, and of what the best version so far knew, on every old set."""
    min_quality: float = Field(0.0, ge=0, le=1)
    """Absolute: share of right tokens on the held-out questions. 0: no floor."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the paired bootstrap's one-sided bounds."""
    undecided: Literal["wait", "promote", "refuse"] = "wait"
    """When nothing failed and something was not shown. wait: the signals wait for more of them."""
    recall_examples: int = Field(200, ge=0)
    """Questions of what earlier batches taught that are asked again, for each domain of the persona."""
    golden_measure: str = "token_accuracy"
    """Of golden questions that name none; docs/gate.md lists them."""
    anchors: int = Field(900, ge=0)
    """Prompts and answers sampled from the base; a third judge, the others may anchor training."""
    anchor_tokens: int = Field(48, ge=1)
    """Longest prompt, and longest answer, of an anchor."""
    ladder: tuple[Rung, ...] = (Rung(learning_rate=0.5, replay=2.0), Rung(fresh=True, learning_rate=0.5, anchors=3.0))
    """How a refused batch is tried again, one after the other, before it is set aside."""

    def bar(self, attempt: int = 1) -> Bar:
        """What the candidate of a batch's so-manieth try must show.

        A batch that teaches nothing has as many chances as tries, so the tries share one rate of error: the first has
        most of it.
        """
        error = 1 - self.confidence
        if self.ladder:
            error *= FIRST_TRY if attempt == 1 else LATER_TRIES / len(self.ladder)
        return Bar(self.confidence, self.min_retention, self.expected_gain, self.power, 1 - error)


class Endpoint(Section):
    """A language model behind an OpenAI-compatible ``/v1/chat/completions``. Nothing needs one."""

    url: str = ""
    """``https://host/v1``; empty: there is none, and nothing leaves this machine."""
    model: str = ""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty, or not set: none is sent."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Of one try."""
    max_retries: int = Field(4, ge=0)
    """After timeouts, lost connections, 429 and 5xx."""

    @model_validator(mode="after")
    def _complete(self) -> Endpoint:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url begins with http:// or https://")
        if self.url and not self.model:
            raise ValueError("a url needs a model")
        return self


class Fireworks(Section):
    """The account at Fireworks AI that trains with ``trainer = "fireworks"`` (docs/fireworks.md)."""

    url: str = "https://api.fireworks.ai/v1"
    account: str = ""
    """The account's id, as in ``accounts/<id>``."""
    base_model: str = ""
    """``accounts/fireworks/models/<id>``: the same weights as ``base``."""
    key_env: str = "FIREWORKS_API_KEY"
    """Environment variable that holds the key."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Of connecting, and of each piece read or written."""
    max_retries: int = Field(6, ge=0)
    """After timeouts, lost connections, 429 and 5xx."""
    poll_seconds: float = Field(20.0, gt=0)
    """Between looks at a job that trains."""
    keep_dataset: bool = False
    """Whether what was uploaded stays there when the job has ended."""

    @field_validator("url")
    @classmethod
    def _addressed(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("begins with http:// or https://")
        return url.rstrip("/")

    def lacking(self) -> str:
        """A key that is empty, and without which nothing can be trained."""
        return next((name for name in ("account", "base_model") if not getattr(self, name)), "")


class Feedback(Section):
    """What is made of feedback on the version that serves (docs/feedback.md)."""

    metric: str = "user_satisfaction"
    """By which versions are compared: from 0 to 1, greater is better."""
    false_alarm_rate: float = Field(0.01, gt=0, le=0.5)
    """Largest probability that a version which is no worse than its predecessor is ever taken for worse."""
    days: float = Field(30.0, gt=0)
    """How long a version is compared, and how old its predecessor's samples may be when it begins."""
    min_samples: int = Field(20, ge=1)
    """Of the new version, before anything is concluded."""
    automatic_rollback: bool = True
    """false: what is worse is told, and serves on."""


class Canary(Section):
    """Whether a promotion goes to a share of the sessions first."""

    share: float = Field(0.0, ge=0, lt=1)
    """Of the persona's sessions; 0: to all at once."""
    margin: float = Field(0.05, gt=0, lt=1)
    """It goes to all once it is shown to be worse by less than this."""
    min_samples: int = Field(50, ge=1)
    """Of the canary, before anything is concluded."""
    max_hours: float = Field(72.0, gt=0)
    """If nothing was shown by then …"""
    at_last: Literal["graduate", "roll_back"] = "graduate"
    """… it goes to all, or back."""


class Prune(Section):
    """What is kept, and for how long. Signals are kept for ever, and so is what a rollback needs."""

    compress_archive_days: float = Field(7.0, ge=0)
    """Segments of ended batches are compressed so long after their batch was formed."""
    job_examples_days: float = Field(14.0, ge=0)
    """train.jsonl of jobs that were promoted or refused; the batch's signals stay."""
    completed_jobs_days: float = Field(90.0, ge=0)
    """Jobs that ended, but for failed ones whose batch still waits."""
    checkpoints_days: float = Field(30.0, ge=0)
    """Of jobs that failed and may be tried again."""
    adapters_kept: int = Field(10, ge=1)
    """Newest versions of each domain."""
    rollback_days: float = Field(30.0, ge=0)
    """Older versions stay while they were served, or made, so recently."""


class Alerts(Section):
    """Who is told when something is wrong. The log always is."""

    webhook_url: str = ""
    """http or https; empty: none."""
    webhook_secret_env: str = "GENOME_WEBHOOK_SECRET"
    """Environment variable that holds the key messages are signed with; empty: they are not signed."""
    webhook_seconds: float = Field(10.0, gt=0)
    """How long one request may take."""
    command: tuple[str, ...] = ()
    """Program and arguments, run without a shell with the message on its standard input; empty: none."""
    command_seconds: float = Field(30.0, gt=0)
    """A command that takes longer is stopped and tried again."""
    journal: Literal["auto", "on", "off"] = "auto"
    """systemd's; auto: where its socket is there."""
    patience_seconds: float = Field(120.0, ge=0)
    """A worker that is away is told of when it has been for so long."""
    settle_minutes: float = Field(10.0, ge=0)
    """The end of what comes and goes (loops, intake, worker, quality) is told when it has held for so long."""
    give_up_hours: float = Field(24.0, ge=0)
    """A message a sink did not take for so long is dropped for it, and that is logged."""

    @field_validator("webhook_url")
    @classmethod
    def _addressed(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and not (parts.scheme in ("http", "https") and parts.hostname and parts.port != 0):
            raise ValueError("must be http://host/… or https://host/…")
        return url


class Domain(Section):
    """What differs for one domain of a persona."""

    triggers: Triggers | None = None


class Persona(Section):
    """What differs for one persona. Its tables state only that; what they leave out is as it is for everybody."""

    triggers: Triggers | None = None
    domains: dict[str, Domain] = Field(default_factory=dict)

    @field_validator("domains")
    @classmethod
    def _named(cls, domains: dict[str, Domain]) -> dict[str, Domain]:
        return {check_name(name, "domain"): settings for name, settings in domains.items()}


class Config(Section):
    base: str
    """Directory of the base model, or a hub id."""
    worker: Worker = Worker()
    daemon: Daemon = Daemon()
    intake: Intake = Intake()
    triggers: Triggers = Triggers()
    training: Training = Training()
    gate: Gate = Gate()
    feedback: Feedback = Feedback()
    canary: Canary = Canary()
    prune: Prune = Prune()
    endpoint: Endpoint = Endpoint()
    fireworks: Fireworks = Fireworks()
    alerts: Alerts = Alerts()
    personas: dict[str, Persona] = Field(default_factory=dict)

    def triggers_for(self, persona: str, domain: str = "") -> Triggers:
        """What counts for a domain: its own, else its persona's, else everybody's; for a persona without ``domain``."""
        settings = self.personas.get(persona, Persona())
        own = settings.domains.get(domain, Domain()).triggers
        return own or settings.triggers or self.triggers

    @property
    def longest_window_days(self) -> float:
        """Of the samples that any quality_drop looks at."""
        personas = [(each.triggers, *(domain.triggers for domain in each.domains.values())) for each in
                    self.personas.values()]  # fmt: skip
        drops = [each.quality_drop for own in ((self.triggers,), *personas) for each in own if each]
        return max((drop.window_hours / 24 for drop in drops if drop), default=0.0)

    @model_validator(mode="before")
    @classmethod
    def _overridden(cls, given: Any) -> Any:
        return trigger_settings.spread(given)

    @model_validator(mode="after")
    def _trainable(self) -> Config:
        if self.training.trainer == "fireworks":
            if lacking := self.fireworks.lacking():
                raise ValueError(f'training.trainer = "fireworks" needs fireworks.{lacking}')
            if self.fireworks.poll_seconds >= self.training.heartbeat_seconds:
                raise ValueError("fireworks.poll_seconds must be below training.heartbeat_seconds")
        return self

    @field_validator("personas")
    @classmethod
    def _named(cls, personas: dict[str, Persona]) -> dict[str, Persona]:
        return {check_name(name, "persona"): settings for name, settings in personas.items()}


def load(home: Home) -> Config:
    """Reads and checks a home's genome.toml."""
    path = home.config
    try:
        return parse(path.read_text(), path)
    except FileNotFoundError:
        raise InvalidConfig(f"{path} does not exist", f"Run: genome init --home {home.root} --base MODEL") from None


def init(home: Home, base: str) -> None:
    """Makes a home with a genome.toml in which every default stands as a comment. One that is there is not touched."""
    bases.resolve(base)
    for directory in (home.inbox, home.rejected, home.adapters, home.jobs):
        files.make_directory(directory)
    if not files.create(home.config, template(base).encode()):
        raise Conflict(f"{home.config} exists already", "Edit it, or choose another --home")


def template(base: str) -> str:
    """A genome.toml: the base, and every other key commented out with its default."""
    lines = [
        "# Every key with its default; docs/configuration.md tells what each does.",
        "",
        f"base = {json.dumps(base)}",
    ]
    for name, section in Config(base=base):
        if isinstance(section, Section):
            lines += ["", f"# [{name}]", *_commented(section, name)]
    return "\n".join(lines) + "\n"


def _commented(section: Section, path: str) -> list[str]:
    lines, tables = [], []
    for key, value in section:
        if isinstance(value, Section):
            tables += [f"# [{path}.{key}]", *_commented(value, f"{path}.{key}")]
        else:
            lines.append(f"# {key} = {toml(value)}")
    return lines + tables


def toml(value: Any) -> str:
    """As it is written in genome.toml. Numbers, strings and lists of them read the same in JSON; it knows no null, and
    a table that is not there is false."""
    if isinstance(value, tuple) and value and isinstance(value[0], Section):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Section):
        stated = value.model_dump(exclude_defaults=True)
        return "{ " + ", ".join(f"{key} = {json.dumps(each)}" for key, each in stated.items()) + " }"
    return json.dumps(False if value is None else value)


def parse(text: str, path: Path) -> Config:
    try:
        return Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise InvalidConfig(f"{path}: {'; '.join(_complaint(item) for item in error.errors())}") from error


RENAMED = {"training.neighbour_anchors": "training.taught_anchors"}
"""Keys of earlier versions, and what they are called now."""


def _complaint(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden" and key in RENAMED:
        return f"{key} is now called {RENAMED[key]}"
    if item["type"] == "extra_forbidden":
        return f"{key} is no key of genome.toml (docs/configuration.md lists them)"
    if item["type"] == "value_error":  # ours, which quotes what was given
        return f"{key}: {item['ctx']['error']}".removeprefix(": ")  # what two sections say together has no key
    return f"{key}: {item['msg']}, not {item['input']!r}"
