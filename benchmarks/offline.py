"""What each version says alone, by PEFT: what every streamed reply is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from benchmarks import models
from benchmarks.streams import Reply
from genome.layout import Home


class Offline:
    """What each version says of each prompt alone, by PEFT."""

    def __init__(self, home: Home, base: Path, ids: list[str], dtype: str, prompts: list[tuple[int, ...]]) -> None:
        model = models.library_model(base, dtype)
        self._model = PeftModel.from_pretrained(model, home.adapter(ids[0]), adapter_name="a0")
        self._names = {ids[0]: "a0"}
        for number, each in enumerate(ids[1:], start=1):
            self._model.load_adapter(home.adapter(each), f"a{number}")
            self._names[each] = f"a{number}"
        self._prompts = prompts
        self._tokens: dict[tuple[str, int, int], list[int]] = {}

    @torch.inference_mode()
    def tokens(self, version: str, prompt: int, count: int) -> list[int]:
        key = (version, prompt, count)
        if key not in self._tokens:
            self._model.set_adapter(self._names[version])
            ids = torch.tensor([self._prompts[prompt]])
            made = self._model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
                do_sample=False,
            )  # fmt: skip
            self._tokens[key] = made[0, ids.shape[1] :].tolist()
        return self._tokens[key]

    @torch.inference_mode()
    def logprobs(self, version: str, prompt: int, tokens: list[int]) -> list[float]:
        self._model.set_adapter(self._names[version])
        before = len(self._prompts[prompt])
        logits = self._model(torch.tensor([[*self._prompts[prompt], *tokens]])).logits[0, before - 1 : -1]
        scores = logits.float().log_softmax(1)
        return scores[range(len(tokens)), tokens].tolist()


def is_mixed(reply: Reply, offline: Offline, ids: list[str], exact: bool) -> bool:
    """Whether a reply is anything but what the one version it names says.

    ``exact``: token by token. Otherwise by its tokens' scores, which must be nearer to its own version's than to any
    other's: in bfloat16 a greedy token may depend on the batch, its score does not.
    """
    versions = set(reply.adapters)
    if len(versions) != 1:
        return True
    (version,) = versions
    if exact:
        return reply.tokens != offline.tokens(version, reply.prompt, len(reply.tokens))
    heard = np.array(reply.logprobs)
    distance = {
        each: float(np.abs(np.array(offline.logprobs(each, reply.prompt, reply.tokens)) - heard).max()) for each in ids
    }
    return min(distance, key=distance.__getitem__) != version or distance[version] > 0.5
