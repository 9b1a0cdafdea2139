"""The training buffer: what was accepted, what was refused, and how far each dropped file was read.

Chunks of lines are committed together: accepted signals are appended and synced, persona by persona, each with the
offset it had and the offset its chunk began at; then the refused lines. A crash between two of those appends is healed
by reading again from the newest chunk's beginning: what is there already is known by its id or its offset. The same is
done after an error, when nobody can say what of the last append is on disk.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from genome import batches, files, intake, ledger, rejected, segments
from genome.config import Intake
from genome.errors import Busy, InvalidInput
from genome.intake import BYTE_ORDER_MARK, NOTHING, RETRY_SECONDS, Chunk, Taken
from genome.layout import Home
from genome.ledger import Ledger, Mark, Marks, key
from genome.lines import Line, Reader
from genome.pending import waiting_bytes
from genome.rejected import Rejected
from genome.segments import Origin, Stored
from genome.signals import METRIC, Defaults

MAX_OPEN_SEGMENTS = 32
"""Of as many domains the newest segment is kept open."""


class BufferFull(Busy):
    """Intake stops until batches were trained, or the disk has room again. What was accepted is safe."""


@dataclass(frozen=True)
class Receipt:
    """What became of some lines."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    new: Collection[bytes] = field(default=(), compare=False, repr=False)
    """Ledger keys of the accepted."""

    def __add__(self, other: Receipt) -> Receipt:
        return Receipt(
            self.accepted + other.accepted,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
            (*self.new, *other.new),
        )


