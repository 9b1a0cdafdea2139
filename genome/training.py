"""What a trainer is told and what it says: the order of a job, the lines of its train.jsonl, and its events.

`genome.jobs` has how these lie on disk, docs/trainers.md what a trainer promises.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genome.bases import Described
from genome.records import Record

Objective = Literal["sft", "dpo", "sft+dpo"]
"""How a signal with a wrong answer is learned: by cross-entropy of the right one, by preference of the right over the
wrong (DPO, arXiv:2305.18290), or by both. One without a wrong answer is always learned by cross-entropy."""
ENDED = "ended.json"
"""Name of a file that a trainer leaves in the checkpoint directory where starting it again would be in vain, or be
paid; `genome.jobs.retry` removes it."""
EXIT_STOPPED = 75
"""Exit status of a trainer that was told to stop and left a checkpoint to go on from (sysexits' EX_TEMPFAIL)."""


class TrainingSettings(BaseModel):
    """How a LoRA is trained; the same words for every trainer. docs/performance.md has what the defaults rest on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(64, ge=1, le=1024)
    """r of the factors A [r, in] and B [out, r], on every linear layer of the decoder."""
    alpha: float = Field(64.0, gt=0)
    """The update is alpha / rank · B A."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak, reached after the warm-up, then cosine down to ``min_rate_fraction`` of it."""
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    """Of all steps."""
    min_rate_fraction: float = Field(0.3, ge=0, le=1)
    average_fraction: float = Field(0.13, ge=0, le=1)
    """Of all steps: what is kept is an average of the weights that looks back about so far, exponentially (Polyak &
    Juditsky 1992). Steps that stay large find more, and their average wavers less than any of them. 0: the last
    step's."""
    epochs: float = Field(12.0, gt=0)
    """Passes over the signals."""
    batch_size: int = Field(16, ge=1)
    """Signals a step. Anchors come on top, spread evenly over the steps."""
    max_tokens: int = Field(1024, ge=16)
    """Longest example, in tokens; a longer one loses the beginning of its prompt, never its response."""
    objective: Literal["auto", "sft", "dpo", "sft+dpo"] = "auto"
    """auto: sft+dpo where at least ``min_pairs`` signals say what was wrong, else sft."""
    min_pairs: int = Field(50, ge=1)
    preference_beta: float = Field(0.1, gt=0)
    """DPO's β: how far from the model it began with a preference may lead."""
    preference_weight: float = Field(1.0, ge=0)
    """Weight of the preference, against the signals' cross-entropy."""
    anchor_weight: float = Field(35.0, ge=0)
    """Weight of the anchors' KL divergence to their teacher, against the signals' cross-entropy. Each teacher's, where
    there are two, have the whole of it. 0: no anchors."""
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The base is computed in; the LoRA is float32 always. auto: float32 where
    the base is stored so, else bfloat16 where the hardware computes in it."""
    threads: int = Field(1, ge=1)
    """CPU threads of the trainer. Two on a machine that serves collapse both."""
    checkpoint_steps: int = Field(50, ge=1)
    """Steps between checkpoints; one is also made on SIGTERM."""
    validation_fraction: float = Field(0.0, ge=0, le=0.5)
    """Of a batch's own signals: never trained on, the loss on them says which weights of the run are its best."""
    patience: int = Field(0, ge=0)
    """Measurements of that loss in a row without a better one that end the run. 0: it is never ended by that."""


class Beside(BaseModel):
    """An adapter that serves in the same stack."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str
    path: str
    """Its PEFT directory."""
    scale: float = 1.0


class Job(Record):
    """The order a trainer gets, as job.json."""

    id: str
    persona: str
    domain: str
    batch: str
    attempt: int = 1
    """Above 1: the batch was refused before, and is tried with other settings."""
    part: tuple[str, ...] = ()
    """Ids of the signals that a poison search trains alone; its candidate is judged and never promoted."""
    replaces: str | None = None
    """The domain's version that served when the job was ordered; if another serves by now, it is ordered again."""
    trainer: str
    base: str
    """Directory of the model that is trained on: the base, or a copy of it that training.base names."""
    base_fingerprint: str
    """Of the base the adapter is made for."""
    copy_of: str | None = None
    """The base's directory, where ``base`` is a copy."""
    trained_on: Described | None = None
    """What ``base`` holds."""
    parent: str | None = None
    """Adapter id the training goes on from; None begins anew."""
    parent_path: str | None = None
    """The parent's PEFT directory."""
    beside: tuple[Beside, ...] = ()
    """Adapters of the persona's other domains: applied while this one is trained, as they are when it serves."""
    settings: TrainingSettings
    created: int
    """Milliseconds since 1970."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the adapters it is trained with: the parent, and those beside it."""
        return (*((self.parent,) if self.parent else ()), *(each.adapter for each in self.beside))


class Example(BaseModel):
    """One line of train.jsonl. The last message is the response: loss is taken on it and its end of sequence alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    messages: list[dict[str, str]] = []
    """Chat turns {role, content}; rendered by the base's chat template."""
    prompt: str | None = None
    """Instead of messages: text taken as it is (an anchor sampled from the base), answered by ``response``."""
    response: str | None = None
    weight: float = Field(1.0, gt=0)
    """Multiplies the loss of the example's every response token: the same gradient as that many copies of it."""
    anchor: bool = False
    """An answer of a model, or one that was taught: pulls towards its teacher's distribution (KL), not to the text."""
    teacher: Literal["base", "parent"] = "base"
    """Of an anchor, whose distribution it is held to. base: the bare model's. parent: that of what serves, the job's
    parent and the adapters beside it."""
    rejected: str | None = None
    """The answer that was corrected: the worse of a preference pair whose better is the response."""
    validation: bool = False
    """Never trained on: the loss is measured on it. Not together with ``anchor``."""

    @model_validator(mode="after")
    def _one_part(self) -> Example:
        if self.anchor and self.validation:
            raise ValueError("an example cannot be both anchor and validation")
        return self


class Event(BaseModel):
    """One line a trainer prints, and one line of events.jsonl. Unknown keys are kept: trainers may say more."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)  # JSON has no word for those

    event: Literal["waiting", "started", "progress", "checkpoint", "stopped", "finished", "failed"]
    """waiting: it may run and does not yet, see reason (runner). started: a process began (runner). progress: a step
    was made, or part of what the run is compared with was measured. checkpoint: it can go on from here. stopped: it was
    asked to stop and can go on. finished: the adapter lies in ``checkpoints/<job>/adapter``. failed: see reason; also
    of a process that ended without a word (runner)."""
    time: float = Field(default_factory=time.time)
    """Seconds since 1970."""
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    """Mean cross-entropy of response tokens in nats, weighted, of this step."""
    losses: list[float] | None = None
    """The same of every step since the last event with any; the last is ``loss``."""
    learning_rate: float | None = None
    validation_loss: float | None = None
    """As measured after this step, on the examples that are never trained on."""
    best_validation_loss: float | None = None
    best_step: int | None = None
    """The step after which it was measured; the run ends with the weights it had then."""
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    memory_mb: float | None = None
    """Resident memory of the trainer at its highest."""
    reason: str | None = None


def objective(settings: TrainingSettings, examples: Sequence[Example]) -> Objective:
    """What ``settings`` mean for these examples: auto learns from pairs where there are enough of them."""
    if settings.objective != "auto":
        return settings.objective
    pairs = sum(example.rejected is not None and not example.validation for example in examples)
    return "sft+dpo" if pairs >= settings.min_pairs else "sft"
