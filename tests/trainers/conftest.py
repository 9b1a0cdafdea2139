"""The trainers that are tested."""

from __future__ import annotations

import pytest

from daemon.trainers import catalog


@pytest.fixture(scope="module", params=sorted(name for name, entry in catalog.TRAINERS.items() if not entry.remote))
def trainer(request: pytest.FixtureRequest) -> str:
    """Each that trains here, where it is installed."""
    name: str = request.param
    if missing := catalog.TRAINERS[name].missing():
        pytest.skip(f"{', '.join(missing)} is not installed")
    return name
