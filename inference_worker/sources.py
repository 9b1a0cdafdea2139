"""Adapters on their way in: which paths may be read, and what must hold of the files before an engine sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genome import adapters, lora
from genome.bases import Described
from genome.errors import InvalidAdapter, InvalidInput, NotFound


class OutsideRoots(InvalidInput):
    """A path leads out of the directories adapters may come from."""


class WrongBase(InvalidAdapter):
    """An adapter was made for another base model."""


class WrongDigest(InvalidAdapter):
    """An adapter is not the one that was asked for."""


@dataclass(frozen=True)
class Source:
    """Where adapters may come from, and for which base."""

    roots: tuple[Path, ...]
    """Resolved directories."""
    base: Described
    """The base adapters are made for."""
    served: Described
    """Whose weights are computed with: the base, or a copy of it in another precision."""

    @property
    def base_fingerprint(self) -> str:
        return self.base.fingerprint

    def locate(self, path: str) -> Path:
        """The real path of an adapter, links followed. Raises OutsideRoots or NotFound."""
        if not path or "\0" in path:
            raise InvalidInput("adapter_path is empty", "Give the adapter's directory")
        given = Path(path)
        if not given.is_absolute():
            given = self.roots[0] / given
        resolved = given.resolve()
        if not any(resolved.is_relative_to(root) for root in self.roots):
            raise OutsideRoots(
                f"{path} is not in a directory adapters may be loaded from: {', '.join(map(str, self.roots))}",
                "Copy it there, or add its directory to worker.adapter_roots",
            )
        if not resolved.exists():
            raise NotFound(f"there is no adapter at {path}")
        for file in resolved.glob("*.safetensors") if resolved.is_dir() else ():
            if not any(file.resolve().is_relative_to(root) for root in self.roots):
                raise OutsideRoots(f"{file} is a link to {file.resolve()}, outside the adapter roots", "Copy the file")
        return resolved

    def read(self, path: Path, expected_digest: str = "") -> lora.Lora:
        """The weights at ``path``, whole, finite, as digested and for this base. Takes milliseconds; any thread."""
        weights = lora.read(path, known=self._known(path))
        if expected_digest and weights.digest != expected_digest:
            raise WrongDigest(
                f"{path} has the digest {weights.digest[:12]}…, not {expected_digest[:12]}…",
                "It has changed since it was chosen, or another one was meant",
            )
        return weights

    def _known(self, path: Path) -> lora.Digests | None:
        """What the adapter's manifest says of its weights, if it has one. Raises WrongBase."""
        try:
            manifest = json.loads((path / "manifest.json").read_bytes())
            made_for, sha256, xxh3 = (str(manifest.get(key, "")) for key in ("base_fingerprint", "digest", "xxh3"))
            origin = adapters.origin(manifest) if made_for != self.base_fingerprint else ""
        except (FileNotFoundError, NotADirectoryError):
            return None  # not made by us: names and shapes are all there is to check
        except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
            raise InvalidAdapter(f"{path / 'manifest.json'} cannot be read: {error!r}") from error
        if origin:
            here = "" if self.served == self.base else f", served as {self.served}"
            raise WrongBase(
                f"{path} was made for another base: {origin}; here it is {self.base}{here}",
                "Serve that base, or train on this one; a copy of the base is named by training.base or worker.base",
            )
        return lora.Digests(sha256, xxh3) if sha256 and xxh3 else None


def roots(home_adapters: Path, configured: Sequence[str]) -> tuple[Path, ...]:
    """Every directory adapters may come from, resolved; the home's first."""
    return tuple(path.expanduser().resolve() for path in (home_adapters, *map(Path, configured)))
