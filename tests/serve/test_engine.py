"""A text is the same alone and in a crowd, whatever came before it; and whoever leaves takes nothing along."""

import collections
import contextlib
import dataclasses
import random
import threading
import time
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from model.config import ModelConfig
from model.decoding.continuing import Drafted, guess
from model.decoding.sampling import Sampling
from model.stack import unstack_layers
from model.transformer import Decoder
from serve.engine import Engine
from serve.jobs import Full, Grammar, Job
from serve.observe import Observed
from serve.pace import Pace
from serve.prefix import PrefixStore
from serve.programs import NO_ADAPTER, Newcomer, Part, Programs
from serve.scheduler import Scheduler
from tests.serve.conftest import CHUNK, CONTEXT, END, one_by_one, result, run
from train.devices.mesh import MeshShape, make_mesh

SAMPLINGS = (
    Sampling(temperature=0.0, stop_ids=(END,)),
    Sampling(temperature=0.8, stop_ids=(END,)),
    Sampling(temperature=1.2, top_p=0.9, top_k=40, stop_ids=(END,)),
    Sampling(repetition_penalty=1.3, frequency_penalty=0.4, min_p=0.02, stop_ids=(END,)),
    Sampling(temperature=0.7, typical_p=0.8, bias=((65, 2.0),), stop_ids=(END,)),
)


