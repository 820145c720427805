"""A checkpoint is what was saved, to the bit, or it is not restored; what a failed save leaves never counts as one."""

import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import omnia
from data.errors import UserError
from model.config import ModelConfig
from tests.train.checkpoints.states import ABSTRACT, IDENTITY, STRANGER, flip, same, small_state
from tests.train.conftest import change
from tests.train.tiny_runs import start, train
from train.checkpoints import checkpointer as module
from train.checkpoints.checkpointer import Checkpointer, load_parameters
from train.checkpoints.journal import Journal, Part, decode, encode, kept, share
from train.devices.mesh import inference_mesh, make_mesh
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule, TextData
from train.runs.directory import open_run


@pytest.fixture
def make(tmp_path):
    """Checkpointers on the same folder, closed at the end; what they say is in `make.said`."""
    made = []

    def make(identity: str = IDENTITY, **options) -> Checkpointer:
        made.append(Checkpointer(tmp_path, Checkpoints(**options), identity=identity, said=make.said.append))
        return made[-1]

    make.said, make.folder = [], tmp_path / "checkpoints"
    yield make
    for one in made:
        one.close()


def save(checkpointer: Checkpointer, *steps: int, **options) -> None:
    for step in steps:
        checkpointer.save(small_state(step), {"seconds": step, "loss": 1 / step}, **options)
    checkpointer.wait()


def copy_of(checkpoints: Path, tmp_path: Path) -> Path:
    """A fresh run folder with these checkpoints."""
    run = tmp_path / "copy"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(checkpoints, run / "checkpoints")
    return run


# ------------------------------------------------------------------------------------------------------------------- restoring


def test_what_is_restored_is_what_was_saved(make):
    checkpointer = make()
    save(checkpointer, 1, 2)
    assert checkpointer.steps() == [1, 2]
    for step in (None, 1, 2):
        state, progress = make().restore(ABSTRACT, step)
        assert same(state, small_state(step or 2)) and progress["seconds"] == (step or 2)
    params, step = make().restore_parameters(ABSTRACT.ema, averaged=True, step=1)
    assert step == 1 and same(params, small_state(1).ema)
    assert not make.said


@pytest.mark.parametrize("least, files", [(1, 8), (module.SHARED_WRITE_BYTES, 1)], ids=["divided", "by the first"])
def test_replicas_divide_the_writing_of_what_is_large(make, monkeypatch, least, files):
    monkeypatch.setattr(module, "SHARED_WRITE_BYTES", least)
    everywhere = jax.NamedSharding(make_mesh(MeshShape(data=8), jax.devices()), jax.P())
    checkpointer, state = make(), jax.device_put(small_state(1), everywhere)
    checkpointer.save(state, {})
    checkpointer.wait()
    assert len([path for path in (make.folder / "1/params/table").iterdir() if path.name[0].isdigit()]) == files
    for abstract in (ABSTRACT, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), ABSTRACT)):
        assert same(make().restore(abstract)[0], small_state(1))


