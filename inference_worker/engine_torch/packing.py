"""Questions packed for one forward: what prompts have in common once, and behind it all that differs, in branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from inference_worker.engine import Likelihood, Question, Terms
from inference_worker.prefixes import SHORTEST, shared

SHARED, PADDING = 0, -1
"""Group numbers; the questions of a row are 1, 2, …"""
CONTEXT = 0
"""Branch number of a prompt; its continuations are 1, 2, …"""
LARGEST_BUNDLE = 1024
"""Tokens of one row of questions."""


@dataclass
class Packed:
    """Questions of one stack as one row of tokens."""

    terms: Terms
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Every branch goes on from where it left."""
    groups: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    sources: list[list[list[int]]] = field(default_factory=list)
    """Question → continuation → the index whose logits foretell each of its tokens."""
    targets: list[list[tuple[int, ...]]] = field(default_factory=list)
    first: int = 0
    """The first index whose logits anyone needs, plus one."""

    def add(self, tokens: Sequence[int], position: int, group: int, branch: int) -> int:
        """Appends a run of tokens; returns the index of its first."""
        start = len(self.ids)
        self.ids += tokens
        self.positions += range(position, position + len(tokens))
        self.groups += [group] * len(tokens)
        self.branches += [branch] * len(tokens)
        return start


def bundles(questions: Sequence[Question]) -> list[list[Question]]:
    """Neighbours whose prompts have at least half of their tokens in common, together."""
    found: list[list[Question]] = []
    common: tuple[int, ...] = ()
    for question in questions:
        length = shared(common, question.prompt)
        if (
            found
            and question.terms == found[-1][0].terms
            and length >= max(SHORTEST, len(question.prompt) // 2)
            and sum(each.tokens for each in (*found[-1], question)) <= LARGEST_BUNDLE
        ):
            found[-1].append(question)
            common = common[:length]
        else:
            found.append([question])
            common = question.prompt
    return found


def pack(questions: Sequence[Question]) -> Packed:
    first = questions[0].prompt
    common = min(shared(first, question.prompt) for question in questions)
    row = Packed(questions[0].terms)
    row.add(first[:common], 0, SHARED, CONTEXT)
    for group, question in enumerate(questions, start=1):
        prompt = len(question.prompt)
        start = row.add(question.prompt[common:], common, group, CONTEXT)
        last = start + prompt - common - 1 if prompt > common else common - 1
        row.first = min(row.first, last + 1) if group > 1 else last + 1
        sources = []
        for branch, continuation in enumerate(question.continuations, start=1):
            begin = row.add(continuation, prompt, group, branch)
            # A continuation's first token follows the prompt, the others the one before.
            sources.append([last, *range(begin, begin + len(continuation) - 1)][: len(continuation)])
        row.sources.append(sources)
        row.targets.append(list(question.continuations))
    return row


def related(groups: torch.Tensor, branches: torch.Tensor) -> torch.Tensor:
    """Who may see whom at all, [rows, tokens, tokens]: the shared part, one's own question, and one's own branch."""
    group, other = groups.unsqueeze(2), groups.unsqueeze(1)
    branch, other_branch = branches.unsqueeze(2), branches.unsqueeze(1)
    return (other == SHARED) | ((other == group) & ((other_branch == CONTEXT) | (other_branch == branch)))


def padded(rows: Sequence[Sequence[int]], empty: int = 0) -> list[list[int]]:
    """Rows of one length, filled up on the left, so that every row's last token stands in the last column."""
    width = max(map(len, rows))
    return [[empty] * (width - len(row)) + list(row) for row in rows]


def likelihoods(row: Packed, logits: torch.Tensor) -> list[list[Likelihood]]:
    """Each question's continuations, from the logits [kept, vocabulary] of the row's last tokens."""
    shift = len(logits) - len(row.ids)  # the row's token t stands in logits[shift + t]
    flat = [shift + source for question in row.sources for sources in question for source in sources]
    tokens = [token for question in row.targets for targets in question for token in targets]
    whole = likelihood_of(logits[flat], tokens) if flat else Likelihood((), ())
    answers, offset = [], 0
    for question in row.targets:
        parts = []
        for targets in question:
            part = slice(offset, offset + len(targets))
            parts.append(Likelihood(whole.logprobs[part], whole.greedy[part]))
            offset += len(targets)
        answers.append(parts)
    return answers


def likelihood_of(logits: torch.Tensor, tokens: Sequence[int]) -> Likelihood:
    """Of each token, from the logits [tokens, vocabulary] that foretell it."""
    logits, target = logits.float(), torch.tensor(tokens, dtype=torch.long, device=logits.device)
    scores = logits.gather(1, target.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
    return Likelihood(tuple(scores.tolist()), tuple((logits.argmax(1) == target).tolist()))