def jobs(count: int = 12, most: int = 30) -> list[Job]:
    """Different prompts, of one token to several chunks, with settings and seeds of their own."""
    draw = random.Random(0)
    return [
        Job(
            [draw.randrange(256) for _ in range(draw.choice((1, 5, CHUNK, CHUNK + 1, 3 * CHUNK, 50)))],
            SAMPLINGS[i % len(SAMPLINGS)],
            i,
            most,
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def alone(make_engine):
    """What each of `jobs` becomes with nobody beside it, and nothing read before."""
    with make_engine(prefix_bytes=0) as parts:
        return one_by_one(parts.engine, jobs())


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_a_text_has_the_same_bits_in_a_crowd(make_engine, alone, pause):
    """In whichever slot, beside whomever, staggered or at once, with a prefix store or without."""
    order = list(range(12))
    random.Random(int(1 / (pause + 0.1))).shuffle(order)
    everyone = jobs()
    with make_engine() as parts:
        found = run(parts.engine, [everyone[i] for i in order], pause)
        again = run(parts.engine, [jobs()[i] for i in order], pause)  # now with prefixes that were read before
        assert len(parts.prefixes)
    for i, one, other in zip(order, found, again, strict=True):
        assert one == alone[i] and other == alone[i]


def test_tokens_are_those_of_the_generator(alone, generator):
    for job, (ids, log_probs, finish) in zip(jobs(), alone, strict=True):
        (expected,) = generator.generate([job.ids], tokens=30, sampling=_open(job.sampling), seed=job.seed)
        assert list(expected.ids) == ids and expected.finish == finish
        if job.sampling.temperature in (0.0, 1.0):  # those of the generator are what a policy draws with
            np.testing.assert_allclose(log_probs, expected.log_probs, atol=1e-4)


def test_log_probabilities_are_the_models_own(make_engine):
    """Whatever the temperature and the filters: as those of a prompt are."""
    forced = {"bias": ((9, 100.0),)}
    drawn = [Sampling(temperature=0.0, **forced), Sampling(temperature=0.5, **forced), Sampling(temperature=2.0, top_k=3, **forced)]
    with make_engine() as parts:
        first, *others = run(parts.engine, [Job([5, 6, 7], one, 0, 6) for one in drawn])
        scored = Job([5, 6, 7, *first[0]], Sampling(temperature=0.0), 0, 1, scored=True)
        run(parts.engine, [scored])
    assert first[0] == [9] * 6 and all(other == first for other in others)
    own = np.concatenate([part.log_probs_C for part in scored.scores])
    np.testing.assert_allclose(own[-6:], first[1], atol=1e-4)


def _open(sampling: Sampling) -> Sampling:
    """The generator bounds ids by itself, unless it is told others: here none are left out."""
    return dataclasses.replace(sampling, among=(0, 1 << 20))


def test_wider_and_narrower_banks_draw_the_same_tokens(make_engine, alone, monkeypatch):
    """Texts move between them as others come and go, and programs that look at fewer places do for short ones."""
    with make_engine(widths=(1, 2, 4)) as parts:
        assert parts.programs.places == (32, CONTEXT)
        moved, move_to = set(), parts.engine._move_to

        def note(width, places):
            busy = any(job is not None for job in parts.engine._jobs)
            moved.add((busy, np.sign(width - len(parts.engine._jobs)), np.sign(places - parts.engine._places)))
            move_to(width, places)

        monkeypatch.setattr(parts.engine, "_move_to", note)
        monkeypatch.setattr("serve.engine.CALM", 1)
        monkeypatch.setattr("serve.engine.MOST_STEPS", 1)  # many calls, between which they may move
        found = run(parts.engine, jobs())
        late = one_by_one(parts.engine, jobs()[:6])
        (long,) = jobs(most=80)[4:5]
        long.signal = threading.Event()
        parts.engine.submit(long)
        long.signal.wait(10)
        few = [*run(parts.engine, jobs(most=2)[:4]), result(long)]
        short, large = (Job([7] * count, Sampling(temperature=0.0), 0, most) for count, most in ((1, 24), (40, 2)))
        beside, _ = run(parts.engine, [short, large])
        assert beside[0] == run(parts.engine, [Job([7], Sampling(temperature=0.0), 0, 24)])[0][0]
        assert {(True, 1, 0), (True, -1, 0), (True, 0, 1), (True, 0, -1)} <= moved and any(not busy for busy, *_ in moved)
    for (ids, log_probs, finish), (expected, their, why) in zip([*found, *late, few[-1]], [*alone, *alone[:6], alone[4]], strict=True):
        assert ids[: len(expected)] == expected and (finish == why or len(ids) > len(expected))
        np.testing.assert_allclose(log_probs[: len(their)], their, atol=1e-4)
    assert [ids for ids, *_ in few[:4]] == [ids[:2] for ids, *_ in alone[:4]]


@pytest.mark.parametrize("exact", [True, False])
def test_guesses_change_no_text(make_engine, alone, model, exact):
    """Texts that repeat themselves, so that some are right, and others; up to the context's end; with penalties and a grammar."""
    programs = Programs(*model, widths=(4,), size=CONTEXT + CHUNK, chunk=CHUNK, rows=2, exact=exact, guesses=3)
    programs.compile()
    repeats = [Job([5, 6, 7, 8] * 9, Sampling(temperature=0.0, bias=((5 + i % 4, 8.0), (6, 8.0))), i, CONTEXT - 36) for i in range(4)]
    guided = Job([1, 2] * 4, Sampling(stop_ids=(END,)), 0, 30, grammar=Letters(programs.vocabulary))
    with make_engine() as parts:
        expected = run(parts.engine, [dataclasses.replace(job, pieces=collections.deque(), times={}) for job in repeats])
    with make_engine(programs=programs) as parts:
        found = run(parts.engine, [*jobs(), *repeats, guided])
    for (ids, log_probs, finish), (their, theirs, why) in zip(found, [*alone, *expected], strict=False):
        assert ids == their and finish == why
        np.testing.assert_allclose(log_probs, theirs, atol=1e-4)
    assert len(found[-1][0]) == 6 and found[-1][0][-1] == END


@pytest.fixture(scope="module")
def drafted(model):
    """drafted(other, ...) -> programs of the model with another beside it, which guesses."""

    def make(draft, params, **options):
        given = {"size": CONTEXT + CHUNK, "chunk": CHUNK, "rows": 2, "exact": False, "guesses": 3} | options
        programs = Programs(Drafted(model[0], draft), model[1], draft=params, **given)
        programs.compile()
        return programs

    return make


def test_a_small_model_changes_no_text(make_engine, alone, drafted):
    """One that knows nothing of the other; in banks of two widths, behind prompts that were read before, and beside a grammar."""
    config = ModelConfig(vocab_size=384, context_length=CONTEXT, num_layers=1, embed_dim=16, num_heads=1, positions="rotary")
    params = unstack_layers(nn.unbox(Decoder(config).start(jax.random.key(3))))
    programs = drafted(Decoder(config), params, widths=(1, 4))
    guided = Job([1, 2] * 4, Sampling(stop_ids=(END,)), 0, 30, grammar=Letters(programs.vocabulary))
    with make_engine(programs=programs) as parts:
        found = [*run(parts.engine, [*jobs(), guided]), *run(parts.engine, jobs())]
        assert len(parts.prefixes)
    for (ids, log_probs, finish), (their, theirs, why) in zip(found[:12] + found[13:], [*alone, *alone], strict=True):
        assert ids == their and finish == why
        np.testing.assert_allclose(log_probs, theirs, atol=1e-4)
    assert len(found[12][0]) == 6 and found[12][0][-1] == END


def test_a_model_that_is_its_own_draft_is_always_right(drafted, model):
    """Drawn at any temperature: the same numbers fall for both. Each pass gives all its guesses and one token more."""
    programs = drafted(*model, widths=(1,), size=CONTEXT)
    rows, logits = programs.read(programs.empty_rows(), {0: Part([7] * 8, 0)})
    for number, sampling in enumerate((Sampling(temperature=0.0), Sampling(temperature=1.2, top_p=0.95), Sampling(top_k=30, min_p=0.01))):
        job = Job([7] * 8, sampling, number, 40)
        bank = programs.insert(programs.bank(1, CONTEXT), rows, logits, [Newcomer(0, 0, job)])
        for _ in range(2):
            bank, drawn = programs.go_on(bank, np.ones(1, bool), 3, 3, np.full(1, NO_ADAPTER, np.int32))
            assert int(drawn.count_B[0]) == 12


def test_it_goes_the_way_that_was_faster_and_tries_the_other_now_and_then():
    pace, made = Pace(), []
    for _ in range(200):
        guessed = pace.choose(4)
        made.append(guessed)
        pace.measured(4, guessed, 30.0 if guessed else 20.0)
    assert 0.9 < np.mean(made) < 1.0
    pace, made = Pace(), []
    for _ in range(200):
        guessed = pace.choose(1)
        made.append(guessed)
        pace.measured(1, guessed, 10.0 if guessed else 20.0)
    assert 0.0 < np.mean(made) < 0.1
    assert pace.choose(4)  # nothing is known of another width


def test_a_call_is_measured_only_where_its_time_tells_something(make_engine, drafted, model, monkeypatch):
    """Not that of one token for a grammar, of one beside a prompt, nor of the short ones that a text begins with."""
    programs, seen = drafted(*model, widths=(4,)), []
    with make_engine(programs=programs) as parts:
        parts.engine._pace = SimpleNamespace(choose=lambda width: True, measured=lambda *given: seen.append(given))
        monkeypatch.setattr("serve.engine.CALL_SECONDS", 1e6)  # however slow a step is, a usual call has many
        run(parts.engine, [Job([1, 2], Sampling(stop_ids=(END,)), 0, 30, grammar=Letters(programs.vocabulary))])
        assert not seen
        run(parts.engine, [Job([3], Sampling(temperature=0.0, bias=((3, 100.0),)), 0, 2)])
        assert not seen
        run(parts.engine, [Job([3], Sampling(temperature=0.0, bias=((3, 100.0),)), 0, 110)])
    assert seen and all(width == 4 and guessed and rate > 0 for width, guessed, rate in seen)


def test_a_guess_is_what_followed_before():
    def found(*ids: int, guesses: int = 2):
        row = np.zeros((1, 12), np.int32)
        row[0, : len(ids)] = ids
        return np.asarray(guess(row, np.array([len(ids)]), guesses))[0].tolist()

    assert found(1, 2, 3, 4, 1, 2) == [3, 4]
    assert found(1, 2, 3, 1, 2, 4, 1, 2) == [4, 1]  # the last time
    assert found(9, 1, 2, 3, 1, 2, 4, 9, 1, 2) == [3, 1]  # three tokens tell more than two
    assert len(found(1)) == len(found(1, 2, 3)) == 2  # nothing was there before: whatever they are


def test_a_right_guess_spares_a_pass(model):
    """A text that a bias makes repeat a token: each pass keeps its three guesses, also where a call makes one pass alone."""
    from model.decoding.continuing import go_on as program

    passes = []
    programs = Programs(*model, widths=(1,), size=CONTEXT, chunk=CHUNK, exact=True, guesses=3)
    rows, logits = programs.read(programs.empty_rows(), {0: Part([7] * 8, 0)})
    job = Job([7] * 8, Sampling(temperature=0.0, bias=((7, 100.0),)), 0, 16)
    bank = programs.insert(programs.bank(1, CONTEXT), rows, logits, [Newcomer(0, 0, job)])

    class Counted:
        """The model, counting its passes as they are run."""

        config = model[0].config

        def apply(self, *given, **more):
            jax.debug.callback(lambda: passes.append(1))
            return model[0].apply(*given, **more)

    call = jax.jit(
        lambda steps, guesses: program(Counted(), model[1], bank, np.ones(1, bool), steps, most=8, guesses=guesses)[1], static_argnums=1
    )
    for steps, guesses, count, needed in ((8, 3, 16, 4), (1, 3, 4, 1), (3, 3, 12, 3), (3, 0, 3, 3)):
        passes.clear()
        drawn = call(steps, guesses)
        assert drawn.tokens_BN[0, :count].tolist() == [7] * count and int(drawn.count_B[0]) == count
        jax.effects_barrier()
        assert len(passes) == needed


def test_it_guesses_where_texts_repeat_themselves_and_not_where_they_do_not(make_engine, model, monkeypatch):
    """A pass that guesses takes longer. What is known of a text is a call old, so the first call knows the prompt alone."""
    programs = Programs(*model, widths=(2,), size=CONTEXT + CHUNK, chunk=CHUNK, rows=2, exact=False, guesses=3)
    programs.compile()
    made, go_on = [], programs.go_on

    def noted(bank, alive_B, steps, guesses, adapter_B):
        made.append(guesses)
        return go_on(bank, alive_B, steps, guesses, adapter_B)

    monkeypatch.setattr(programs, "go_on", noted)
    repeats = Job([5, 6, 5, 6], Sampling(temperature=0.0, bias=((5, 100.0),)), 0, 40)
    varies = Job([1, 2, 3], Sampling(temperature=1.0, bias=tuple((i, -100.0) for i in range(40))), 3, 12)
    with make_engine(programs=programs) as parts:
        ((ids, *_),) = run(parts.engine, [repeats])
        assert ids == [5] * 40 and made.count(3) > len(made) / 2
        made.clear()
        run(parts.engine, [varies])
        assert made and made.count(3) <= len(made) / 4


def test_nothing_is_compiled_once_the_programs_are(make_engine):
    import jax

    compiled = []
    with make_engine(widths=(1, 2, 4)) as parts:
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
        )
        run(parts.engine, jobs(24), 0.01)
    assert not compiled


@pytest.mark.parametrize("axis", ["tensor", "fsdp"])
def test_parameters_may_lie_on_several_devices(make_engine, spread, alone, axis):
    """Split as in training, by heads and widths or by rows of each table: the same texts, and nothing is compiled later."""
    model, params = spread(make_mesh(MeshShape(data=1, **{axis: 2}), jax.devices()[:2]))
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
    programs = Programs(model, params, widths=(4,), size=CONTEXT, chunk=CHUNK, rows=2, exact=True)
    programs.compile()
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    with make_engine(programs=programs) as parts:
        found = run(parts.engine, jobs())
    assert not [event for event in compiled if event.endswith("backend_compile_duration")]
    for (ids, log_probs, finish), (expected, their, why) in zip(found, alone, strict=True):
        assert ids == expected and finish == why
        np.testing.assert_allclose(log_probs, their, atol=1e-4)


def test_a_prefix_that_was_read_is_not_read_again(make_engine, monkeypatch):
    with make_engine() as parts:
        read, whole = [], parts.programs.read
        monkeypatch.setattr(
            parts.programs,
            "read",
            lambda rows, of: (read.extend(part.start for part in of.values() if part.ids != [0]), whole(rows, of))[1],
        )
        prompt = list(range(4 * CHUNK + 3))
        first, second, other = (Job(prompt, SAMPLINGS[0], 0, 4, owner=owner) for owner in ("a", "a", "b"))
        answers = one_by_one(parts.engine, [first, second, other])
        assert answers[0] == answers[1] == answers[2]
        assert (first.cached, second.cached, other.cached) == (0, 4 * CHUNK, 0)  # another owner's prefixes are not seen
        assert read == [0, 16, 32, 48, 64, 64, 0, 16, 32, 48, 64]


def test_the_beginning_of_a_chunk_that_was_read_is_not_read_again(make_engine):
    """Where that saves a chunk; what is written is the same, and what was read on from there is kept for others."""
    draw = random.Random(5)
    shared, ends = ([draw.randrange(low, low + 128) for _ in range(count)] for low, count in ((0, 3 * CHUNK + 10), (128, 60)))
    prompts = [[*shared, *ends[:20]], [*shared, *ends[30:44]], [*shared, *ends[30:50]], [*shared[:-3], *ends[:CHUNK]], shared[: CHUNK + 5]]
    prompts.append([*prompts[0], *ends[20:30]])
    with make_engine(widths=(1, 4), prefix_bytes=0) as parts:
        alone = one_by_one(parts.engine, [Job(prompt, SAMPLINGS[0], 0, 8) for prompt in prompts])
    with make_engine(widths=(1, 4)) as parts:
        made = [Job(prompt, SAMPLINGS[0], 0, 8) for prompt in prompts]
        found = one_by_one(parts.engine, made)
        # The second reads 14 tokens in one chunk instead of 24 in two; its own fourth chunk then serves the third whole. The last goes on
        # where the first ended.
        assert [job.cached for job in made] == [0, len(shared), 4 * CHUNK, len(shared) - 3, CHUNK, len(prompts[0])]
        other = Job(prompts[1], SAMPLINGS[0], 0, 8, owner="b")
        one_by_one(parts.engine, [other])
        assert other.cached == 0
    for (ids, log_probs, finish), (expected, their, why) in zip(found, alone, strict=True):
        assert ids == expected and finish == why
        np.testing.assert_allclose(log_probs, their, atol=1e-4)


def test_the_store_drops_what_was_not_used_for_longest(make_engine):
    with make_engine(prefix_bytes=0) as parts:
        run(parts.engine, [Job(list(range(60)), SAMPLINGS[0], 0, 2)])
        assert len(parts.prefixes) == parts.prefixes.bytes == 0
    with make_engine() as parts:
        run(parts.engine, [Job(list(range(60)), SAMPLINGS[0], 0, 2)])
        assert len(parts.prefixes) == 3
        size = parts.prefixes.bytes // 3
    with make_engine(prefix_bytes=4 * size) as parts:
        one_by_one(parts.engine, [Job([i, *range(60)], SAMPLINGS[0], 0, 2) for i in range(9)])
        assert len(parts.prefixes) == 4 and parts.prefixes.bytes == 4 * size


def idle(parts) -> None:
    """Everything given back."""
    until = time.monotonic() + 10
    while parts.engine.running or parts.engine.waiting:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert all(job is None for job in parts.engine._jobs) and not any(parts.engine._readings)


def test_who_is_cancelled_at_any_moment_changes_nobody_else(make_engine, alone):
    draw = random.Random(3)
    with make_engine() as parts:
        some = jobs(36)
        for job in some:
            job.signal = threading.Event()
        gone = [job for i, job in enumerate(some) if i >= 12]
        order = list(some)
        draw.shuffle(order)
        for job in order:
            parts.engine.submit(job)
            if draw.random() < 0.5 and gone:
                time.sleep(0.02 * draw.random())
                parts.engine.cancel(gone.pop())
        for job in gone:
            parts.engine.cancel(job)
        assert [result(job) for job in some[:12]] == alone
        ends = [result(job)[2] for job in some[12:]]
        assert "cancelled" in ends
        idle(parts)


def test_a_cancelled_text_leaves_its_slot_within_a_call(make_engine):
    with make_engine(widths=(1,)) as parts:
        long, short = Job([1, 2, 3], Sampling(temperature=0.0), 0, CONTEXT - 3), Job([4], SAMPLINGS[0], 0, 2)
        for job in (long, short):
            job.signal = threading.Event()
        parts.engine.submit(long)
        long.signal.wait(10)
        parts.engine.submit(short)
        parts.engine.cancel(long)
        assert result(short)[2] in ("stop", "length") and result(long)[2] == "cancelled"
        assert long.drawn < CONTEXT - 3


def test_a_full_queue_takes_all_of_a_request_or_nothing(make_engine):
    with make_engine(widths=(1,), most_jobs=3) as parts:
        busy = Job([1], Sampling(temperature=0.0), 0, 100)
        busy.signal = threading.Event()
        parts.engine.submit(busy)
        busy.signal.wait(10)
        parts.engine.submit(*(Job([2], SAMPLINGS[0], 0, 1) for _ in range(2)))
        with pytest.raises(Full) as full:
            parts.engine.submit(*(Job([2], SAMPLINGS[0], 0, 1) for _ in range(2)))
        assert full.value.seconds >= 1 and parts.engine.waiting == 2
        parts.engine.cancel(busy)
        idle(parts)


def test_one_who_floods_the_queue_delays_itself(make_engine):
    with make_engine(widths=(1,)) as parts:
        flood = [Job([7, i], SAMPLINGS[0], 0, 20, owner="flood") for i in range(12)]
        parts.engine.submit(*flood)
        one = Job([9], SAMPLINGS[0], 0, 20, owner="other")
        one.signal = threading.Event()
        parts.engine.submit(one)
        result(one)
        idle(parts)
        between = [job for job in flood if one.times["queued"] < job.times["begun"] < one.times["begun"]]
        assert len(between) <= 1 and sum(job.times["begun"] > one.times["begun"] for job in flood) >= 8


def test_a_text_ends_at_its_limit_and_at_the_contexts_end(make_engine):
    with make_engine() as parts:
        free = Sampling(temperature=0.0)
        (ids, _, finish), (others, _, why) = run(parts.engine, [Job([1] * 20, free, 0, 7), Job([1] * 20, free, 0, CONTEXT - 20)])
        assert len(ids) == 7 and finish == why == "length" and len(others) == CONTEXT - 20 and others[:7] == ids


def test_the_likeliest_tokens_are_given_where_they_are_asked_for(make_engine):
    with make_engine() as parts:
        asks, asks_not = Job([3, 4], Sampling(temperature=0.0), 0, 5, likeliest=True), Job([3, 4], Sampling(temperature=0.0), 0, 5)
        pieces = []
        for job in (asks, asks_not):
            job.signal = threading.Event()
            parts.engine.submit(job)
        while not any(piece.finish for piece in pieces):
            asks.signal.wait(10)
            while asks.pieces:
                pieces.append(asks.pieces.popleft())
        ids, likeliest = sum((piece.ids for piece in pieces), []), np.concatenate([piece.likeliest for piece in pieces])
        log_probs, theirs = np.concatenate([p.log_probs for p in pieces]), np.concatenate([p.their_log_probs for p in pieces])
        assert (likeliest[:, 0] == ids).all() and (np.diff(theirs) <= 0).all()  # greedy draws the first
        np.testing.assert_allclose(theirs[:, 0], log_probs, atol=1e-6)
        assert result(asks_not)[0] == ids


@pytest.mark.parametrize("widths", [(4,), (1, 2, 4)], ids=["exact", "not exact"])
def test_scores_of_a_prompt_are_the_same_beside_others(make_engine, widths):
    """Its chunks are read by themselves, in turns with those that others have read together."""
    draw = random.Random(6)
    prompt = [draw.randrange(256) for _ in range(6 * CHUNK + 5)]

    def scored() -> Job:
        return Job(prompt, SAMPLINGS[0], 0, 5, scored=True)

    def scores(job: Job) -> np.ndarray:
        return np.concatenate([part.log_probs_C for part in job.scores])

    with make_engine(widths=widths, prefix_bytes=0) as parts:
        lonely = scored()
        (expected,) = run(parts.engine, [lonely])
        assert len(scores(lonely)) == len(prompt) - 1
        for _ in range(3):
            beside = [scored(), *jobs(6)]
            beside[1:] = [dataclasses.replace(job, ids=prompt[: 3 * CHUNK + i]) for i, job in enumerate(beside[1:])]
            (ids, log_probs, finish), *_ = run(parts.engine, beside)
            np.testing.assert_allclose(scores(beside[0]), scores(lonely), atol=1e-4)
            assert (ids, finish) == (expected[0], expected[2])
            np.testing.assert_allclose(log_probs, expected[1], atol=1e-4)


class Letters(Grammar):
    """Lower-case letters, then the end after five."""

    def __init__(self, vocabulary: int):
        self.taken, self._vocabulary = 0, vocabulary

    def allowed(self):
        found = np.zeros(self._vocabulary, bool)
        found[list(range(97, 123)) if self.taken < 5 else [END]] = True
        return found

    def take(self, token: int) -> bool:
        self.taken += 1
        return token == END


class Lost(Grammar):
    """Knows what comes first, and nothing behind that."""

    def __init__(self, vocabulary: int):
        self.allowed_first: np.ndarray | None = np.ones(vocabulary, bool)

    def allowed(self):
        return self.allowed_first

    def take(self, token: int) -> bool:
        self.allowed_first = None
        return False


def test_a_text_whose_grammar_knows_no_more_has_not_ended_well(make_engine, alone):
    """It is cut, as one that has no room is: nobody takes it for whole. Its slot is free for others."""
    with make_engine() as parts:
        lost = [Job([1, 2], Sampling(stop_ids=(END,)), i, 30, grammar=Lost(parts.programs.vocabulary)) for i in range(5)]
        found = run(parts.engine, [*jobs(), *lost])
    assert [one[0] for one in found[:12]] == [one[0] for one in alone]
    assert all(finish == "length" and len(ids) == 1 for ids, _, finish in found[12:])


def test_a_prompt_that_is_read_while_parameters_change_leaves_nothing_of_the_old_ones(make_engine, model):
    """The store would keep what they made, and give it to prompts that begin alike."""
    prompt, other = list(range(60)), jax.tree.map(lambda x: x * 1.5, model[1])

    def asked(seed: int) -> Job:
        return Job(prompt, Sampling(temperature=0.0), seed, 12)

    with make_engine() as parts:
        parts.engine.swap(other)
        expected = run(parts.engine, [asked(0)])[0]
        parts.engine.swap(model[1])
        run(parts.engine, [asked(0)])
        read, swaps = parts.programs.read, [other]

        def read_and_swap(rows, now):
            if swaps and any(part.start == CHUNK for part in now.values()):  # in the middle of the prompt
                parts.engine.swap(swaps.pop())
            return read(rows, now)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts.programs, "read", read_and_swap)
            parts.prefixes.clear()
            run(parts.engine, [asked(1)])
        assert run(parts.engine, [asked(2)])[0] == expected == run(parts.engine, [asked(3)])[0]


