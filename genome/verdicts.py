"""What the gate last said of each domain, for those who decide what to try next."""

from __future__ import annotations

from dataclasses import dataclass, field

from genome import jobs
from genome.layout import Home
from genome.quality import Verdict


@dataclass
class Newest:
    """The newest verdict of every domain. Completed jobs do not change, so each is read once."""

    home: Home
    seen: set[str] = field(default_factory=set)
    found: dict[tuple[str, str], Verdict] = field(default_factory=dict)

    def of(self, persona: str, domain: str) -> Verdict | None:
        """None: nothing of it was judged, or all that was is pruned. Call under the home's lock."""
        for directory in jobs.completed(self.home):
            if directory.id in self.seen or not directory.verdict_file.exists():
                continue  # one that failed may be tried again
            self.seen.add(directory.id)
            if not jobs.is_probe(directory.id):
                job, verdict = directory.job(), Verdict.read(directory.verdict_file)
                known = self.found.get((job.persona, job.domain))
                if known is None or known.created <= verdict.created:
                    self.found[job.persona, job.domain] = verdict
        return self.found.get((persona, domain))

    def spread(self, persona: str, domain: str) -> float | None:
        """Of what the contrast gained, over questions."""
        verdict = self.of(persona, domain)
        return next((each.spread for each in verdict.findings if each.spread), None) if verdict else None
