"""genome.toml: unknown keys are refused, every default stands in one place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from genome import config
from genome.config import Config
from genome.errors import Conflict, InvalidConfig
from genome.layout import Home
from genome.trigger_settings import QualityDrop, Scheduled, Threshold


def test_a_new_home_spells_out_every_default(home: Home, base_path: Path) -> None:
    """Uncommenting the whole template changes nothing."""
    config.init(home, str(base_path))
    text = "\n".join(line.removeprefix("# ") for line in home.config.read_text().splitlines()[1:])
    spelled_out = tomllib.loads(text)
    assert Config.model_validate(spelled_out) == config.load(home) == Config(base=str(base_path))
    assert spelled_out.keys() == Config.model_fields.keys() - {"personas"}


def test_a_home_is_made_once(home: Home, base_path: Path) -> None:
    """init never touches a genome.toml that is there."""
    config.init(home, str(base_path))
    with pytest.raises(Conflict, match="exists already"):
        config.init(home, str(base_path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base = 'x'\nbasee = 'y'", "basee is no key"),
        ("base = 'x'\n[training]\nrankk = 3", r"training\.rankk is no key"),
        ("base = 'x'\n[training]\nneighbour_anchors = 9", r"neighbour_anchors is now called training\.taught_anchors"),
        ("base = 'x'\n[training]\nrank = 0", r"training\.rank: .*greater than or equal to 1, not 0"),
        ("[training]", "base"),
        ("base = ", "is not TOML"),
        ("base = 'x'\n[personas.p.triggers.threshold]\nmin = 3", r"personas\.p\.triggers\.threshold\.min is no key"),
        ("base = 'x'\n[personas.p.domains.d.triggers]\nmin = 3", r"personas\.p\.domains\.d\.triggers\.min is no key"),
        ("base = 'x'\n[personas.p.domains.d]\nmin = 3", r"personas\.p\.domains\.d\.min is no key"),
        ("base = 'x'\n[triggers.scheduled]\ncron = '61 * * * *'", r"triggers\.scheduled\.cron: '61 .*out of range"),
        ("base = 'x'\n[triggers]\ntime_zone = 'Mars'", r"triggers\.time_zone: 'Mars' is no time zone"),
        ("base = 'x'\n[triggers]\nquiet_hours = ['22-7']", r"triggers\.quiet_hours: '22-7' is no period"),
        ("base = 'x'\n[triggers]\nthreshold = true", r"triggers\.threshold: .*not True"),
        ("base = 'x'\n[triggers.quality_drop]\nwindow_samples = 5", "nothing would ever drop"),
        ("base = 'x'\n[triggers.quality_drop]\nthreshold = 0.96", "no drop would ever be over"),
    ],
)
def test_a_bad_key_is_named(text: str, reason: str) -> None:
    """Where it stands, what is wrong, and what was given."""
    with pytest.raises(InvalidConfig, match=reason):
        config.parse(text, Path("genome.toml"))


def test_a_base_that_does_not_exist_is_named(home: Home) -> None:
    """With what to give instead, and nothing is written."""
    with pytest.raises(InvalidConfig, match="does not exist"):
        config.init(home, "/no/such/model")
    assert not home.config.exists()


def test_a_missing_config_says_how_to_make_one(home: Home) -> None:
    """genome init is named."""
    with pytest.raises(InvalidConfig, match="genome init"):
        config.load(home)


def test_a_persona_and_a_domain_state_only_what_differs() -> None:
    """Key by key: domain over persona over everybody, whether or not a table is there for the others."""
    given = """
base = "x"
[triggers]
quiet_hours = ["22:00-07:00"]
[triggers.threshold]
min_examples = 200
[triggers.scheduled]
cron = "0 3 * * *"
[personas.p.triggers]
scheduled = false
[personas.p.triggers.threshold]
max_wait_hours = 24
[personas.p.domains.d.triggers]
threshold = false
[personas.p.domains.d.triggers.quality_drop]
threshold = 0.5
[personas.p.domains.e.triggers.scheduled]
missed = "skip"
[personas.q.domains.d.triggers.threshold]
min_examples = 50
"""
    loaded = config.parse(given, Path("genome.toml"))
    everybody, own, of_d = (loaded.triggers_for(*of) for of in (("other", "d"), ("p", "other"), ("p", "d")))
    assert everybody == loaded.triggers and everybody.scheduled is not None
    assert own.threshold == Threshold(min_examples=200, max_wait_hours=24) and own.scheduled is None
    assert own.quiet_hours == of_d.quiet_hours == everybody.quiet_hours
    assert of_d.threshold is None and of_d.scheduled is None and of_d.quality_drop == QualityDrop(threshold=0.5)
    assert loaded.triggers_for("p", "e").scheduled == Scheduled(missed="skip")  # off for p: nothing of it is left
    assert loaded.triggers_for("q", "d").threshold == Threshold(min_examples=50)
    assert loaded.triggers_for("q", "other") == everybody


def test_a_persona_without_triggers_has_everybodys() -> None:
    """Naming it changes nothing."""
    loaded = config.parse("base = 'x'\n[triggers.threshold]\nmin_examples = 7\n[personas.p]", Path("genome.toml"))
    assert loaded.triggers_for("p") == loaded.triggers