@dataclass
class Buffer:
    """The one writer of segments. `load` reads what a home holds; the supervisor keeps one for its life."""

    home: Home
    limits: Intake
    ledger: Ledger = field(init=False)
    progress: dict[str, Taken] = field(default_factory=dict)
    """By file key: where reading goes on. Files that left the inbox are forgotten."""
    _refused: set[tuple[str, int, int]] = field(default_factory=set)
    """Of chunks that may be read again, so that no line is refused twice."""
    _marks: dict[str, Mark] = field(default_factory=dict)
    _rejected_mark: Mark | None = None
    _heard: dict[str, int] = field(default_factory=dict)
    """While loading, by file key: when the newest line read so far was received."""
    _counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By key of a file a line was refused from: an offset, and which line begins there."""
    _appenders: dict[tuple[str, str], files.Appender] = field(default_factory=dict)
    _unsure: dict[Path, int] = field(default_factory=dict)
    """Segments an append to which failed, and up to where they were on disk. What lies beyond can be read, and a second
    sync would succeed, without its ever having been written."""
    _waiting_bytes: int = 0
    """Of segments no batch was promoted with. Only grows until it is counted again."""
    _reader: Reader = field(default_factory=Reader)
    stopped: str = ""
    """Why nothing is taken at the moment; empty: all is."""
    _loaded: bool = False
    _writing: threading.Lock = field(default_factory=threading.Lock)
    """Files and gRPC are taken in different threads."""

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.home)

    def load(self) -> None:
        """Reads the ledger and what the segments and the refused lines hold beyond it.

        What is found is synced before it counts: a process that was killed between writing and syncing leaves lines
        that only look stored.
        """
        self._close()
        for path, end in list(self._unsure.items()):
            with suppress(FileNotFoundError):
                files.cut(path, end)
            del self._unsure[path]
        self._heard = {}
        self.ledger.open()
        self.progress = {known: Taken(*taken) for known, taken in self.ledger.marks.taken.items()}
        self._marks = dict(self.ledger.marks.domains)
        self._rejected_mark, self._refused = self.ledger.marks.rejected, set(self.ledger.marks.refused)
        for persona, domain in self.home.domains():
            self._load_segments(persona, domain)
        self._load_rejected()
        self._waiting_bytes = waiting_bytes(self.home)
        self._loaded = True

    def _load_segments(self, persona: str, domain: str) -> None:
        place = f"{persona}/{domain}"
        with files.locked(self.home.lock):  # nothing moves from one place to the next between looking at the two
            found = batches.all_segments(self.home, persona, domain)
        for path in sorted(found, key=lambda path: batches.order(path.name)):
            name, mark = path.name, self._marks.get(place)
            if mark is not None and batches.order(name) < batches.order(mark.segment):
                continue
            start = end = _beyond(path, mark)
            segments.sync(path)
            for position, stored in segments.scan(path, start, pass_over_damage=True):
                end = position
                self.ledger.add([_key_of(stored.signal)])
                if stored.origin is not None:
                    self._saw(stored.origin, stored.received)
            self._marks[place] = Mark(segment=name, bytes=end)
            self._flush_if_full()

    def _load_rejected(self) -> None:
        for path in rejected.days(self.home):
            mark = self._rejected_mark
            if mark is not None and path.name < mark.segment:
                continue
            start = end = _beyond(path, mark)
            files.sync_file(path)
            for position, line in rejected.scan(path, start, pass_over_damage=True):
                end = position
                self._refused.add(line.identity)
                self._saw(line.origin, line.time)
            self._rejected_mark = Mark(segment=path.name, bytes=end)

    def taken(self, file_key: str) -> Taken:
        return self.progress.get(file_key, NOTHING)

    def forget(self, file_keys: Iterable[str]) -> None:
        """Files that left the drop zone, or are to be read again: what they held is known by its id."""
        for file_key in file_keys:
            self.progress.pop(file_key, None)
            self._counted.pop(file_key, None)

    def commit(self, chunks: Sequence[Chunk], now: float) -> Receipt:
        """Stores the lines of chunks, accepted and refused, durably; then moves the offsets."""
        with self._writing:
            millis = int(now * 1000)
            accepted: list[Stored] = []
            refused: list[Rejected] = []
            begins: dict[str, Taken] = {}  # the second chunk of a file may be stored before the first
            for chunk in chunks:
                self._read(chunk, begins.setdefault(chunk.drop.key, chunk.start), millis, accepted, refused)
            receipt = self._durably(accepted, refused, now)
            for chunk in chunks:
                self.progress[chunk.drop.key] = chunk.end
            return receipt

    def accept(self, lines: Iterable[Line], now: float) -> Receipt:
        """Stores signals that came another way than by file; on disk when this returns."""
        return self.accept_together([list(lines)], now)[0]

    def accept_together(self, messages: Sequence[Sequence[Line]], now: float) -> list[Receipt]:
        """The same for several messages, synced once. A receipt for each."""
        with self._writing:
            stored = [Stored(line, int(now * 1000)) for lines in messages for line in lines]
            total = self._durably(stored, [], now)
        if not total.duplicates:
            return [Receipt(len(lines)) for lines in messages]
        left, receipts = set(total.new), []
        for lines in messages:
            keys = {_key_of(line) for line in lines}
            receipts.append(Receipt(len(keys & left), len(lines) - len(keys & left)))
            left -= keys
        return receipts

    def defaults(self, millis: int, persona: str = "", domain: str = "") -> Defaults:
        """What a line need not say, where its place says ``persona`` and ``domain``."""
        return Defaults(millis, persona or self.limits.default_persona, domain or self.limits.default_domain)

    def _read(self, chunk: Chunk, begin: Taken, millis: int, accepted: list[Stored], refused: list[Rejected]) -> None:
        """Appends what becomes of every line of ``chunk``, committed from ``begin`` on, to one of the lists."""
        drop, limit, line = chunk.drop, self.limits.max_line_bytes, self._reader.line
        file, shown, (start, check), offset = drop.key, drop.shown, begin, chunk.start.offset
        name = shown.rpartition("/")[2]
        defaults = self.defaults(millis, drop.persona, drop.domain)

        whole = not chunk.damage and len(chunk.data) == chunk.end.offset - chunk.start.offset

        def refuse(reason: str, raw: bytes, index: int) -> None:
            encoded, number = base64.b64encode(raw).decode(), self._line_number(chunk) + index
            origin = Origin(file, name, offset, start, check)
            refused.append(Rejected(reason, shown, number, origin, encoded, millis, whole))

        if chunk.damage:
            refuse(chunk.damage, chunk.data, 0)
            return
        for index, raw in enumerate(chunk.data.split(b"\n")):
            if raw:
                text = raw if offset else raw.removeprefix(BYTE_ORDER_MARK)
                try:
                    if len(raw) > limit:
                        raise InvalidInput(f"longer than the limit of {limit} bytes (intake.max_line_bytes)")
                    found = line(text, defaults)
                    if found.type == METRIC:  # it may say no time, and be like the next one in every word
                        found = line(text, replace(defaults, place=f"{file} {offset}"))
                    accepted.append(Stored(found, millis, Origin(file, name, offset, start, check)))
                except InvalidInput as error:
                    if text.strip():
                        refuse(str(error), text.removesuffix(b"\r"), index)
            offset += len(raw) + 1

    def _line_number(self, chunk: Chunk) -> int:
        """Which line of its file a chunk begins with. What was counted for the last refused line is not read again."""
        if chunk.line is not None:
            return chunk.line
        file, start = chunk.drop.key, chunk.start.offset
        known = self._counted.get(file, (0, 1))
        if known[0] != start:
            known = start, intake.line_number(chunk.drop, start, known if known[0] < start else (0, 1))
            self._counted[file] = known
        return known[1]

    def _durably(self, accepted: list[Stored], refused: list[Rejected], now: float) -> Receipt:
        try:
            with files.room(self.home.buffer):
                if not self._loaded:
                    self.load()
                self._check_room()
                self._flush_if_full()  # before anything is stored: should it fail later, nobody would hear of what was
                try:
                    receipt = self._store(accepted, now) + self._reject(refused, now)
                except BaseException:
                    self._loaded = False  # what of it is on disk? only reading tells
                    raise
        except Busy as error:
            self.stopped = str(error)
            raise
        self.stopped = ""
        return receipt

    def _store(self, stored: list[Stored], now: float) -> Receipt:
        keys = [_key_of(item.signal) for item in stored]
        known = self.ledger.known(keys)
        new = dict(zip(reversed(keys), reversed(stored), strict=True))  # of two that are alike the first stays
        for item_key in known:
            del new[item_key]
        groups: dict[tuple[str, str], list[Stored]] = {}
        for item in reversed(new.values()):
            groups.setdefault((item.signal.persona_id, item.signal.domain), []).append(item)
        for (persona, domain), items in sorted(groups.items()):
            data = segments.encode(items)
            with files.locked(self.home.lock):  # no segment is sealed between choosing it and writing to it
                appender = self._appender(persona, domain, now)
                try:
                    end = appender.append(data)
                except BaseException:
                    self._unsure[appender.path] = self._end(persona, domain, appender.path.name)
                    raise
            self._marks[f"{persona}/{domain}"] = Mark.model_construct(segment=appender.path.name, bytes=end)
            self._waiting_bytes += len(data)
        self.ledger.add(new)
        return Receipt(len(new), len(stored) - len(new), 0, new.keys())

    def _end(self, persona: str, domain: str, segment: str) -> int:
        """Up to where a segment is known to be on disk."""
        mark = self._marks.get(f"{persona}/{domain}")
        return mark.bytes if mark is not None and mark.segment == segment else 0

    def _reject(self, refused: list[Rejected], now: float) -> Receipt:
        new = {item.identity: item for item in refused}
        new = {identity: item for identity, item in new.items() if identity not in self._refused}
        if new:
            files.make_directory(self.home.rejected)
            newest = self._rejected_mark.segment if self._rejected_mark else ""
            path = self.home.rejected / max(f"{_day(now)}.jsonl", newest)
            files.append(path, rejected.encode(new.values()))
            self._rejected_mark = Mark(segment=path.name, bytes=path.stat().st_size)
            self._refused.update(new)
        return Receipt(rejected=len(new))

    def _appender(self, persona: str, domain: str, now: float) -> files.Appender:
        """The domain's newest segment if it may still grow, else a new one. Under the home's lock."""
        kept = self._appenders.get((persona, domain))
        if kept is not None and not kept.sealed:
            return kept
        if len(self._appenders) >= MAX_OPEN_SEGMENTS:
            self._close()
        if kept is not None:
            kept.close()
        directory = self.home.pending(persona, domain)
        files.make_directory(directory)
        made = files.Appender(directory / batches.next_segment(self.home, persona, domain, _day(now)))
        self._appenders[persona, domain] = made
        return made

    def flush(self) -> None:
        """Brings the ledger up to date: at a clean stop, so that the next start has nothing to read again."""
        with self._writing:
            if self._loaded:
                self._flush()

    def _flush_if_full(self) -> None:
        if self.ledger.full or len(self._refused) >= ledger.RUN_IDS:
            self._flush()

    def _flush(self) -> None:
        # What lies before its file's offset is not read again; nor is a file that left the drop zone.
        if self._loaded:  # else not every file's offset is known yet
            known = self.progress
            self._refused = {seen for seen in self._refused if seen[0] in known and seen[1] >= known[seen[0]].offset}
        refused = tuple(sorted(self._refused))
        self.ledger.flush(
            Marks(domains=self._marks, rejected=self._rejected_mark, refused=refused, taken=self.progress)
        )

    def _check_room(self) -> None:
        limit = self.limits.max_waiting_mb << 20
        if limit and self._waiting_bytes >= limit:
            self._waiting_bytes = waiting_bytes(self.home)
            if self._waiting_bytes >= limit:
                raise BufferFull(
                    f"{self._waiting_bytes >> 20} MB of signals wait to be trained, intake.max_waiting_mb is "
                    f"{self.limits.max_waiting_mb}",
                    "It goes on by itself when batches were trained, which genome status follows; or allow more",
                    RETRY_SECONDS,
                )
        if self.limits.min_free_mb and (free := files.free_bytes(self.home.root) >> 20) < self.limits.min_free_mb:
            raise BufferFull(
                f"{free} MB are free on the disk of {self.home.root}, intake.min_free_mb is {self.limits.min_free_mb}",
                "Free some; it goes on by itself",
                RETRY_SECONDS,
            )

    def _saw(self, origin: Origin, received: int) -> None:
        """The newest word counts: a file that was truncated has lower offsets than it had."""
        known = self._heard.get(origin.file, -1)
        if received > known or (received == known and origin.chunk >= self.taken(origin.file).offset):
            self.progress[origin.file] = Taken(origin.chunk, origin.check)
            self._heard[origin.file] = received

    def _close(self) -> None:
        for appender in self._appenders.values():
            appender.close()
        self._appenders = {}


def _key_of(line: Line) -> bytes:
    return key(line.persona_id, line.domain, line.id)


def _beyond(path: Path, mark: Mark | None) -> int:
    """Where to read a file that grows, which is known up to ``mark``; from its beginning if somebody edited it."""
    if mark is None or path.name != mark.segment or not mark.bytes:
        return 0
    return mark.bytes if segments.ends_a_line(path, mark.bytes) else 0


def _day(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
