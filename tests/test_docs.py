"""The docs, held against the code: what exists is described, and what is described exists."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import click
import pytest
import typer.main
from pydantic import BaseModel

from daemon import cli
from genome import config, errors
from genome.conditions import KINDS
from genome.config import Config
from genome.errors import InvalidInput
from genome.layout import Home
from genome.records import Record
from genome.signals import Defaults, Signal, parse
from genome.v1 import inference_pb2, learning_pb2
from inference_worker.engine import Engine, Logits, Tokenizer

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
NOW_MILLIS = 1_763_600_000_000
EXPLAINED = {"persona": "<persona>", "batch": "<batch>", "domain": "<domain>", "job": "<job>",
             "base_fingerprint": "<fingerprint>", "stack": "<stack>",
             "adapter_id": "<persona>/<domain>-v<version>"}  # fmt: skip
"""How docs/directory.md writes what a path is made of."""


def page(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """Every table row of a page, cell by cell."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def settings(section: BaseModel, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(section, key, default) of everything genome.toml may hold. A table that is not there by default is false."""
    for key, value in section:
        inner = f"{path}.{key}".removeprefix(".")
        if isinstance(value, BaseModel):
            yield from settings(value, inner)
        elif value is None and (table := optional_table(section, key)):
            yield path, key, False
            yield from settings(table(), inner)
        elif path:
            yield path, key, value


def optional_table(section: BaseModel, key: str) -> type[BaseModel] | None:
    kinds = set(get_args(type(section).model_fields[key].annotation)) - {NoneType}
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


SETTINGS = list(settings(Config(base="x")))


@pytest.mark.parametrize(("section", "key", "default"), SETTINGS, ids=[f"{path}.{key}" for path, key, _ in SETTINGS])
def test_every_key_of_the_config_is_described(section: str, key: str, default: object) -> None:
    """docs/configuration.md has it in its section, with the default the schema has."""
    heading = f"## [{section}]\n"
    assert heading in page("configuration.md")
    described = page("configuration.md").partition(heading)[2].partition("\n## ")[0]
    assert [f"`{key}`", f"`{config.toml(default)}`"] in [row[:2] for row in rows(described)]


def test_no_key_is_described_that_does_not_exist() -> None:
    """docs/configuration.md has no row for a key the schema refuses."""
    described = [row[0].strip("`") for row in rows(page("configuration.md")) if row[0].startswith("`")]
    assert sorted(described) == sorted(["base", *(key for _, key, _ in SETTINGS)])


def test_every_config_in_the_docs_is_taken() -> None:
    """A genome.toml that is shown can be used as it is."""
    examples = [text for path in PAGES for text in blocks(path.read_text(), "toml")]
    assert examples
    for text in examples:
        Config.model_validate(tomllib.loads(text))


def verbs() -> dict[str, click.Command]:
    """Every verb by its words, e.g. ``adapter rollback``."""
    found: dict[str, click.Command] = {}
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {verb}": each for verb, each in inner.items()}
    return found


def test_every_verb_is_described() -> None:
    """docs/cli.md has a row and an example for each verb, and no row for one that does not exist."""
    described = {row[0] for row in rows(page("cli.md")) if row[0].startswith("`genome ")}
    assert described == {f"`genome {verb}`" for verb in verbs()}
    shown = [line for text in blocks(page("cli.md"), "sh") for line in text.splitlines()]
    for verb in verbs():
        assert any(line == f"genome {verb}" or line.startswith(f"genome {verb} ") for line in shown), verb


