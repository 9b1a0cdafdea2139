"""What the worker is held to, measured: our figure, the peer's and the ratio, side by side in one run.

`python -m benchmarks.swap` loads and swaps, `python -m benchmarks.serve` decodes. Machines are shared and noisy: sides
take turns, medians count, and ratios say more than times. docs/performance.md has the figures and what they rest on.
"""
