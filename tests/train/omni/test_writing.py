"""From a codebook to media that a model writes, and how they are judged."""

import dataclasses

import jax
import numpy as np
import pytest

import omnia
from data.decoding import probe
from data.errors import UserError
from data.media_rows import Layout, Piece, RowFiller
from data.synthetic import World, recognise
from model.generate import Sampling
from model.heads import vocabulary_table
from model.transformer import Decoder
from tests.train.omni.conftest import EXPERIMENT, MODEL, parameters
from tests.train.test_resume import start
from train.experiment import Evaluation
from train.loop import train
from train.mesh import make_mesh
from train.omni import writing
from train.omni.answers import MediaWriter
from train.omni.codes import PrepareCodes, prepare_codes
from train.omni.experiment import Codebook, WorldScenes
from train.omni.objective import media_of
from train.omni.sources import open_media
from train.runs import open_run

CODEBOOK = dataclasses.replace(
    EXPERIMENT, objective=Codebook("audio", codes=8, hidden_dim=8), data=WorldScenes(tasks=("audio",), scenes=60, validation=8), steps=2
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that trained a codebook, and the tokenizer made of it."""
    folder = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.loop.make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
        made = start(folder / "codebook", CODEBOOK)
        train(made)
    prepare_codes(PrepareCodes(str(folder / "tokenizer"), (str(made.path),)))
    return made, str(folder / "tokenizer")


def writer_experiment(tokenizer, tasks=("play", "audio")):
    model = dataclasses.replace(MODEL, encoders=MODEL.encoders[2:])
    data = WorldScenes(tasks=tasks, scenes=60, validation=4, tokenizer=tokenizer)
    return dataclasses.replace(EXPERIMENT, model=model, data=data, steps=2, evaluation=Evaluation(every=0, rows=2))


def test_a_model_reads_and_writes_recordings(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.loop.make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
    made = start(tmp_path / "run", writer_experiment(runs[1]))
    found = train(made)["validation"]
    assert {"play", "coded_play", "play/unseen", "audio", "blind_audio", "exact"} <= set(found) and "blind_play" not in found
    request = ["generate", str(made.path), "--prompt", "play circle. ", "--samples", "2", "--write"]
    assert omnia.main([*request, "audio", "--output", str(tmp_path / "played.wav")]) == 0
    for number in (0, 1):
        facts = probe("audio", (tmp_path / f"played-{number}.wav").read_bytes())
        assert facts.rate == 16_000 and 0 < facts.samples <= 16 * 160 and facts.samples % 160 == 0
    capsys.readouterr()
    for words, said in (
        (["image", "--output", str(tmp_path / "x.png")], "the model writes no image"),
        (["audio", "--output", str(tmp_path / "x.mp3")], "a written audio is a .wav file"),
        (["audio", "--output", str(tmp_path / "no" / "x.wav")], "no such folder"),
        (["audio"], "go together"),
    ):
        assert omnia.main([*request, *words]) == 2
        assert said in capsys.readouterr().err
    assert open_run(made.path).tokenizer().codes["audio"].size == 8


def test_greedy_codes_are_the_likeliest_in_their_rows(runs):
    """What is drawn after a prompt, put into rows as training does it: every code is the likeliest of all codes there."""
    experiment = writer_experiment(runs[1], ("play",))
    (source,), params = open_media(experiment), parameters(6.0, experiment)
    tokenizer, (first, end) = source.tokenizer(), source.tokenizer().codes["audio"].ids
    samples = source.source.samples("validation", np.arange(3), {}, tokenizer, None)
    marker = samples[0][0][1].content[:1]
    prompts = [[pieces[0], Piece("text", marker, learned=True)] for pieces, _ in samples]
    sampling = Sampling(temperature=0.0, among=(first, end))
    drawn = MediaWriter(experiment, tokenizer, params).ids(prompts, tokens=16, sampling=sampling, ends=False)
    filler = RowFiller(Layout(MODEL.context_length, {}), {}, tokenizer, np.arange(3))
    for row, (prompt, ids) in enumerate(zip(prompts, drawn, strict=True)):
        assert len(ids) == 16 and first <= min(ids) and max(ids) < end
        filler.add(row, [prompt[0], Piece("audio", np.array([*marker, *ids]), learned=True)])
    batch = filler.batch
    where = {"segments_BT": batch.segments, "positions_BT": batch.positions, "media": media_of(experiment.model, params, batch)}
    output = jax.jit(Decoder(experiment.model).apply)({"params": params}, batch.tokens, **where)
    likeliest = np.asarray(output.hidden_BTD @ vocabulary_table(params).T)[..., first:end].argmax(-1) + first
    codes = (batch.targets >= first) & (batch.targets < end)
    np.testing.assert_array_equal(likeliest[codes], batch.targets[codes])
    assert codes.sum() == 48 and len(set(batch.targets[codes].tolist())) > 2


def test_what_is_written_is_judged_by_what_it_shows(runs, monkeypatch):
    """True media count as right, whatever the model; drawn ones by their own descriptions."""
    experiment = writer_experiment(runs[1], ("play",))
    (source,), params = open_media(experiment), parameters(1.0, experiment)
    world, tokenizer = World(("play",), 60, 8), source.tokenizer()
    codes = tokenizer.codes["audio"]
    wanted = [world.described("validation", index) for index in range(8)]
    cuts = [codes.decode(pieces[1].content[1:]) for pieces, _ in world.samples("validation", np.arange(8), {}, tokenizer, None)]
    recognised = [recognise(cut, codes.shape) for cut in cuts]
    swapped = [(codes.shape, cut) for cut in cuts[::-1]]
    monkeypatch.setattr(MediaWriter, "media", lambda self, prompts, kind, **options: swapped)
    found = writing.write_all(experiment, params, tokenizer, world, "validation", "audio", 8)
    assert found.coded == np.mean([said == text for said, text in zip(recognised, wanted, strict=True)])
    assert found.right == np.mean([said == text for said, text in zip(recognised[::-1], wanted, strict=True)])


def test_codes_come_from_codebooks_one_of_each_kind(runs, tmp_path):
    made, tokenizer = runs
    for options, said in (
        (PrepareCodes(str(tmp_path / "new"), ()), "which codebooks"),
        (PrepareCodes(str(tmp_path / "new"), (str(made.path), str(made.path))), "second codebook for audio"),
        (PrepareCodes(tokenizer, (str(made.path),)), "is there already"),
        (PrepareCodes(str(tmp_path / "new"), (str(made.path),), tokenizer), "already has codes for audio"),
    ):
        with pytest.raises(UserError, match=said):
            prepare_codes(options)
    assert not (tmp_path / "new").exists()
