"""What tests of a home that was trained begin with."""

from __future__ import annotations

import pytest
from trained_home import TrainedHome

from genome.layout import Home


@pytest.fixture
def trained(home: Home) -> TrainedHome:
    return TrainedHome(home)
