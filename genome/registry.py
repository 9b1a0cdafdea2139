"""The registry: numbered promotion records, one series a persona. The newest says what should be served.

    adapters/<persona>/promotions/000007.json

Pointer, history and way back in one: a rollback is a further record. Numbers are taken with an exclusive create, so
two writers cannot both have one. What the records mean is said in `genome.promotions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from genome import adapters, files, promotions
from genome.adapters import AdapterId
from genome.errors import Conflict, Damaged, NotFound
from genome.layout import NAME, Home
from genome.promotions import Kind, Promotion, Stack, StackEntry, Variants, with_adapter
from genome.training import Job

GATE, FEEDBACK = "gate", "feedback"
"""Who acts by itself; everybody else is a person or a program."""


def newest(home: Home) -> list[Promotion]:
    """The newest promotion of every persona that has one."""
    found = []
    for owner in sorted(home.adapters.iterdir()) if home.adapters.is_dir() else []:
        if NAME.fullmatch(owner.name) and (promotion := current(home, owner.name)):
            found.append(promotion)
    return found


def current(home: Home, persona: str) -> Promotion | None:
    numbered = _records(home, persona)
    return Promotion.read(numbered[-1]) if numbered else None


def history(home: Home, persona: str) -> list[Promotion]:
    """Oldest first."""
    return [Promotion.read(path) for path in _records(home, persona)]


def stack_of(home: Home, persona: str) -> Stack:
    """What should be served now; while a canary is under way, to the sessions that are not in it."""
    promotion = current(home, persona)
    return others(home, promotion) if promotion and promotion.is_canary else promotion.stack if promotion else ()


def others(home: Home, canary: Promotion) -> Stack:
    """What the sessions get that are not in a canary. Raises Damaged if the record that says so is not there."""
    path = _path(home, canary.persona, canary.builds_on)
    try:
        return Promotion.read(path).stack if canary.builds_on else ()
    except FileNotFoundError:
        raise Damaged(f"{path} is not there, which promotion {canary.number} builds on") from None


def routes(home: Home, promotion: Promotion) -> dict[str, Variants]:
    """Route name → variants, as `promotions.routes` has them."""
    return promotions.routes(promotion, others(home, promotion) if promotion.is_canary else ())


def served(home: Home, promotion: Promotion) -> dict[str, StackEntry]:
    """By id: every adapter that some session should get by this record, a canary's others included."""
    stacks = (promotion.stack, others(home, promotion) if promotion.is_canary else ())
    return {entry.adapter: entry for stack in stacks for entry in stack}


def promoted(home: Home, job: Job) -> bool:
    """Whether the candidate of a job was promoted, whatever came after."""
    return any(promotion.job == job.id for promotion in history(home, job.persona))


def pinned(home: Home, persona: str) -> bool:
    """Whether only a person changes what this persona is served with."""
    promotion = current(home, persona)
    return promotion is not None and promotion.pinned


def canary(home: Home, persona: str) -> Promotion | None:
    """The canary that is under way."""
    promotion = current(home, persona)
    return promotion if promotion and promotion.is_canary else None


def promote(
    home: Home,
    adapter_id: str,
    now: float,
    reason: str,
    job: str,
    numbers: Mapping[str, float] | None = None,
    share: float = 1.0,
) -> Promotion:
    """Serves a candidate from now on: to all, or as a canary to a ``share`` of the sessions.

    Doing it again for the same job changes nothing. Raises Conflict while the persona is pinned or a canary is under
    way: two at once could not be told apart.
    """
    persona = AdapterId.parse(adapter_id).persona
    past = history(home, persona)
    for promotion in reversed(past):
        if promotion.job == job:
            return promotion
    _check_free(past)
    _check_good(past, adapter_id)
    if past and past[-1].is_canary:
        raise Conflict(
            f"promotion {past[-1].number} of {persona} is a canary and not settled yet",
            "It ends by itself; genome adapter history shows it, genome adapter rollback ends it now",
        )
    made = Promotion(
        number=0, persona=persona, kind="canary" if share < 1 else "promote", stack=(), builds_on=0, reason=reason,
        job=job, by=GATE, numbers=dict(numbers or {}), share=share, created=int(now * 1000),
    )  # fmt: skip
    return _put(home, past, adapter_id, made)


