"""One thread, one loop: let jobs in, read a chunk of their prompts, draw some tokens for all, hand out what the call before drew."""

import math
import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from model.attention.dispatch import MASKED
from model.decoding.sampling import by_row
from model.decoding.slots import Scores
from serve.jobs import Job, Piece
from serve.observe import Observed
from serve.pace import Pace
from serve.prefix import PrefixStore
from serve.programs import MOST_STEPS, NO_ADAPTER, Newcomer, Part, Programs
from serve.scheduler import Scheduler

CALL_SECONDS = 0.04
"""What a call takes while no prompt is read, as nearly as whole passes of the model allow: who comes meanwhile waits for its end."""
CALM = 16
"""Calls that a smaller bank must have been enough for before the texts move to it."""
CHUNKS_PER_STEP = 2
"""Chunks of prompts that are read before the next step, while more prompts wait than texts run."""
IDLE_SECONDS = 0.5
"""Between two signs of life while there is nothing to do."""


class Engine:
    """Continues texts in slots. `submit`, `cancel`, `swap` and `stop` may be called from any thread; all else happens on its own.

    wake: called on the engine's thread, once for each call, with the jobs that have new pieces; it must return at once.
    """

    def __init__(
        self,
        programs: Programs,
        scheduler: Scheduler,
        prefixes: PrefixStore,
        observed: Observed,
        wake: Callable[[list[Job]], Any] = lambda jobs: None,
    ):
        self._programs, self._scheduler, self._prefixes, self._observed, self._wake = programs, scheduler, prefixes, observed, wake
        self._inbox: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the scheduler
        self._bank: Any = None  # made on the thread, as rows are
        self._places = 0  # of each slot of the bank
        self._jobs: list[Job | None] = []
        self._rows: Any = None
        self._readings: list[_Reading | None] = []
        self._drawn: tuple[Any, list[Job | None], int, bool | None, float] | None = None
        self._pace = Pace()
        self._step_seconds, self._handed = CALL_SECONDS, 0.0
        self._calm, self._few, self._chunks, self._woken = 0, 1, 0, list[Job]()
        self._stopping = self._aborting = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.failed = ""
        """What ended the loop, if something did."""
        self.advanced = time.monotonic()
        """When the loop last went round."""

    # ------------------------------------------------------------------------------------------------ from any thread

    def start(self) -> None:
        self._thread.start()

    def submit(self, *jobs: Job) -> None:
        """All of them or none: Full where the queue has no room; RuntimeError once the engine has ended."""
        now = time.monotonic()
        with self._lock:
            if self._stopping or self.failed:
                raise RuntimeError(self.failed or "the engine is stopping")
            for job in jobs:
                job.times["queued"] = now
            self._scheduler.add(*jobs)
        self._inbox.put(_nothing)

    def cancel(self, job: Job, why: str = "cancelled") -> None:
        """Its slot is free within a call. A job that has ended stays as it is. why: as it is counted."""
        if not job.cancelled:
            job.cancelled, job.why = True, why
        self._inbox.put(_nothing)

    def swap(self, params: Any, done: Callable[[], Any] = lambda: None) -> None:
        """Other parameters of the same shapes, from the next call on. done: called on the engine's thread once they are there."""

        def change():
            self._programs.params = params
            self._begin_anew()
            done()

        self._inbox.put(change)

    def swap_to(self, step: int, done: Callable[[], Any] = lambda: None) -> None:
        """The parameters of another checkpoint, which are read while all texts wait: so each host reads them between the same calls."""

        def change():
            self.advanced = math.inf  # however long that takes, the engine is not stuck
            if self._programs.take(step):
                self._begin_anew()
                done()
            self.advanced = time.monotonic()

        self._inbox.put(change)

    def _begin_anew(self) -> None:
        """With other parameters: what was read by the old ones is forgotten, and prompts that are being read begin again."""
        self._prefixes.clear()
        for reading in self._being_read:
            reading.place = reading.job.cached = 0
            reading.job.scores.clear()

    def stop(self, seconds: float) -> None:
        """Take nothing new, and end once what was taken has ended; what has not within so many seconds is told so."""
        with self._lock:
            self._stopping = True
        self._inbox.put(_nothing)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._aborting = True
            self._inbox.put(_nothing)
            self._thread.join(5)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        return sum(job is not None for job in self._jobs) + len(self._being_read)

    @property
    def waiting(self) -> int:
        return len(self._scheduler)

    @property
    def _being_read(self) -> "list[_Reading]":
        return [reading for reading in self._readings if reading is not None]

    @property
    def _idle(self) -> bool:
        return not (self.running or self._drawn or self.waiting)

    # ------------------------------------------------------------------------------------------------ the loop

    def _run(self) -> None:
        try:
            self._move_to(self._programs.widths[0], self._programs.places[0])
            self._rows, self._readings = self._programs.empty_rows(), [None] * self._programs.rows
            while self._go_round():
                pass
        except BaseException as error:  # whatever it was: those who wait must learn of it
            traceback.print_exc()
            with self._lock:
                self.failed = f"{type(error).__name__}"
        finally:
            with self._lock:
                waiting = self._scheduler.clear()
            for job in [*self._jobs, *(reading.job for reading in self._being_read), *waiting]:
                if job is not None:
                    job.pieces.append(Piece([], [], finish="error"))
                    self._woken.append(job)
            self._jobs, self._readings = [], []
            self._wake_all()

    def _go_round(self) -> bool:
        self.advanced = time.monotonic()
        self._take_messages(wait=self._idle and not self._stopping)
        self._drop_cancelled()
        if self._aborting or (self._stopping and self._idle):
            return False
        self._begin()
        self._read_chunks()
        before, self._drawn = self._drawn, self._draw()
        if before is not None:
            self._hand_out(*before)
        if self._drawn is not None and any(job is not None and job.grammar for job in self._jobs):
            self._hand_out(*self._drawn)  # what may come next depends on what came
            self._drawn = None
        self._wake_all()
        used = sum(job.longest for job in self._jobs if job is not None) / (self._programs.widths[-1] * self._programs.places[-1])
        self._observed.gauge(running=self.running, waiting=self.waiting, used=used)
        return True

    def _take_messages(self, wait: bool) -> None:
        try:
            self._inbox.get(timeout=IDLE_SECONDS if wait else 0)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _drop_cancelled(self) -> None:
        with self._lock:
            dropped = self._scheduler.drop_cancelled()
        for job in dropped:
            self._end(job, Piece([], [], finish="cancelled"))
        for row, reading in enumerate(self._readings):
            if reading is not None and reading.job.cancelled:
                self._readings[row] = None
                self._end(reading.job, Piece([], [], finish="cancelled"))
        for place, held in enumerate(self._jobs):
            if held is not None and held.cancelled:
                self._jobs[place] = None
                self._end(held, Piece([], [], finish="cancelled"))

    @property
    def _may_begin(self) -> bool:
        """Whether a row is free to read a prompt in, and a slot will be for its text."""
        return None in self._readings and self.running < self._programs.widths[-1]

    def _begin(self) -> None:
        """Begin the next jobs, as many as there is room for, with what is known of their prompts."""
        while self._may_begin:
            with self._lock:
                following = self._scheduler.next()
            if following is None:
                return
            following.times["begun"] = time.monotonic()
            row = self._readings.index(None)
            reading = self._readings[row] = _Reading(following)
            if following.whole is None:
                reading.digests = self._prefixes.digests(f"{following.adapter} {following.owner}", following.ids)
            if not following.scored:
                self._from_store(row, reading)

    def _from_store(self, row: int, reading: "_Reading") -> None:
        """Take what was read before: whole chunks and, where that saves reading one, the beginning of another."""
        job, chunk = reading.job, self._programs.chunk
        for digest in reading.digests[1:]:
            part = self._prefixes.get(digest)
            if part is None:
                break
            self._rows = self._programs.paste(self._rows, row, part, reading.place)
            reading.place += chunk
        if reading.digests and not self._programs.exact:  # tokens in another place of a chunk differ in the last digits
            rest = job.ids[reading.place :]
            part, same = self._prefixes.begins_like(reading.digests[reading.place // chunk], rest[:-1])
            if -(-(len(rest) - same) // chunk) < -(-len(rest) // chunk):  # a chunk less to read, so the row has room for another start
                self._rows = self._programs.paste(self._rows, row, part, reading.place)
                reading.place += same
        job.cached = reading.place

    def _read_chunks(self) -> None:
        """Read a chunk of each prompt that is being read, and give those that are read their slots."""
        readings = {row: reading for row, reading in enumerate(self._readings) if reading is not None}
        parts = {row: self._part(reading) for row, reading in readings.items()}
        by_itself = {row for row, reading in readings.items() if reading.job.scored or reading.job.whole is not None}
        if together := parts.keys() - by_itself:
            self._rows, logits = self._programs.read(
                self._rows, {row: part._replace(ids=part.ids if row in together else []) for row, part in parts.items()}
            )
            self._have_read({row: readings[row] for row in sorted(together)}, parts, logits)
        for row in sorted(by_itself):
            reading, part = readings[row], parts[row]
            if reading.job.whole is not None:
                self._rows, logits = self._programs.read_whole(self._rows, row, part, reading.job.whole)
            else:
                following = reading.job.ids[part.start + 1 : part.start + 1 + len(part.ids)]
                self._rows, logits, scores = self._programs.score(self._rows, row, part, following)
                reading.job.scores.append(Scores(*(np.asarray(x)[: len(following)] for x in scores)))
            self._have_read({row: reading}, parts, logits)

    def _part(self, reading: "_Reading") -> Part:
        """What is read next: a chunk, or all of a prompt that is read whole."""
        job, place = reading.job, reading.place
        count = self._programs.chunk if job.whole is None else len(job.ids)
        return Part(job.ids[place : place + count], place, job.adapter)

    def _have_read(self, readings: "dict[int, _Reading]", parts: dict[int, Part], logits: Any) -> None:
        """Keep chunks of which the end was read, and give the texts slots of which all was."""
        ended = {}
        for row, reading in readings.items():
            self._keep_read(row, reading, parts[row])
            job = reading.job
            if reading.place < len(job.ids):
                continue
            self._observed.read(job.prompt_tokens, job.cached)
            if job.most:
                ended[row] = job
            else:
                self._readings[row] = None
                self._end(job, Piece([], [], finish="length"))
        if ended:
            self._insert(ended, logits)

    def _keep_read(self, row: int, reading: "_Reading", part: Part) -> None:
        """Put what was read of a prompt into the store: whole chunks and, once it is read, its end."""
        chunk, job = self._programs.chunk, reading.job
        reading.place += len(part.ids)
        for number in range(part.start // chunk, min(reading.place // chunk, len(reading.digests) - 1)):
            self._keep(row, number, reading.digests[number : number + 2], job.ids)
        if reading.place == len(job.ids) and reading.digests and not self._programs.exact:  # a longer prompt may begin with all of this one
            before, number = reading.digests[-1], len(reading.digests) - 1
            self._keep(row, number, [before, self._prefixes.digest(before, job.ids[number * chunk :])], job.ids)

    def _keep(self, row: int, number: int, digests: list[bytes], ids: list[int]) -> None:
        """Put a chunk of a row into the store, unless it is there. digests: of what stands before it, and its own."""
        chunk = self._programs.chunk
        if self._prefixes.wants(digests[1]):
            kept = self._programs.cut(self._rows, row, number * chunk)
            self._prefixes.put(digests[1], kept, self._programs.chunk_bytes, digests[0], ids[number * chunk : (number + 1) * chunk])

    def _insert(self, jobs: dict[int, Job], logits: Any) -> None:
        """Jobs whose prompts were read into rows, by these, take slots. Until they have them, they are among those that are being read."""
        self._make_room(len(jobs), max(len(job.ids) for job in jobs.values()))
        free = [place for place, job in enumerate(self._jobs) if job is None]
        newcomers = [Newcomer(place, row, job) for place, (row, job) in zip(free, jobs.items(), strict=False)]
        self._bank = self._programs.insert(self._bank, self._rows, logits, newcomers)
        for place, row, job in newcomers:
            self._jobs[place], self._readings[row], job.longest, self._few = job, None, len(job.ids), 1
            if self._looks_back:
                job.note(job.ids)
            if job.grammar is not None:
                self._mask(place, job)

    def _make_room(self, count: int, longest: int) -> None:
        """So many free slots, and places for texts of so many tokens, in a larger bank if this one has them not, and in the smallest that
        will do if nobody is in it."""
        if not any(job is not None for job in self._jobs):
            shape = self._width_of(self.running + self.waiting), self._programs.enough(longest + self._programs.guesses)
            if shape != (len(self._jobs), self._places):
                self._move_to(*shape)
        needed = len(self._jobs) - self._jobs.count(None) + count
        if needed > len(self._jobs):
            self._move_to(self._width_of(needed), self._places)
        if longest + self._programs.guesses > self._places:
            self._move_to(len(self._jobs), self._programs.enough(longest + self._programs.guesses))

    def _move_to(self, width: int, places: int) -> None:
        """To a bank with as many slots, or with as many places."""
        bank, jobs = self._programs.bank(width, places), [job for job in self._jobs if job is not None]
        for to, job in enumerate(jobs):
            bank = self._programs.move(self._bank, self._jobs.index(job), bank, to)
        self._bank, self._jobs, self._places, self._calm = bank, jobs + [None] * (width - len(jobs)), places, 0

    def _fit(self, longest: int) -> None:
        """Places enough for a text of so many tokens; and a smaller bank, once it would have done for some while."""
        width = self._width_of(self.running + self.waiting)
        places = self._programs.enough(self._programs.guesses + max([longest, *(len(reading.job.ids) for reading in self._being_read)]))
        self._calm = self._calm + 1 if width < len(self._jobs) or places < self._places else 0
        calm = self._calm > CALM
        if calm and width < len(self._jobs):
            self._move_to(width, self._places)
        if places > self._places or (calm and places < self._places):
            self._move_to(len(self._jobs), places)

    def _width_of(self, count: int) -> int:
        """Of the smallest bank for so many texts, or the largest."""
        return next((width for width in self._programs.widths if width >= count), self._programs.widths[-1])

    def _puts_off(self) -> bool:
        """Whether texts wait for another chunk of prompts. A step costs nearly the same for few texts as for many, so those who run wait
        for those who come at once with them, while these are more, and for one chunk at most."""
        run = sum(job is not None for job in self._jobs)
        read = sum(reading.job.most > 0 and reading.job.whole is None for reading in self._being_read)
        still = read + min(self.waiting, self._programs.widths[-1] - self.running)
        self._chunks = self._chunks + 1 if 0 < run < still and read else CHUNKS_PER_STEP
        if self._chunks < CHUNKS_PER_STEP:
            return True
        self._chunks = 0
        return False

    def _draw(self):
        """A call for all slots, not waited for: (what it draws, whose slots they were, its passes of the model at most or 0 beside a chunk,
        whether it guesses or None where its time tells nothing, when it began); None with nothing to draw, or where it is put off."""
        if not any(job is not None for job in self._jobs) or self._puts_off():
            return None
        guided = any(job is not None and job.grammar for job in self._jobs)
        wanted = self._being_read or (self.waiting and self._may_begin)
        # Where one text has come, others may be on their way: calls are short at first, so that those need not wait for long.
        usual = 1 if guided or wanted else max(1, min(MOST_STEPS, int(CALL_SECONDS / self._step_seconds)))
        steps = min(usual, self._few)
        self._few = min(2 * self._few, MOST_STEPS)
        guesses = 0 if guided or not self._guesses_pay() else self._programs.guesses
        for job in self._jobs:
            if job is not None:
                job.longest = min(job.longest + steps * (1 + guesses), job.places)
        self._fit(max(job.longest for job in self._jobs if job is not None))
        alive_B = np.array([job is not None for job in self._jobs])
        adapter_B = np.array([NO_ADAPTER if job is None else job.adapter for job in self._jobs], np.int32)
        self._bank, drawn = self._programs.go_on(self._bank, alive_B, steps, guesses, adapter_B)
        guessed = None if guided or wanted or steps < usual else guesses > 0
        return drawn, list(self._jobs), 0 if wanted else steps, guessed, time.monotonic()

    @property
    def _looks_back(self) -> bool:
        """Whether guesses are what stood in a text before."""
        return self._programs.guesses > 0 and not self._programs.drafts

    def _guesses_pay(self) -> bool:
        """A pass that guesses takes longer than one that does not, so it must be likely to be right: where half of the texts, as far as
        they are known, end as they went on before, or where that was seen of the small model. What is exact may not depend on others."""
        if self._programs.exact or not self._programs.guesses:
            return True
        if self._programs.drafts:
            return self._pace.choose(len(self._jobs))
        running = [job for job in self._jobs if job is not None]
        return 2 * sum(job.repeats for job in running) >= len(running)

    def _hand_out(self, drawn: Any, jobs: list[Job | None], steps: int, guessed: bool | None, began: float) -> None:
        """Bring what a call drew to the host, and give each job what is its own."""
        tokens_BN, log_probs_BN, count_B, done_B = (
            np.asarray(x) for x in (drawn.tokens_BN, drawn.log_probs_BN, drawn.count_B, drawn.done_B)
        )
        asked = any(job is not None and job.likeliest for job in jobs)
        likeliest = (np.asarray(drawn.likeliest_BNL), np.asarray(drawn.their_log_probs_BNL)) if asked else None
        total = 0
        for place, job in enumerate(jobs):
            if job is None or job.cancelled or "ended" in job.times:
                continue
            count = int(count_B[place])
            total += count
            job.drawn += count
            ids = tokens_BN[place, :count].tolist()
            if self._looks_back:
                job.note(ids)
            more = (likeliest[0][place, :count], likeliest[1][place, :count]) if likeliest is not None and job.likeliest else (None, None)
            finish = ""
            if done_B[place]:
                finish = "stop" if ids and ids[-1] in job.sampling.stop_ids else "length"
            if job.grammar is not None and ids and job.grammar.take(ids[-1]):
                finish = finish or "stop"
            piece = Piece(ids, log_probs_BN[place, :count].tolist(), more[0], more[1], finish)
            if finish:
                if place < len(self._jobs) and self._jobs[place] is job:
                    self._jobs[place] = None
                elif job in self._jobs:
                    self._jobs[self._jobs.index(job)] = None
                self._end(job, piece)
            else:
                job.times.setdefault("first", time.monotonic())
                self._give(job, piece)
                if job.grammar is not None:
                    self._mask(self._jobs.index(job), job)
        now = time.monotonic()
        seconds, self._handed = now - max(began, self._handed), now  # a call begins when the one before has ended
        if steps:
            self._step_seconds += 0.5 * (seconds / steps - self._step_seconds)
        if guessed is not None and total:  # a call behind the end of all texts draws nothing
            self._pace.measured(len(jobs), guessed, total / max(seconds, 1e-4) / max(sum(job is not None for job in jobs), 1))
        if total:
            self._scheduler.rate += 0.05 * (total / max(seconds, 1e-4) - self._scheduler.rate)
        self._observed.call(total, seconds)

    def _mask(self, place: int, job: Job) -> None:
        """Only what the grammar allows is drawn next. A text whose grammar knows no more ends as one that has no room does."""
        assert job.grammar is not None
        allowed = job.grammar.allowed()
        bias_V = None if allowed is None else _bias_of(job, allowed, self._programs.vocabulary)
        if bias_V is None or not (bias_V > MASKED / 2).any():  # nor where what else is asked for leaves nothing of it
            self._jobs[place] = None
            self._end(job, Piece([], [], finish="length"))
        else:
            self._bank = self._programs.set_bias(self._bank, place, bias_V)

    def _end(self, job: Job, piece: Piece) -> None:
        job.times["ended"] = time.monotonic()
        job.times.setdefault("first", job.times["ended"])
        self._give(job, piece)
        self._observed.ended(job, job.why if piece.finish == "cancelled" else piece.finish)

    def _give(self, job: Job, piece: Piece) -> None:
        job.pieces.append(piece)
        self._woken.append(job)

    def _wake_all(self) -> None:
        if self._woken:
            self._wake(self._woken)
            self._woken = []


class _Reading:
    """A prompt that is being read: the place of its next chunk, and the digests of its whole chunks."""

    def __init__(self, job: Job):
        self.job, self.digests, self.place = job, list[bytes](), 0


def _bias_of(job: Job, allowed: np.ndarray, vocabulary: int) -> np.ndarray:
    """The job's own bias, and MASKED for what its grammar does not allow."""
    bias_V = by_row([job.sampling], vocabulary).bias_BV[0]
    whole = np.zeros(vocabulary, bool)
    whole[: len(allowed)] = allowed[:vocabulary]
    return np.where(whole, bias_V, np.float32(MASKED))


def _nothing() -> None:
    """A message that only wakes the loop."""
