"""What tests agree on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED_BASE = ROOT / "daemon" / "demo" / "base"
NOW = 1_763_600_000.0
"""2025-11-20 00:53:20 UTC."""
slow = pytest.mark.skipif(os.environ.get("GENOME_SLOW_TESTS") != "1", reason="takes minutes: `make test-slow` runs it")
