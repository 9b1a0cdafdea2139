"""Copies of a base in another precision: whether one can be the base, and what reads it.

An adapter is trained for a base. `training.base` and `worker.base` in genome.toml name other directories with the same
model, quantised, to train on and to serve with (QLoRA: Dettmers et al. 2023); that they are named there is what
declares them the same. What cannot be the same is refused here: another architecture, other shapes, another tokenizer.
Whether the weights are those of the base, rounded, nothing here can tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genome import bases, tensors
from genome.errors import InvalidConfig

UNREADABLE = {("torch", "mlx"), ("mlx", "bitsandbytes")}
"""Library and method that never go together. What else a library cannot read it says itself."""
PACKAGES = {("torch", "bitsandbytes"): "bitsandbytes"}
"""What a library needs for a method besides itself."""
INCIDENTAL = {
    *bases.VOLATILE_CONFIG_KEYS, "quantization", "quantization_config", "use_cache", "architectures", "auto_map",
    "bos_token_id", "eos_token_id", "pad_token_id", "rope_theta", "rope_scaling", "rope_parameters",
}  # fmt: skip
"""Keys of a config that tools write as they like, or that are looked at under another name."""
FLOATS = ("F64", "F32", "F16", "BF16")


def resolve(base: Path, named: str, key: str) -> Path:
    """The directory of the copy that ``key`` of genome.toml names, or of the base where it names none.

    Raises InvalidConfig if it cannot be the same model.
    """
    if not named:
        return base
    path = bases.resolve(named)
    if why := difference(base, path):
        raise InvalidConfig(
            f"{key} = {named!r} cannot be a copy of the base: {why}",
            f"The base is {base} ({bases.quantisation(base)}), the other {path} ({bases.quantisation(path)})",
        )
    return path


def check_readable(path: Path, library: str) -> None:
    """Raises InvalidConfig where ``library`` (torch, mlx) cannot read what the weights at ``path`` are quantised with,
    or a package for it is missing."""
    found = bases.quantisation(path)
    if (library, found.method) in UNREADABLE:
        other = "mlx" if library == "torch" else "torch"
        raise InvalidConfig(f"{path} is {found}, which {library} does not read", f"{other} does")
    package = PACKAGES.get((library, found.method))
    if package and find_spec(package) is None:
        raise InvalidConfig(
            f"{path} is {found}, and the package {package} is not installed", f"Run: pip install {package}"
        )


def difference(base: Path, copy: Path) -> str:
    """Why two directories cannot hold the same model in two precisions; empty if nothing speaks against it."""
    return _configs(base, copy) or _shapes(base, copy) or _tokenizers(base, copy) or _templates(base, copy)


def _configs(base: Path, copy: Path) -> str:
    """What both say must agree; a default that only one writes out is no difference."""
    ours, theirs = (dict(_flat(bases.read_config(path))) for path in (base, copy))
    for key, value in ours.items():
        other = theirs.get(key)
        if value is not None and other is not None and other != value:
            return f"{key} is {other!r} in its config.json and {value!r} in the base's"
    return ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and key not in INCIDENTAL:
            yield from _flat(value, f"{prefix}{key}.")
        elif key not in INCIDENTAL:
            yield prefix + key, value
    yield from ((f"{prefix}{key}", value) for key, value in _rope(config).items())


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 writes one table; versions before it, and mlx-lm, a number and another table."""
    older = {"rope_theta": config.get("rope_theta"), **(config.get("rope_scaling") or {})}
    said = {**older, **(config.get("rope_parameters") or {})}
    said["rope_type"] = said.get("rope_type", said.pop("type", None))
    return said


def _shapes(base: Path, copy: Path) -> str:
    ours, theirs = _sizes(base), _sizes(copy)
    shared = ours.keys() & theirs.keys()
    if not shared:
        return "none of its tensors has a name of the base's"
    for name in sorted(shared):
        one, other = ours[name], theirs[name]
        flat = min(len(one), len(other)) == 1  # packed without its shape
        if math.prod(one) != math.prod(other) if flat else one != other:
            return f"{name} is {list(other)}, in the base {list(one)}"
    return ""


def _sizes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes tensors have when nothing is packed, as far as the method is known."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for file in bases.weight_files(path):
        try:
            found |= tensors.shapes(file)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InvalidConfig(f"{file} cannot be read as safetensors: {error}") from error
    said = bases.read_config(path).get("quantization") or {}
    sizes = {}
    for name, (dtype, shape) in found.items():
        module = name.removesuffix(".weight")
        if dtype in FLOATS or dtype == "I8":
            sizes[name] = shape
        elif dtype == "U32" and f"{module}.scales" in found and shape:
            own = said.get(module)  # of single layers mlx-lm may leave the bits unsaid, but the groups are counted
            group = (own if isinstance(own, dict) else said).get("group_size", 64)
            sizes[name] = (*shape[:-1], found[f"{module}.scales"][1][-1] * group)
        elif dtype == "U8" and f"{name}.absmax" in found:
            sizes[name] = (2 * math.prod(shape),)
    return sizes


def _tokenizers(base: Path, copy: Path) -> str:
    for name in ("tokenizer.json", "tokenizer.model"):
        ours, theirs = base / name, copy / name
        if ours.is_file() and theirs.is_file():
            same = ours.read_bytes() == theirs.read_bytes()
            return "" if same or (name == "tokenizer.json" and _tokens(ours) == _tokens(theirs)) else f"another {name}"
    return "it has no tokenizer that can be compared with the base's"


def _tokens(path: Path) -> tuple[Any, list[str], dict[str, int]]:
    """Vocabulary, merges and added tokens, whichever way they are written."""
    try:
        read = json.loads(path.read_bytes())
        model = read["model"]
        merges = [each if isinstance(each, str) else " ".join(each) for each in model.get("merges") or ()]
        return model["vocab"], merges, {each["content"]: each["id"] for each in read.get("added_tokens") or ()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidConfig(f"{path} cannot be read: {error!r}") from error


def _templates(base: Path, copy: Path) -> str:
    """A copy that renders chats in another way would be trained on, or asked, in words the other never saw."""
    ours, theirs = _template(base), _template(copy)
    return "another chat template; copy the base's there" if ours and theirs and ours != theirs else ""


def _template(path: Path) -> str:
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text().strip()
    try:
        said = json.loads((path / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    return said.strip() if isinstance(said, str) else ""
