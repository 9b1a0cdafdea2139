"""What multiplies matrices on a CPU: a fast BLAS for MLX on Linux, and how much oneDNN keeps for PyTorch.

MLX's wheel brings the reference BLAS there: 2 GFLOP/s a core, not 30 to 45.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

SLOW = "MLX runs on its slow reference BLAS; an installed OpenBLAS would be used"
"""What to say where `prefer_fast` finds none."""


BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""With any of these a CPU computes in bfloat16: as Linux calls them, and PyTorch (``torch.cpu.get_capabilities``)."""
KERNEL_VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""How many kernels oneDNN keeps, and how many PyTorch keeps of it besides: 1,024 each if nobody says."""
KERNELS = 64
"""In bfloat16 every number of tokens has kernels of its own, of a third of a MiB, and hardly two passes have as many:
kept, they grow to several times what a small base needs. Used again are those of a layer, and they are fewer."""


def keep_few_kernels() -> None:
    """Bounds what oneDNN keeps, unless the environment says how much. Call it before PyTorch's import."""
    for variable in KERNEL_VARIABLES:
        os.environ.setdefault(variable, str(KERNELS))


def prefer_fast() -> bool:
    """Lets the system's OpenBLAS, or the BLAS in an installed PyTorch, answer MLX's calls. Call it before MLX's import.

    What is loaded globally comes before a library's own dependencies when its symbols are looked up. On macOS MLX uses
    Apple's BLAS and nothing is done. False where MLX runs as it is, because neither is found.
    """
    if sys.platform != "linux":
        return True
    for library in (find_library("openblas"), _torch_library()):
        if library is not None:
            with suppress(OSError):
                ctypes.CDLL(library, mode=os.RTLD_GLOBAL)
                return True
    return False


def _torch_library() -> str | None:
    """PyTorch's CPU library, which contains a BLAS and exports its Fortran names."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    return str(path) if path.exists() else None
