"""Who is next: a queue for each owner, and the owner that was given the least goes first. No JAX, no threads."""

import collections
from collections.abc import Sequence

from serve.jobs import Full, Job

TOKENS_PER_SECOND = 200.0
"""Before anything was measured, for the first guess of how long a full queue takes."""


class Scheduler:
    """The jobs that wait.

    most_jobs, most_tokens: what may wait. Within an owner's queue the first is next; of the owners the one that was given the fewest
    tokens, so that one who floods the queue delays only itself. An owner with a name may have as many jobs and tokens wait as would still
    be free then (dynamic thresholds; Choudhury and Hahne 1998): alone half of the queue, as one of n a share of n + 1.
    """

    def __init__(self, *, most_jobs: int, most_tokens: int):
        self._most_jobs, self._most_tokens = most_jobs, most_tokens
        self._queues: dict[str, collections.deque[Job]] = {}
        self._given: dict[str, float] = {}
        self._waiting, self._tokens = 0, 0
        self.rate = TOKENS_PER_SECOND
        """Tokens a second, as the engine measures it."""

    def __len__(self) -> int:
        return self._waiting

    def add(self, *jobs: Job) -> None:
        """All of them, or Full where there is no room; ValueError for more than there ever is. What alone exceeds the tokens may wait where
        nothing else does."""
        if len(jobs) > self._most_jobs:
            raise ValueError(f"{len(jobs)} texts are asked for, and {self._most_jobs} may wait")
        cost = sum(job.cost for job in jobs)
        free_jobs, free_tokens = self._most_jobs - self._waiting - len(jobs), self._most_tokens - self._tokens - cost
        if free_jobs < 0 or (self._waiting and free_tokens < 0) or not self._fair(jobs, cost, free_jobs, free_tokens):
            raise Full(max(1.0, self._tokens / self.rate))
        for job in jobs:
            self._put(job)

    def _fair(self, jobs: Sequence[Job], cost: int, free_jobs: int, free_tokens: int) -> bool:
        """Whether jobs of one owner leave enough to the others. An owner's only job always does."""
        if not jobs[0].owner:
            return True
        mine = self._queues.get(jobs[0].owner, ())
        alone = not mine and len(jobs) == 1
        return alone or (len(mine) + len(jobs) <= free_jobs and sum(job.cost for job in mine) + cost <= free_tokens)

    def _put(self, job: Job) -> None:
        if job.owner not in self._queues:
            # Who comes new, or again, starts level with those that wait, not with a credit for the time that it did not ask.
            level = min((self._given[owner] for owner in self._queues), default=0.0)
            self._given[job.owner] = max(self._given.get(job.owner, 0.0), level)
            self._queues[job.owner] = collections.deque()
        self._queues[job.owner].append(job)
        self._waiting += 1
        self._tokens += job.cost

    def next(self) -> Job | None:
        """The job that is to begin now, taken from its queue; those that were given up are dropped on the way."""
        while self._queues:
            owner = min(self._queues, key=lambda name: self._given[name])
            job = self._take(owner)
            if not job.cancelled:
                self._given[owner] += job.cost
                return job
        self._given.clear()  # nobody waits, so nobody is owed anything
        return None

    def drop_cancelled(self) -> list[Job]:
        """Jobs that were given up while they waited."""
        return self._remove([job for queue in self._queues.values() for job in queue if job.cancelled])

    def clear(self) -> list[Job]:
        """All that waits, which nobody will begin."""
        return self._remove([job for queue in self._queues.values() for job in queue])

    def _remove(self, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            self._queues[job.owner].remove(job)
            self._forget(job)
        return jobs

    def _take(self, owner: str) -> Job:
        job = self._queues[owner].popleft()
        self._forget(job)
        return job

    def _forget(self, job: Job) -> None:
        self._waiting -= 1
        self._tokens -= job.cost
        if not self._queues[job.owner]:
            del self._queues[job.owner]