def test_a_grammar_is_obeyed_and_others_are_not_disturbed(make_engine, alone):
    with make_engine() as parts:
        guided = [Job([i], Sampling(stop_ids=(END,)), i, 30, grammar=Letters(parts.programs.vocabulary)) for i in range(3)]
        found = run(parts.engine, [*guided, *jobs()])
        for ids, _, finish in found[:3]:
            assert len(ids) == 6 and ids[-1] == END and finish == "stop" and all(97 <= id_ < 123 for id_ in ids[:5])
        assert found[3:] == alone


def test_parameters_are_swapped_between_calls(make_engine, model, alone):
    import jax

    with make_engine() as parts:
        before = run(parts.engine, [jobs()[0]])
        parts.engine.swap(jax.tree.map(lambda x: x * 1.5, model[1]))
        assert run(parts.engine, [jobs()[0]]) != before and before == [alone[0]]
        parts.engine.swap(model[1])
        assert run(parts.engine, [jobs()[0]]) == before


@pytest.mark.parametrize("call", ["go_on", "insert"])
def test_an_engine_that_fails_tells_everyone(call, make_engine, monkeypatch):
    with make_engine(widths=(4,)) as parts:

        def broken(*_):
            raise RuntimeError("no")

        monkeypatch.setattr(parts.programs, call, broken)
        some = jobs(3)
        for job in some:
            job.signal = threading.Event()
        parts.engine.submit(*some)
        assert [result(job)[2] for job in some] == ["error"] * 3
        parts.engine._thread.join(5)
        with pytest.raises(RuntimeError, match="RuntimeError"):
            parts.engine.submit(jobs(1)[0])