def graduate(
    home: Home, persona: str, now: float, reason: str, numbers: Mapping[str, float] | None = None
) -> Promotion:
    """Serves a canary to every session from now on. Raises Conflict while the persona is pinned."""
    past = history(home, persona)
    if not past or not past[-1].is_canary:
        raise Conflict(f"{persona} has no canary under way")
    _check_free(past)
    return _append(home, past, past[-1].model_copy(update={
        "kind": "promote", "reason": reason, "by": FEEDBACK, "numbers": dict(numbers or {}), "share": 1.0,
        "quarantined": (), "created": int(now * 1000),
    }))  # fmt: skip


def deploy(home: Home, adapter_id: str, now: float, reason: str, by: str = "", force: bool = False) -> Promotion:
    """Serves an adapter that exists, by hand. ``force``: also one that was withdrawn, which counts as good then."""
    persona = AdapterId.parse(adapter_id).persona
    past = history(home, persona)
    if past and not past[-1].is_canary and adapter_id in past[-1].adapters:
        raise Conflict(f"{adapter_id} is what {persona} is served with already", "genome adapter list shows the stack")
    if not force:
        _check_good(past, adapter_id)
    made = _by_hand(persona, "deploy", now, reason, by)
    return _put(home, past, adapter_id, made)


def roll_back(home: Home, persona: str, now: float, reason: str, to: str | None = None, by: str = "") -> Promotion:
    """Serves what was served before the current record, or the version ``to`` of one domain.

    What was withdrawn is passed over on the way back.
    """
    past = history(home, persona)
    if not past:
        raise NotFound(f"{persona} was never served with an adapter", "There is nothing to go back from")
    drafted = _by_hand(persona, "rollback", now, reason, by)
    if to is not None:
        if AdapterId.parse(to).persona != persona:
            raise Conflict(f"{to} is no adapter of {persona}")
        _check_good(past, to)
        return _put(home, past, to, drafted)
    if not past[-1].stack and past[-1].builds_on == 0:
        raise Conflict(f"{persona} is served with the base alone", "There is nothing to go back to")
    target = promotions.way_back(past)
    return _return(home, past, drafted.model_copy(update={"stack": target.stack if target else ()}), target)


def withdraw(
    home: Home, adapter_id: str, now: float, reason: str, numbers: Mapping[str, float] | None = None
) -> Promotion:
    """Takes one version out of service for good, because feedback says it is worse; its predecessor serves again.

    Other domains stay as they are, and so does another domain's canary that is under way. Raises Conflict while the
    persona is pinned.
    """
    persona = AdapterId.parse(adapter_id).persona
    past = history(home, persona)
    if not past or adapter_id not in served(home, past[-1]):
        raise Conflict(f"{adapter_id} is not what {persona} is served with", "genome adapter list shows the stack")
    _check_free(past)
    chain = promotions.chain_of(past, adapter_id)
    on_trial = past[-1] if chain[-1] != past[-1] else None
    before = promotions.predecessor(chain, adapter_id)
    stack = _replaced(chain[-1].stack, adapter_id, before)
    made = Promotion(
        number=0, persona=persona, kind="rollback", stack=stack, builds_on=0, reason=reason, by=FEEDBACK,
        numbers=dict(numbers or {}), quarantined=(adapter_id,), created=int(now * 1000),
    )  # fmt: skip
    made = _return(home, past, made, promotions.way_back(chain, adapter_id))
    if on_trial is not None:
        kept = {"stack": _replaced(on_trial.stack, adapter_id, before), "builds_on": made.number}
        _append(home, [*past, made], on_trial.model_copy(update=kept | {"created": made.created}))
    return made


def pin(home: Home, persona: str, now: float, reason: str, by: str = "", on: bool = True) -> Promotion:
    """From now on only a person changes what this persona is served with; ``on`` False lets it change again."""
    past = history(home, persona)
    if not past:
        raise NotFound(f"{persona} was never served with an adapter", "There is nothing to pin")
    if past[-1].pinned == on:
        raise Conflict(f"{persona} is {'pinned already' if on else 'not pinned'}")
    return _append(home, past, past[-1].model_copy(update={
        "kind": "pin" if on else "unpin", "reason": reason, "by": by, "job": None, "numbers": {}, "pinned": on,
        "quarantined": (), "created": int(now * 1000),
    }))  # fmt: skip


