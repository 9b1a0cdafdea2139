"""genome.toml: unknown keys are refused, every default stands in one place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from genome import config
from genome.config import Config
from genome.errors import Conflict, InvalidConfig
from genome.layout import Home


def test_a_new_home_spells_out_every_default(home: Home, shipped_base: Path) -> None:
    """Uncommenting the whole template changes nothing."""
    config.init(home, str(shipped_base))
    text = "\n".join(line.removeprefix("# ") for line in home.config.read_text().splitlines()[1:])
    spelled_out = tomllib.loads(text)
    assert Config.model_validate(spelled_out) == config.load(home) == Config(base=str(shipped_base))
    assert spelled_out.keys() == Config.model_fields.keys() - {"personas"}


def test_a_home_is_made_once(home: Home, shipped_base: Path) -> None:
    """init never touches a genome.toml that is there."""
    config.init(home, str(shipped_base))
    with pytest.raises(Conflict, match="exists already"):
        config.init(home, str(shipped_base))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base = 'x'\nbasee = 'y'", "basee is no key"),
        ("base = 'x'\n[training]\nrankk = 3", r"training\.rankk is no key"),
        ("base = 'x'\n[training]\nrank = 0", r"training\.rank: .*greater than or equal to 1, not 0"),
        ("[training]", "base"),
        ("base = ", "is not TOML"),
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