DAMAGE = {
    "one bit": lambda path: flip(path, 8 * (path.stat().st_size // 2) + 3),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": lambda path: path.unlink(),
    "another file beside it": lambda path: path.with_name("0.7").write_bytes(b"stray"),
}


def test_a_damaged_checkpoint_is_named_and_passed_over(make, tmp_path):
    """Whatever is damaged of the newest step, the one before is restored, and the line names the file and its array."""
    save(make(keep=3), 1, 2, 3)
    files = {
        "3/params/layers.up/0.0.0": "params/layers.up",
        "3/rest/opt_state.mu/.zarray": "rest/opt_state.mu",
        "3/progress/metadata": "",
        "3/_CHECKPOINT_METADATA": "",
        "journal/3-0-of-1.json": "",
    }
    for kind, damage in DAMAGE.items():
        for file, leaf in files.items():
            if kind == "another file beside it" and not leaf:
                continue
            run, said = copy_of(make.folder, tmp_path), []
            damage(run / "checkpoints" / file)
            checkpointer = Checkpointer(run, identity=IDENTITY, said=said.append)
            state, _ = checkpointer.restore(ABSTRACT)
            with pytest.raises(UserError, match=r"step 3 is damaged|no checkpoint of step 3"):
                checkpointer.restore(ABSTRACT, 3)
            checkpointer.close()
            assert same(state, small_state(2)), (kind, file)
            named = file.replace("0.0.0", "0.7").replace(".zarray", "0.7") if kind == "another file beside it" else file
            assert named in said[0] or (kind == "gone" and "journal" in said[0]), (kind, file, said)
            assert leaf in said[0]


def test_only_the_files_that_are_read_count(make):
    """Who reads the average alone is not stopped by damage in the optimizer's state; who goes on with the run is."""
    save(make(), 1, 2)
    flip(make.folder / "2/rest/opt_state.mu/0.0", 99)
    assert make().restore_parameters(ABSTRACT.ema, averaged=True)[1] == 2 and not make.said
    assert int(make().restore(ABSTRACT)[0].step) == 1
    assert "expected digest" in make.said[0] and "found" in make.said[0]


def test_when_nothing_is_whole_the_user_is_told(make):
    save(make(), 1)
    flip(make.folder / "1/params/table/0.0", 5)
    with pytest.raises(UserError, match="no checkpoint is whole"):
        make().restore(ABSTRACT)


def test_a_checkpoint_of_another_run_is_refused_by_name(make):
    save(make(identity=STRANGER), 1)
    with pytest.raises(UserError, match=f"expected a checkpoint of the run {IDENTITY}, found one of the run {STRANGER}"):
        make().restore(ABSTRACT, 1)
    assert int(make(identity="").restore(ABSTRACT, 1)[0].step) == 1


def test_a_step_cannot_pass_for_another(make):
    """The files and the manifest of step 1 under the name of step 2."""
    save(make(), 1, 2)
    shutil.rmtree(make.folder / "2")
    shutil.copytree(make.folder / "1", make.folder / "2")
    with pytest.raises(UserError, match="damaged"):
        make().restore(ABSTRACT, 2)
    shutil.copy(make.folder / "journal/1-0-of-1.json", make.folder / "journal/2-0-of-1.json")
    with pytest.raises(UserError, match="it is 1-0-of-1"):
        make().restore(ABSTRACT, 2)


def test_another_kind_of_state_is_refused_with_the_array(make):
    save(make(), 1)
    wide = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=ABSTRACT.ema["table"].sharding)
    with pytest.raises(UserError, match=r"checkpoints/1: cannot be restored: params/table is \(64, 16\), asked \(8, 16\)"):
        make().restore(ABSTRACT.replace(params=ABSTRACT.params | {"table": wide}))
    with pytest.raises(UserError, match=r"checkpoints/1: cannot be restored: params/more is not there"):
        make().restore(ABSTRACT.replace(params=ABSTRACT.params | {"more": wide}))
    with pytest.raises(UserError, match="cannot be restored"):
        make().restore(ABSTRACT.replace(params={"table": ABSTRACT.params["table"]}))


def test_a_flipped_bit_of_a_manifest_is_seen(make):
    """Every bit of it: also one in the loss or in the mark of a good step, which no digest of a file covers."""
    content = encode(Part(7, 0, 1, IDENTITY, (), True, 0.5))
    assert decode(content) == Part(7, 0, 1, IDENTITY, (), True, 0.5)
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError):
            decode(bytes(changed))


# ---------------------------------------------------------------------------------------------------------------------- saving


def test_a_step_exists_only_when_every_process_has_vouched_for_it(make):
    """Three processes, each with its share of the files: no step until the last part is there, and no file without a digest."""
    save(make(), 1)
    shutil.copytree(make.folder / "1", make.folder / "5")
    journal = Journal(make.folder)
    for part in (2, 0, 1):
        assert journal.steps() == [1] and part in journal.missing(5, 3) and journal.unfinished() == [5]
        journal.record(5, part=part, parts=3, identity=IDENTITY, good=True, loss=None)
    assert journal.steps() == [1, 5] and journal.missing(5, 3) == []
    (make.folder / "5/params/table/0.0").write_bytes(b"")
    found = [journal.damage(5, part=part, parts=3) for part in range(3)]
    assert sorted(map(len, found)) == [0, 0, 1]