@pytest.mark.parametrize("waiting, wanted", [((3, 1, 3), ["read", "read", "go_on"]), ((3,), ["read", "go_on", "read", "go_on"])])
def test_who_begins_waits_for_a_crowd_and_not_for_one_long_prompt(waiting, wanted, make_engine):
    """waiting: chunks of the prompts that come with one of a single chunk. A crowd costs it one more chunk before its first token."""
    calls = []

    class Watched:
        def __getattr__(self, name):
            found = getattr(programs, name)
            return found if name not in wanted else lambda *given: (calls.append(name), found(*given))[1]

    with make_engine() as parts:
        programs = parts.programs
    some = [Job([1] * CHUNK * chunks, Sampling(temperature=0.0), 0, 8) for chunks in (1, *waiting)]
    engine = Engine(Watched(), Scheduler(most_jobs=9, most_tokens=10_000), PrefixStore(chunk=CHUNK, most_bytes=0), Observed())
    engine.submit(*some)
    engine.start()
    engine.stop(60)
    assert calls[: len(wanted)] == wanted and all(job.drawn == 8 for job in some)


def test_a_stop_lets_running_texts_end_and_refuses_new_ones(make_engine, alone):
    with make_engine() as parts:
        some = jobs()[:2]
        for job in some:
            job.signal = threading.Event()
        parts.engine.submit(*some)  # and at once: what was taken, waits, and is not begun, is not lost
        ending = threading.Thread(target=parts.engine.stop, args=(30,))
        ending.start()
        assert [result(job) for job in some] == alone[:2]
        ending.join(10)
        with pytest.raises(RuntimeError, match="stopping"):
            parts.engine.submit(jobs(1)[0])


def test_one_owner_leaves_room_in_the_queue_to_others():
    """Whoever floods it gets half; and each of two a third."""
    queue = Scheduler(most_jobs=12, most_tokens=10_000)

    def put(owner: str) -> int:
        count = 0
        with contextlib.suppress(Full):
            while True:
                queue.add(Job([1], Sampling(), 0, 4, owner=owner))
                count += 1
        return count

    assert put("eve") == 6 and put("ann") == 3 and put("bob") == 1
    assert len(queue.clear()) == 10 and put("") == 12  # without keys there is nobody to leave room to
    queue.clear()
    with pytest.raises(Full):  # nor at once
        queue.add(*(Job([1], Sampling(), 0, 4, owner="eve") for _ in range(7)))
    queue.add(Job([1], Sampling(), 0, 20_000, owner="eve"))  # one alone, however large