def _by_hand(persona: str, kind: Kind, now: float, reason: str, by: str) -> Promotion:
    """A record without its stack."""
    return Promotion(
        number=0, persona=persona, kind=kind, stack=(), builds_on=0, reason=reason, by=by, created=int(now * 1000)
    )


def _check_free(past: Sequence[Promotion]) -> None:
    """Raises Conflict if only a person may change what is served."""
    if past and past[-1].pinned:
        persona = past[-1].persona
        raise Conflict(f"{persona} is pinned", f"Let it change again with: genome adapter unpin --persona {persona}")


def _check_good(past: Sequence[Promotion], adapter_id: str) -> None:
    """Raises Conflict if a version was withdrawn."""
    if adapter_id in promotions.quarantined(past):
        why = next(record.reason for record in reversed(past) if adapter_id in record.quarantined)
        raise Conflict(
            f"{adapter_id} was withdrawn: {why}", f"Serve it all the same: genome adapter deploy {adapter_id} --force"
        )


def _check_there(home: Home, persona: str, stack: Stack, where: str) -> None:
    """Raises Conflict if an old version was pruned since: then nothing could serve that stack."""
    for entry in stack:
        if not (home.adapter(entry.adapter) / "manifest.json").exists():
            raise Conflict(
                f"{where} of {persona} cannot be returned to: {entry.adapter} is not there",
                "genome adapter list shows what is; deploy one of those",
            )


def _replaced(stack: Stack, adapter_id: str, entry: StackEntry | None) -> Stack:
    """``stack`` with ``entry``, or nothing, in the place of one version."""
    found = [entry if old.adapter == adapter_id else old for old in stack]
    return tuple(each for each in found if each is not None)


def _return(home: Home, past: Sequence[Promotion], made: Promotion, target: Promotion | None) -> Promotion:
    """Appends a way back. A rollback of it goes on from ``target``, or to it where only a part of it serves again."""
    _check_there(home, made.persona, made.stack, f"promotion {target.number}" if target else "the version before")
    stack, number, below = (target.stack, target.number, target.builds_on) if target else ((), 0, 0)
    return _append(home, past, made.model_copy(update={"builds_on": below if made.stack == stack else number}))


def _put(home: Home, past: Sequence[Promotion], adapter_id: str, drafted: Promotion) -> Promotion:
    """Appends ``drafted`` with the stack of the sessions that are in no canary, and one adapter in its place."""
    manifest = adapters.manifest(home, adapter_id)
    if AdapterId.parse(adapter_id).persona == "shared":
        raise Conflict(
            f"{adapter_id} is shared", "By itself it serves nobody; stacking shared adapters is not built yet"
        )
    before = promotions.settled(past)
    stack = with_adapter(before.stack if before else (), StackEntry(adapter=adapter_id, digest=manifest.digest))
    placed = {"stack": stack, "builds_on": before.number if before else 0}
    return _append(home, past, drafted.model_copy(update=placed))


def _append(home: Home, past: Sequence[Promotion], drafted: Promotion) -> Promotion:
    """Gives ``drafted`` the next number and writes it. A persona that is pinned stays so."""
    carried = drafted.pinned if drafted.kind in ("pin", "unpin") or not past else past[-1].pinned
    number = (past[-1].number if past else 0) + 1
    record = drafted.model_copy(update={"number": number, "pinned": carried})
    if not files.create(_path(home, record.persona, record.number), record.to_bytes()):
        raise Conflict(f"promotion {record.number} of {record.persona} was made by someone else just now", "Try again")
    return record


def _path(home: Home, persona: str, number: int) -> Path:
    return home.promotions(persona) / f"{number:06d}.json"


def _records(home: Home, persona: str) -> list[Path]:
    directory = home.promotions(persona)
    return sorted(directory.glob("[0-9]*.json")) if directory.is_dir() else []
