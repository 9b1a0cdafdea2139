"""What the gate last said of each domain, for those who decide what to try next."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from genome import jobs
from genome.layout import Home
from genome.quality import Verdict

SAME_MOMENT_NS = 1_000_000_000
"""Two changes so close to each other may leave a directory with one time."""


@dataclass
class Newest:
    """The newest verdict of every domain. Completed jobs do not change, so each is read once."""

    home: Home
    seen: set[str] = field(default_factory=set)
    found: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    looked: int = 0
    """At the directory as it was then, in nanoseconds since 1970; 0: it may have changed at that very moment."""

    def of(self, persona: str, domain: str) -> Verdict | None:
        """None: nothing of it was judged, or all that was is pruned. Call under the home's lock."""
        if self._changed():
            self._look()
        return self.found.get((persona, domain))

    def _changed(self) -> bool:
        """Whether a job came or went since the last look. Thousands that lie there cost nothing."""
        place = self.home.completed_jobs
        changed = place.stat().st_mtime_ns if place.exists() else 0
        if changed == self.looked != 0:
            return False
        self.looked = changed if time.time_ns() - changed > SAME_MOMENT_NS else 0
        return True

    def _look(self) -> None:
        for directory in jobs.completed(self.home):
            if directory.id in self.seen or not directory.verdict_file.exists():
                continue  # one that failed may be tried again
            self.seen.add(directory.id)
            if not jobs.is_probe(directory.id):
                job, verdict = directory.job(), Verdict.read(directory.verdict_file)
                known = self.found.get((job.persona, job.domain))
                if known is None or known.created <= verdict.created:
                    self.found[job.persona, job.domain] = verdict

    def spread(self, persona: str, domain: str) -> float | None:
        """Of what the contrast gained, over questions."""
        verdict = self.of(persona, domain)
        return next((each.spread for each in verdict.findings if each.spread), None) if verdict else None