def test_a_dead_save_is_not_a_checkpoint_and_goes_with_the_next_one(make):
    """Folders that were not finished or not vouched for go; a stranger's file stays, and who only reads removes nothing."""
    save(make(), 1, 2)
    shutil.copytree(make.folder / "2", make.folder / "3")
    shutil.copytree(make.folder / "2", make.folder / "4.orbax-checkpoint-tmp")
    (make.folder / "notes.txt").write_text("mine")
    (make.folder / "journal/3-0-of-2.json").write_text("{")
    reader = make()
    assert reader.latest_step() == 2 and int(reader.restore(ABSTRACT)[0].step) == 2
    assert "step 3 has no complete manifest" in make.said[0]
    assert (make.folder / "3").exists() and (make.folder / "4.orbax-checkpoint-tmp").exists()
    save(reader, 3)
    names = {path.name for path in make.folder.iterdir()}
    assert names == {"2", "3", "journal", "notes.txt"} and reader.steps() == [2, 3]
    assert same(make().restore(ABSTRACT)[0], small_state(3))


def test_checkpoints_without_a_journal_are_left_alone(make, tmp_path):
    save(make(), 1)
    shutil.rmtree(make.folder / "journal")
    with pytest.raises(UserError, match="older version"):
        make()
    assert (make.folder / "1").exists()


def test_a_failed_save_stops_nothing_and_is_no_step(make, monkeypatch):
    """Two saves in a row fail in the thread: one warning, no phantom step, nothing left behind; then it works again, and says so."""
    checkpointer = make()
    save(checkpointer, 1)
    record = Journal.record

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "record", full)
    for step in (2, 3):
        checkpointer.save(small_state(step), {})
    with pytest.raises(UserError, match="No space left on device"):
        checkpointer.wait()
    assert checkpointer.latest_step() == 1 and {path.name for path in make.folder.iterdir()} == {"1", "journal"}
    assert len(make.said) == 1 and "step 2 could not be saved" in make.said[0] and "the newest checkpoint is step 1" in make.said[0]
    monkeypatch.setattr(Journal, "record", record)
    save(checkpointer, 3)
    assert checkpointer.steps() == [1, 3] and len(make.said) == 2 and "step 3 is saved" in make.said[1]


def test_room_is_never_made_by_removing_the_last_whole_checkpoint(make, monkeypatch):
    """Step 2 is damaged and was passed over, step 3 cannot be saved: 1 stays, and 2 is not what retention counts as the newest."""
    save(make(), 1, 2)
    flip(make.folder / "2/params/table/0.0", 9)
    checkpointer, record = make(keep=1), Journal.record
    assert int(checkpointer.restore(ABSTRACT)[0].step) == 1

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "record", full)
    checkpointer.save(small_state(3), {})
    with pytest.raises(UserError):
        checkpointer.wait()
    assert same(make().restore(ABSTRACT)[0], small_state(1))
    monkeypatch.setattr(Journal, "record", record)
    save(checkpointer, 4)
    assert checkpointer.steps() == [4]


