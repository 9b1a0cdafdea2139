"""A trainer that honours the contract by copying an adapter made before; the standard library alone, for its start.

python -S -E quick_trainer.py MADE_ADAPTER JOB_DIRECTORY CHECKPOINT_DIRECTORY
"""

import os
import sys

made, _job, checkpoints = sys.argv[1:]
print('{"event": "progress", "step": 1, "steps": 2, "loss": 1.5}', flush=True)
os.makedirs(f"{checkpoints}/adapter", exist_ok=True)  # noqa: PTH103 - importing pathlib takes as long as all else here
for name in os.listdir(made):  # noqa: PTH208
    with open(f"{made}/{name}", "rb") as source, open(f"{checkpoints}/adapter/{name}", "wb") as copy:  # noqa: PTH123
        copy.write(source.read())
print('{"event": "finished", "step": 2, "steps": 2}', flush=True)