def test_every_command_in_the_docs_can_be_typed() -> None:
    """A `genome …` line that is shown names a verb that exists, with options that it takes."""
    shown = [line for path in PAGES for text in blocks(path.read_text(), "sh") for line in text.splitlines()]
    lines = [re.split(r"(?:^|/)genome (?=[a-z])", line, maxsplit=1)[1] for line in shown
             if re.search(r"(?:^|/)genome [a-z]", line)]  # fmt: skip
    assert len(lines) > 30
    for line in lines:
        words = shlex.split(line, comments=True)
        verb = next((name for name in (" ".join(words[:2]), words[0]) if name in verbs()), None)
        assert verb, f"genome {line}"
        known = {option for parameter in verbs()[verb].params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, f"genome {line}"


def test_the_exit_codes_are_published() -> None:
    """docs/cli.md lists every code the command line may end with."""
    from daemon.cli.training import EXIT_BELOW_QUALITY

    listed = {int(row[0]) for row in rows(page("cli.md")) if row[0].isdigit()}
    usage = click.UsageError.exit_code
    ours = {
        *errors.EXIT_CODES.values(),
        errors.EXIT_UNEXPECTED,
        errors.EXIT_INTERRUPTED,
        errors.EXIT_REPAIRED,
        EXIT_BELOW_QUALITY,
    }
    assert listed == {0, usage, *ours}


def test_every_path_of_a_home_is_described() -> None:
    """docs/directory.md has a row for each path genome/layout.py names."""
    described = {row[0].strip("`").rstrip("/") for row in rows(page("directory.md"))}
    home = Home(Path("/home"))
    for name, member in vars(Home).items():
        if isinstance(member, property):
            path = getattr(home, name)
        elif inspect.isfunction(member) and not name.startswith("_") and member.__annotations__["return"] == "Path":
            path = member(home, *(EXPLAINED[given] for given in list(inspect.signature(member).parameters)[1:]))
        else:
            continue
        assert str(path.relative_to(home.root)) in described, name


def test_every_record_is_described() -> None:
    """docs/directory.md names each kind of record that lies in a home."""
    described = {row[0] for row in rows(page("directory.md"))}
    assert {
        record.__name__.lower() for record in Record.__subclasses__() if record.__module__.startswith("genome.")
    } <= described


def test_every_field_of_a_signal_is_described() -> None:
    """docs/signals.md has a row for each, by its name in JSON."""
    described = {row[0].strip("`") for row in rows(page("signals.md"))}
    for name in Signal.model_fields:
        first, *rest = name.split("_")
        assert first + "".join(word.title() for word in rest) in described, name


@pytest.mark.parametrize("line", [line for text in blocks(page("signals.md"), "json") for line in text.splitlines()])
def test_every_signal_in_the_docs_is_taken(line: str) -> None:
    """A line that is shown as good is."""
    assert parse(line.encode(), Defaults(NOW_MILLIS, domain="general")).persona_id == "helper-ai"


REFUSED = [row for row in rows(page("signals.md").partition("## What is refused")[2]) if row[0] != "line"]


@pytest.mark.parametrize(("line", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_every_refusal_in_the_docs_is_one(line: str, reason: str) -> None:
    """A line that is shown as bad is refused with the words that stand beside it."""
    with pytest.raises(InvalidInput, match=re.escape(reason)):
        parse(line.strip("`").encode(), Defaults(NOW_MILLIS, domain="general"))


@pytest.mark.parametrize("proto", [inference_pb2, learning_pb2], ids=["inference", "learning"])
def test_every_call_is_described(proto: Any) -> None:
    """docs/wire.md has a row for each call of both services."""
    described = {name for row in rows(page("wire.md")) for name in re.findall(r"`(\w+)`", row[0])}
    for service in proto.DESCRIPTOR.services_by_name.values():
        assert service.full_name in page("wire.md")
        assert set(service.methods_by_name) <= described


def test_every_way_of_sampling_is_described() -> None:
    """docs/wire.md has a row for each field of Sampling, and for no other."""
    described = rows(page("wire.md").partition("### Sampling")[2].partition("\n## ")[0])
    assert {row[0].strip("`") for row in described} - {"field"} == set(inference_pb2.Sampling.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("protocol", [Engine, Logits, Tokenizer], ids=lambda protocol: protocol.__name__)
def test_every_member_an_engine_needs_is_described(protocol: type) -> None:
    """docs/engines.md names each member of the protocol."""
    members = {*protocol.__annotations__, *vars(protocol)}
    for name in members:
        assert name.startswith("_") or re.search(rf"`{name}\b", page("engines.md")), name


def test_every_module_on_the_path_of_a_signal_exists() -> None:
    """docs/architecture.md names files that are there."""
    named = set(re.findall(r"`((?:genome|daemon|inference_worker|tests)/[\w/]+\.py)`", page("architecture.md")))
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_every_condition_is_described() -> None:
    """docs/alerts.md has a row for each kind of alert, with its severity and message id, and for no other."""
    described = rows(page("alerts.md").partition("## Conditions")[2].partition("\n## ")[0])[1:]
    named = {kind.condition.replace("{", "<").replace("}", ">"): kind for kind in KINDS}
    assert [(row[0].strip("`"), row[1], row[4].strip("`")) for row in described] == [
        (condition, kind.severity, kind.message_id) for condition, kind in named.items()
    ]
    assert [row[0] for row in described if "it settles" in row[3]] == [
        f"`{condition}`" for condition, kind in named.items() if kind.settles
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Every link to a file of the project names one that is there."""
    targets = re.findall(r"\]\(([^)#]+)", path.read_text())
    assert not [target for target in targets if "://" not in target and not (path.parent / target).exists()]


def test_every_program_in_the_docs_is_python() -> None:
    """What is shown as Python compiles."""
    for path in PAGES:
        for text in blocks(path.read_text(), "python"):
            compile(text, path.name, "exec")


def test_the_glossary_is_in_order() -> None:
    """A word is found where the alphabet has it."""
    words = [row[0].strip("*") for row in rows(page("glossary.md")) if row[0].startswith("**")]
    assert words == sorted(words)


def test_the_licence_is_apache() -> None:
    """LICENSE is the text pyproject.toml names."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_the_trainer_in_the_docs_has_what_the_contract_asks_for() -> None:
    """Every attribute of `Trainer` stands in the example of docs/trainers.md."""
    from daemon.trainers.contract import Trainer

    wanted = {name for kind in Trainer.__mro__ for name in (*vars(kind), *getattr(kind, "__annotations__", {}))}
    example = page("trainers.md").partition("class MyTrainer")[2].partition("\n\n")[0]
    assert sorted(name for name in wanted if not name.startswith("_") and name not in example) == []


def test_every_state_of_a_job_at_fireworks_is_described() -> None:
    """docs/fireworks.md says of the states what they mean here: those with a model, those without, and no other."""
    from daemon.trainers.fireworks import run

    described = rows(page("fireworks.md").partition("| state of a job ")[2].partition("\n\n")[0])
    states = {meaning: set(re.findall(r"[A-Z_]{2,}", named)) for named, meaning in described if named.startswith("`")}
    assert states == {"there is a model: fetch it": run.TRAINED, "ended without one": run.OVER}
    (others,) = (named for named, meaning in described if meaning.startswith("look again"))
    assert not set(re.findall(r"[A-Z_]{2,}", others)) & (run.TRAINED | run.OVER)