def test_a_run_that_starts_over_and_cannot_save_keeps_what_is_there(make, monkeypatch):
    save(make(), 5, 6)
    monkeypatch.setattr(Checkpointer, "_start", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    checkpointer = make()
    checkpointer.save(small_state(1), {})
    assert checkpointer.steps() == [5, 6]


def test_a_save_that_cannot_begin_is_tried_once_more(make, monkeypatch):
    checkpointer, begin = make(), Checkpointer._start
    failures = [OSError(28, "No space left on device")]

    def full_once(self, *arguments):
        if failures:
            raise failures.pop()
        begin(self, *arguments)

    monkeypatch.setattr(Checkpointer, "_start", full_once)
    save(checkpointer, 1)
    assert checkpointer.steps() == [1] and "there is no checkpoint" in make.said[0] and "is saved" in make.said[1]


def test_no_save_fails_when_the_clock_is_set(make, monkeypatch):
    """By a day, forth and back, at every look: time-outs that the wall clock measures must not come."""
    clock, shifts = time.time, itertools.cycle((86400, -86400, 0))
    monkeypatch.setattr(time, "time", lambda: clock() + next(shifts))
    save(make(keep=9), 1, 2, 3)
    assert make().steps() == [1, 2, 3] and not make.said


def test_saving_does_not_wait_for_the_digests(make, monkeypatch):
    checkpointer, record, let = make(), Journal.record, threading.Event()

    def slow(*arguments, **options):
        assert let.wait(60)
        record(*arguments, **options)

    monkeypatch.setattr(Journal, "record", slow)
    checkpointer.save(small_state(1), {})
    assert checkpointer.latest_step() is None
    let.set()
    checkpointer.wait()
    assert checkpointer.latest_step() == 1


def test_a_state_that_is_saved_again_stays_and_has_the_newer_progress(make):
    """Stopped before the evaluation of a step, it is saved; when a later start has done that, it becomes a good one, with a loss.

    What it holds is not written again: the step exists at every moment, also for a kill.
    """
    checkpointer = make()
    checkpointer.save(small_state(1), {"looked": 0}, good=False)
    checkpointer.wait()
    again = make()
    again.restore(ABSTRACT)
    chunk = make.folder / "1/params/table/0.0"
    written = chunk.stat().st_ino, chunk.stat().st_mtime_ns
    again.save(small_state(1), {"looked": 1, "loss": 0.5})
    assert again.steps(good=True) == [1] and (chunk.stat().st_ino, chunk.stat().st_mtime_ns) == written
    state, progress = make().restore(ABSTRACT)
    assert progress == {"looked": 1, "loss": 0.5} and same(state, small_state(1)) and not make.said
    assert make.folder.joinpath("journal/1-0-of-1.json").read_bytes() == encode(Journal(make.folder).first_part(1))
    assert Journal(make.folder).first_part(1).loss == 0.5


def test_the_same_step_with_other_rows_is_written_anew(make):
    """A run that went back, also to its very start, comes to a step again."""
    checkpointer = make()
    save(checkpointer, 1)
    other = small_state(2).replace(step=jnp.int32(1))
    checkpointer.save(other, {})
    checkpointer.wait()
    assert same(make().restore(ABSTRACT)[0], other)


def test_a_damaged_manifest_is_no_reason_not_to_save(make):
    checkpointer = make()
    save(checkpointer, 1)
    flip(make.folder / "journal/1-0-of-1.json", 300)
    checkpointer.save(small_state(1), {"looked": 1})
    checkpointer.wait()
    assert make().restore(ABSTRACT)[1] == {"looked": 1}


def test_a_given_up_future_is_replaced(make):
    """Going back to step 2 and on: the 3 of the old future is written anew, and 4 goes, which would else be taken for the newest."""
    checkpointer = make(keep=9)
    save(checkpointer, 1, 2, 3, 4)
    checkpointer.restore(ABSTRACT, 2)
    checkpointer.save(small_state(2), {})
    checkpointer.save(small_state(33).replace(step=jnp.int32(3)), {})
    checkpointer.wait()
    assert checkpointer.steps() == [1, 2, 3]
    assert same(make().restore(ABSTRACT)[0].params, small_state(33).params)


# ------------------------------------------------------------------------------------------------------------------- retention


@given(
    st.dictionaries(st.integers(1, 40), st.tuples(st.booleans(), st.none() | st.sampled_from([0.5, 1.0, 2.0]))),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_retention_keeps_what_it_promises_and_nothing_else(saved, newest, every, best):
    """Against the rules, applied to each step alone."""
    steps = {step: Part(step, 0, 1, "", (), good, loss) for step, (good, loss) in saved.items()}

    def promised(step: int) -> bool:
        good, loss = saved[step]
        newer = [other for other in saved if other > step]
        better = [s for s, (_, other) in saved.items() if other is not None and loss is not None and (other, -s) < (loss, -step)]
        return (
            len(newer) < newest
            or (every > 0 and step % every == 0)
            or (loss is not None and len(better) < best)
            or (good and not any(saved[other][0] for other in newer))
        )

    assert kept(steps, newest, every, best) == {step for step in saved if promised(step)}


def test_retention_on_disk(make):
    """keep 1, every third, the best one; and the newest good step, which `good=True` restores."""
    checkpointer = make(keep=1, keep_every=3, keep_best=1)
    losses = {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: None, 6: float("nan"), 7: 9.0, 8: 9.0}
    for step, loss in losses.items():
        checkpointer.save(small_state(step), {"loss": loss}, good=step < 8)
    checkpointer.wait()
    assert checkpointer.steps() == [2, 3, 6, 7, 8] and checkpointer.steps(good=True) == [2, 3, 6, 7]
    assert checkpointer.latest_step() == 8 and checkpointer.latest_step(good=True) == 7
    assert int(make().restore(ABSTRACT, good=True)[0].step) == 7
    assert not (make.folder / "1").exists() and Journal(make.folder).unfinished() == []


@given(st.dictionaries(st.text("abc/", min_size=1), st.integers(0, 100)), st.integers(1, 5))
def test_shares_cover_every_file_once_and_weigh_about_the_same(sizes, parts):
    shares = [share(sizes, part, parts) for part in range(parts)]
    assert sorted(sum(shares, [])) == sorted(sizes)
    loads = [sum(sizes[name] for name in one) for one in shares]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)


# ----------------------------------------------------------------------------------------------------------------------- verbs


@pytest.fixture(scope="module")
def run(corpora, tmp_path_factory):
    """A run of three steps and checkpoints, the last two with an evaluation."""
    experiment = Experiment(
        name="verbs",
        steps=3,
        batch_size=8,
        ema_decay=0.9,
        model=ModelConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2),
        data=TextData(shards=corpora[:1]),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=0),
        mesh=MeshShape(data=1, fsdp=8),
        evaluation=Evaluation(every=2),
        checkpoints=Checkpoints(every=1, keep=9),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
    )
    run = start(tmp_path_factory.mktemp("verbs") / "run", experiment)
    train(run, devices=8)
    return run


