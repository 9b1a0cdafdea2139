"""The torch engine: transformers' own modules, unmodified, batched and with adapters.

slots      adapters in the linear layers, in places that `places` decides and `factors` fills
rows       key/value rows behind the library's cache classes (the only file that touches them)
masks      which tokens a token sees
attention  heads that share a key head
batched    rows of different lengths in one forward
packing    questions in branches behind what their prompts have in common
solo       one row at a time through the library's own cache, for architectures that do not batch
selfcheck  which of the two it is
model      `TorchEngine`, which ties them together
"""

from inference_worker.engine_torch.model import load

__all__ = ["load"]
