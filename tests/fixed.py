"""What tests agree on."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED_BASE = ROOT / "daemon" / "demo" / "base"
NOW = 1_763_600_000.0
"""2025-11-20 00:53:20 UTC."""
