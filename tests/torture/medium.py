"""What a power cut may leave of recorded acts, by POSIX's strict word.

A file's bytes are sure once that file was synced; a name in a directory (made, renamed, linked, removed) once that
directory was synced, of a rename: the one it goes to. Of what is not sure, any part may be there. A rename itself is
one act: the name is at one place or the other.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

NEVER = 1 << 60
Do: TypeAlias = "Callable[[Change, int | None], None]"


@dataclass(eq=False)
class Node:
    """A file or a directory, whatever it is called."""

    is_directory: bool
    original: Path | None = None
    """A file that was there before the trace began, to be linked, so that it keeps its inode."""
    entries: dict[str, Node] = field(default_factory=dict)
    """Of the state being built."""
    content: bytearray = field(default_factory=bytearray)


@dataclass(eq=False)
class Change:
    """One act that the medium may have or not."""

    index: int
    """In the trace."""
    node: Node
    """The file written to, or what the name names."""
    on: Node
    """What must be synced to make it sure."""
    do: Do
    """(itself, bytes of a write that are there or None for all)."""
    data: bytes = b""
    sure: int = NEVER
    """Index in the trace of the sync from which on it is sure."""


State = dict[str, bytes | Path | None]
"""Path → content, original file, or None for a directory."""


class Medium:
    """The acts of a trace, each with the moment it became sure."""

    def __init__(self, root: Path, trace: Sequence[dict[str, Any]], originals: Path) -> None:
        self.root = root
        self.changes: list[Change] = []
        self.length = len(trace)
        self.marks = [index + 1 for index, facts in enumerate(trace) if facts["act"] == "mark"]
        self._initial: list[tuple[Node, str, Node]] = []
        self._top = self._take(originals)
        self._handles: dict[str, Node] = {}
        self._reset()
        for index, facts in enumerate(trace):
            self._read(index, facts)

    def moments(self, begin: int = 0) -> list[int]:
        """Numbers of acts after which the medium may hold, or owes, something else than one act before."""
        moved = {change.index + 1 for change in self.changes} | {change.sure for change in self.changes}
        moved |= {0, self.length, *self.marks}
        return sorted(moment for moment in moved if begin <= moment <= self.length)

    def unsure(self, length: int) -> list[Change]:
        """Changes among the first ``length`` acts that a power cut then may undo."""
        return [change for change in self.changes if change.index < length < change.sure]

    def state(self, length: int, dropped: Collection[Change] = (), torn: Change | None = None) -> State:
        """The medium after ``length`` acts without the ``dropped`` changes, one write of them cut in half."""
        self._reset()
        for change in self.changes:
            if change.index >= length:
                break
            if change not in dropped:
                change.do(change, len(change.data) // 2 if change is torn else None)
        return dict(self._listed(self._top, ""))

    def sure_state(self, length: int) -> State:
        """Only what was synced."""
        return self.state(length, set(self.unsure(length)))

    def _read(self, index: int, facts: dict[str, Any]) -> None:
        act = facts["act"]
        if act == "open":
            self._open(index, facts)
        elif act in ("write", "ftruncate", "fsync"):
            node = self._handles.get(facts["handle"])
            if node is None:
                return
            if act == "fsync":
                for change in self.changes:
                    if change.on is node and change.sure == NEVER:
                        change.sure = index + 1
            elif act == "write":
                self._add(index, node, node, _write(facts["offset"]), base64.b64decode(facts["data"]))
            else:
                self._add(index, node, node, _truncate(facts["length"]))
        elif act == "mkdir":
            self._enter(index, facts["paths"][0], Node(True))
        elif act in ("unlink", "rmdir"):
            parent, name = self._find(facts["paths"][0])
            if parent is not None and name in parent.entries:
                self._add(index, parent.entries[name], parent, _leave(parent, name))
        elif act in ("rename", "link"):
            self._rename(index, act, *facts["paths"])

    def _open(self, index: int, facts: dict[str, Any]) -> None:
        parent, name = self._find(facts["path"])
        if parent is None:
            return
        node = parent.entries.get(name) if name else parent
        if node is None and facts["creates"]:
            node = Node(False)
            self._enter(index, facts["path"], node)
        elif node is not None and facts["truncates"]:
            self._add(index, node, node, _truncate(0))
        if node is not None:  # else it is none of ours: a log, what a trainer writes
            self._handles[facts["handle"]] = node

    def _rename(self, index: int, act: str, old: str, new: str) -> None:
        source, name = self._find(old)
        node = source.entries.get(name) if source else None
        target, new_name = self._find(new)
        if source is None or node is None or target is None:
            return
        leave = _leave(source, name) if act == "rename" else None
        self._add(index, node, target, _enter(target, new_name, leave))

    def _enter(self, index: int, path: str, node: Node) -> None:
        parent, name = self._find(path)
        if parent is not None:
            self._add(index, node, parent, _enter(parent, name, None))

    def _add(self, index: int, node: Node, on: Node, do: Do, data: bytes = b"") -> None:
        change = Change(index, node, on, do, data)
        self.changes.append(change)
        do(change, None)

    def _find(self, path: str) -> tuple[Node | None, str]:
        """(directory, name in it) as all acts so far have it; None outside of the root and of directories we know."""
        where = Path(path)
        if where == self.root:
            return self._top, ""
        if not where.is_relative_to(self.root):
            return None, ""
        node: Node | None = self._top
        *folders, name = where.relative_to(self.root).parts
        for folder in folders:
            node = node.entries.get(folder) if node else None
        return node, name

    def _take(self, path: Path) -> Node:
        node = Node(path.is_dir(), None if path.is_dir() else path)
        for below in sorted(path.iterdir()) if node.is_directory else []:
            self._initial.append((node, below.name, self._take(below)))
        return node

    def _reset(self) -> None:
        for node in {change.node for change in self.changes} | {change.on for change in self.changes} | {self._top}:
            node.entries.clear()
            node.content.clear()
        for parent, _, child in self._initial:
            parent.entries.clear()
            child.entries.clear()
        for parent, name, child in self._initial:
            parent.entries[name] = child

    def _listed(self, node: Node, path: str) -> Iterator[tuple[str, bytes | Path | None]]:
        for name, below in sorted(node.entries.items()):
            here = f"{path}{name}"
            if below.is_directory:
                yield here, None
                yield from self._listed(below, f"{here}/")
            else:
                yield here, below.original or bytes(below.content)


def lay_out(state: State, root: Path) -> None:
    """Makes the state's files and directories below ``root``."""
    root.mkdir(parents=True)
    for name, what in state.items():
        path = root / name
        if what is None:
            path.mkdir(mode=0o700)
        elif isinstance(what, Path):
            path.hardlink_to(what)
        else:
            path.write_bytes(what)


def _write(offset: int) -> Do:
    def do(change: Change, kept: int | None) -> None:
        data, content = change.data[:kept], change.node.content
        content.extend(b"\0" * (offset - len(content)))  # a hole reads as zeros
        content[offset : offset + len(data)] = data

    return do


def _truncate(length: int) -> Do:
    def do(change: Change, _kept: int | None) -> None:
        content = change.node.content
        del content[length:]
        content.extend(b"\0" * (length - len(content)))

    return do


def _enter(parent: Node, name: str, first: Do | None) -> Do:
    def do(change: Change, kept: int | None) -> None:
        if first is not None:
            first(change, kept)
        parent.entries[name] = change.node

    return do


def _leave(parent: Node, name: str) -> Do:
    def do(change: Change, _kept: int | None) -> None:
        if parent.entries.get(name) is change.node:
            del parent.entries[name]

    return do