def test_a_run_has_an_identity_that_a_copy_keeps(run, tmp_path):
    assert len(run.identity) == 16 and int(run.identity, 16) >= 0
    shutil.copytree(run.path, tmp_path / "copy")
    assert open_run(tmp_path / "copy").identity == run.identity == Journal(run.path / "checkpoints").first_part(3).identity
    other = start(tmp_path / "other", change(run.experiment, steps=9))
    assert other.identity != run.identity


def test_ls_lists_what_can_be_restored(run, capsys):
    assert omnia.main(["checkpoint", "ls", str(run.path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checkpoints"]
    assert [row["step"] for row in rows] == [1, 2, 3] and [row["newest"] for row in rows] == [False, False, True]
    for row in rows:
        files = [path for path in (run.path / "checkpoints" / str(row["step"])).rglob("*") if path.is_file()]
        assert row["files"] == len(files) and row["bytes"] == sum(path.stat().st_size for path in files)
        assert row["good"] and (row["loss"] is None) == (row["step"] == 1)
    assert omnia.main(["checkpoint", "ls", str(run.path)]) == 0
    assert "newest" in capsys.readouterr().out.splitlines()[-1]


def test_verify_reads_every_byte_without_jax(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    script = f"""
import sys, omnia
for verb in ("ls", "verify"):
    print(omnia.main(["checkpoint", verb, {str(tmp_path / "run")!r}]))
assert not {{"jax", "orbax", "flax", "tensorstore"}} & set(sys.modules)
"""

    def verify() -> str:
        return subprocess.run(
            [sys.executable, "-c", script], cwd=Path(omnia.__file__).parent, capture_output=True, text=True, check=True
        ).stdout

    assert verify().splitlines()[-4:] == ["step 1: ok", "step 2: ok", "step 3: ok", "0"]
    chunk = max((tmp_path / "run/checkpoints/2/params").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    flip(chunk, 77)
    shown = verify()
    assert "step 2: DAMAGED" in shown and "step 3: ok" in shown and shown.splitlines()[-1] == "1"
    assert chunk.relative_to(tmp_path / "run/checkpoints").as_posix() in shown


def test_diff_measures_how_far_arrays_are_apart(run, capsys):
    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    a, b = (load_parameters(run, mesh, step=step, raw=True)[0] for step in (1, 3))
    path, leaf_a = jax.tree_util.tree_leaves_with_path(a)[0]
    leaf_a, leaf_b = np.asarray(leaf_a, np.float64), np.asarray(jax.tree.leaves(b)[0], np.float64)
    name = "params/" + jax.tree_util.keystr(path, simple=True, separator=".")

    assert omnia.main(["checkpoint", "diff", str(run.path), "1", "3", "--json"]) == 0
    rows = {row["array"]: row for row in json.loads(capsys.readouterr().out)["arrays"]}
    assert rows[name]["relative_l2"] == pytest.approx(np.sqrt(((leaf_a - leaf_b) ** 2).sum() / (leaf_a**2).sum()))
    assert rows[name]["largest"] == pytest.approx(np.abs(leaf_a - leaf_b).max())
    assert rows["rest/step"]["largest"] == 2 and any(row.startswith("ema/") for row in rows)

    assert omnia.main(["checkpoint", "diff", str(run.path), "3", "3", "--run", str(run.path)]) == 0
    assert all(line.endswith("equal") for line in capsys.readouterr().out.splitlines()[1:])
    assert omnia.main(["checkpoint", "diff", str(run.path), "1", "7"]) == 2


def test_parameters_lie_as_inference_has_them_unless_a_mesh_is_given(run):
    one = make_mesh(MeshShape(data=1), jax.devices()[:1])
    for mesh, wanted in ((None, inference_mesh(run.experiment.mesh)), (one, one)):
        assert {leaf.sharding.mesh for leaf in jax.tree.leaves(load_parameters(run, mesh)[0])} == {wanted}


@pytest.mark.parametrize("steps, compared", [([], [2, 3]), (["1"], [1, 3])])
def test_diff_takes_the_newest_steps_unless_others_are_named(run, capsys, steps, compared):
    assert omnia.main(["checkpoint", "diff", str(run.path), *steps, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == compared


def test_diff_needs_two_checkpoints(run, tmp_path, capsys):
    shutil.copytree(run.path, tmp_path / "run")
    for step in (1, 2):
        Journal(tmp_path / "run" / "checkpoints").remove(step)
    assert omnia.main(["checkpoint", "diff", str(tmp_path / "run")]) == 2
    assert "--run RUN_DIR" in capsys.readouterr().err
    assert omnia.main(["checkpoint", "diff", str(tmp_path / "run"), "--run", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == [3, 3]


def test_diff_says_where_shapes_differ():
    from train.verbs.checkpoint import compare

    assert compare(np.zeros((2, 3)), np.zeros((3, 2))) == {"equal": False, "shapes": [[2, 3], [3, 2]]}
    assert compare(np.zeros(2), np.ones(2))["relative_l2"] is None


@pytest.mark.parametrize("raw", [False, True])
def test_export_writes_the_parameters_that_the_run_would_use(run, tmp_path, raw, capsys):
    """The averaged ones unless --raw; saved by eight devices, written by one."""
    from safetensors import safe_open

    output = tmp_path / "model.safetensors"
    assert omnia.main(["checkpoint", "export", str(run.path), "--output", str(output), "--step", "2", *(["--raw"] if raw else [])]) == 0
    params, _ = load_parameters(run, make_mesh(MeshShape(data=1), jax.devices()[:1]), step=2, raw=raw)
    with safe_open(output, "numpy") as file:
        assert file.metadata() == {"experiment": "verbs", "step": "2", "format": "omnia/1"}
        expected = {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
        assert sorted(file.keys()) == sorted(expected)
        assert same({name: file.get_tensor(name) for name in file.keys()}, expected)  # noqa: SIM118
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert omnia.main(["checkpoint", "export", str(run.path), "--output", str(tmp_path / "nowhere" / "a.safetensors")]) == 2
    capsys.readouterr()
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    assert omnia.main(["checkpoint", "export", str(copy), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["output"] == str(copy / "step-3.safetensors") and (copy / "step-3.safetensors").exists()
    assert (said["step"], said["arrays"]) == (3, len(expected)) and said["bytes"] == sum(leaf.nbytes for leaf in expected.values())


def test_what_the_verbs_are_given_is_checked(run, capsys, tmp_path):
    for arguments in (["look", str(run.path)], ["ls", str(tmp_path)], ["verify", str(run.path), "--step", "9"]):
        assert omnia.main(["checkpoint", *arguments]) == 2
        assert len(capsys.readouterr().err.splitlines()) <= 2


def test_processes_agree_on_the_step_that_all_find_whole(make, monkeypatch):
    """Two processes, of which one sees the damage in its share: both go back to the same step."""
    save(make(), 1, 2)
    flip(make.folder / "2/params/table/0.0", 9)
    journal = Journal(make.folder)
    counts = {step: np.array([len(journal.damage(step, part=part, parts=2)) for part in range(2)]) for step in (1, 2)}
    assert sorted(counts[2]) == [0, 1] and not counts[1].any()
    checkpointer = make()
    monkeypatch.setattr(checkpointer, "_read", lambda step, items: items)
    monkeypatch.setattr(module.jax, "process_count", lambda: 2)
    monkeypatch.setattr(module.multihost_utils, "broadcast_one_to_all", lambda value: value)
    for process in range(2):
        answers = iter([counts[2], counts[1]])
        monkeypatch.setattr(module.multihost_utils, "process_allgather", lambda _, answers=answers: next(answers))
        monkeypatch.setattr(module.jax, "process_index", lambda process=process: process)
        assert checkpointer.restore_parameters(ABSTRACT.params, averaged=False)[1] == 1
    assert "damage, seen by process" in " ".join(make.said)
    monkeypatch.undo()
