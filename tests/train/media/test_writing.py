"""From a codebook to media that a model writes, and how they are judged."""

import dataclasses
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import omnia
from data.errors import UserError
from data.media.kinds import Part, Sample, text_facts
from data.media.output import save_medium
from data.media.rows import Layout, Piece, RowFiller
from data.media.shards import write_media
from data.media.signals.probing import probe
from data.media.signals.shapes import VideoShape
from data.media.world import World
from data.tokenizer import byte_tokenizer, load_tokenizer, with_codes
from model.decoding.sampling import Sampling
from model.heads import vocabulary_table
from model.transformer import Decoder
from tests.data.media.media_files import audio_file, image_file
from tests.train.media.conftest import EXPERIMENT, MODEL, parameters
from tests.train.tiny_runs import start, train
from train.experiment import Evaluation, Samples
from train.generation import media
from train.generation.about_media import MediaWriter, sample_answers
from train.objectives.media.media_lm import media_of
from train.objectives.media.options import Codebook
from train.runs.directory import open_corpora, open_run
from train.sources.dataset import dataset_of
from train.sources.media.datasets import folders_of
from train.sources.media.options import MediaShards, WorldScenes
from train.verbs.codes import PrepareCodes, prepare_codes

CODEBOOK = dataclasses.replace(
    EXPERIMENT, objective=Codebook("audio", codes=8, hidden_dim=8), data=WorldScenes(tasks=("audio",), scenes=60, validation=8), steps=2
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that trained a codebook, and the tokenizer made of it."""
    folder = tmp_path_factory.mktemp("codes")
    made = start(folder / "codebook", CODEBOOK)
    train(made)
    prepare_codes(PrepareCodes(str(folder / "tokenizer"), (str(made.path),)))
    return made, str(folder / "tokenizer")


def writer_experiment(tokenizer, tasks=("play", "audio")):
    model = dataclasses.replace(MODEL, num_layers=1, encoders=MODEL.encoders[2:])
    data = WorldScenes(tasks=tasks, scenes=60, validation=4, tokenizer=tokenizer)
    evaluation, samples = Evaluation(every=0, rows=2), Samples(tokens=2, temperature=1.0)
    return dataclasses.replace(EXPERIMENT, model=model, data=data, steps=2, evaluation=evaluation, samples=samples)


def test_a_model_reads_and_writes_recordings(runs, tmp_path, capsys):
    made = start(tmp_path / "run", writer_experiment(runs[1]))
    found = train(made)["validation"]
    assert {"play", "coded_play", "play/unseen", "audio", "blind_audio", "exact"} <= set(found) and "blind_play" not in found
    request = ["generate", str(made.path), "--prompt", "play circle. ", "--samples", "2", "--write"]
    assert omnia.main([*request, "audio", "--output", str(tmp_path / "played.wav")]) == 0
    for number in (0, 1):
        facts = probe("audio", (tmp_path / f"played-{number}.wav").read_bytes())
        assert facts.rate == 16_000 and 0 < facts.samples <= 16 * 160 and facts.samples % 160 == 0
    capsys.readouterr()
    (tmp_path / "prompts.txt").write_text("play circle. ")
    ask = ["generate", str(made.path), "--prompt", "play circle. "]
    for words in (["--stop", "x"], ["--beams", "2"], ["--int8"]):
        assert omnia.main([*ask, *words]) == 2 and f"{words[0]} is not for media" in capsys.readouterr().err
    for words in (["--interactive"], ["--prompts", str(tmp_path / "prompts.txt")]):
        assert omnia.main([*ask[:2], *words]) == 2 and f"{words[0]} is not for media" in capsys.readouterr().err
    assert omnia.main([*ask, "--max-new-tokens", "5000"]) == 0 and "ends a text before --max-new-tokens 5000" in capsys.readouterr().err
    assert omnia.main([*request, "audio", "--output", str(tmp_path / "x.wav"), "--max-new-tokens", "5"]) == 2
    assert "--max-new-tokens is of texts" in capsys.readouterr().err
    for words, said in (
        (["image", "--output", str(tmp_path / "x.png")], "its model writes no image"),
        (["audio", "--output", str(tmp_path / "x.mp3")], "a written audio is a .wav file"),
        (["audio", "--output", str(tmp_path / "no" / "x.wav")], "no such folder"),
        (["audio"], "go together"),
    ):
        assert omnia.main([*request, *words]) == 2
        assert said in capsys.readouterr().err
    assert open_run(made.path).tokenizer().codes["audio"].size == 8
    assert (made.path / "plots" / "written.png").is_file()
    text = start(
        tmp_path / "text", dataclasses.replace(writer_experiment("byte"), data=WorldScenes(tasks=("audio",), scenes=60, validation=4))
    )
    assert omnia.main(["generate", str(text.path), "--prompt", "play ", "--write", "audio", "--output", str(tmp_path / "x.wav")]) == 2
    assert "its model writes no audio" in capsys.readouterr().err


def test_a_run_that_only_writes_has_a_sheet_and_no_texts(runs, tmp_path):
    experiment = dataclasses.replace(writer_experiment(runs[1], ("play",)), model=dataclasses.replace(MODEL, encoders=()))
    sources, params = dataset_of(experiment).open(), parameters(1.0, experiment)
    tokenizer = sources[0].tokenizer()
    run = SimpleNamespace(experiment=experiment, tokenizer=lambda: tokenizer)
    assert sample_answers(dataset_of(experiment), run, params, sources) == []
    assert media.draw_written(dataset_of(experiment), params, sources, tokenizer, tmp_path / "plots" / "written.png")
    with Image.open(tmp_path / "plots" / "written.png") as sheet:
        assert sheet.width > 500


def test_greedy_codes_are_the_likeliest_in_their_rows(runs):
    """What is drawn after a prompt, put into rows as training does it: every code is the likeliest of all codes there."""
    experiment = writer_experiment(runs[1], ("play",))
    (source,), params = dataset_of(experiment).open(), parameters(6.0, experiment)
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
    """True media and drawn ones each by their own descriptions; one that never began shows nothing."""
    experiment = writer_experiment(runs[1], ("play",))
    (source,), params = dataset_of(experiment).open(), parameters(1.0, experiment)
    world, tokenizer = World(("play",), 60, 8), source.tokenizer()
    shape = tokenizer.codes["audio"].shape
    wanted = [world.described("validation", index) for index in range(8)]
    assert len(set(wanted)) > 4
    drawn = [shape.cut(np.full(16 * 160, number), (16,)) for number in range(7)]
    said = {id(cut): text for cut, text in zip(drawn, [*wanted[:3], *wanted[4:8]], strict=True)}  # from the fourth on another's
    true = iter([*wanted[:6], "", ""])
    monkeypatch.setattr(media, "recognise", lambda cut, shape: said[id(cut)] if id(cut) in said else next(true))
    monkeypatch.setattr(MediaWriter, "media", lambda self, prompts, kind, **options: [*drawn, None])
    found = media.write_all(experiment, params, tokenizer, world, "validation", "audio", 8)
    matches = sum(one == text for one, text in zip([*wanted[:3], *wanted[4:8], ""], wanted, strict=True))
    assert matches < 6 and found == (matches / 8, 6 / 8)


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


def test_each_folder_is_read_and_written_as_far_as_it_can_be(tmp_path):
    """Pictures in one folder, recordings in the other: what a model has an encoder for is read, what is asked for is written."""
    for kind, content in (("image", image_file()), ("audio", audio_file())):
        write_media(
            str(tmp_path / kind),
            {"train": [(Sample((Part(kind, content), Part("text", "it", learned=True))), [probe(kind, content), text_facts("it")])]},
        )
    image, audio = str(tmp_path / "image"), str(tmp_path / "audio")
    hears = dataclasses.replace(MODEL, encoders=MODEL.encoders[2:])

    def sources(model, *write):
        return folders_of(MediaShards(shards=(image, audio), write=write), model)

    assert sources(hears) == [(image, None), (audio, None)]
    assert sources(hears, "image") == [(audio, None), (image, "image")]
    assert sources(MODEL, "audio", "image") == [(image, None), (audio, None), (audio, "audio"), (image, "image")]
    assert sources(dataclasses.replace(MODEL, encoders=()), "audio") == [(audio, "audio")]
    with pytest.raises(UserError, match="none of the shards has video"):
        sources(MODEL, "video")


def test_a_clip_is_written_as_a_gif_of_all_its_frames(tmp_path):
    shape = VideoShape(frames=2, patch=4, times=2, rows=2, columns=2, fps=5.0, square=True)
    frames = np.random.default_rng(0).integers(0, 2, (4, 1, 1, 3), np.uint8) * np.full((4, 8, 8, 3), 200, np.uint8)
    frames[0], frames[1] = 0, 200  # neighbours that are alike would be one frame
    frames[2], frames[3] = (200, 0, 0), (0, 0, 200)
    save_medium(shape, shape.cut(frames, shape.largest), tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as file:
        assert file.n_frames == 4 and file.info["duration"] == 200
        for number in range(4):
            file.seek(number)
            np.testing.assert_allclose(np.asarray(file.convert("RGB"), int), frames[number], atol=12)


def test_what_does_not_fit_behind_its_prompt_is_refused(runs):
    experiment = writer_experiment(runs[1], ("play",))
    (source,), params = dataset_of(experiment).open(), parameters(1.0, experiment)
    prompt = [Piece("text", np.full(MODEL.context_length - 8, 65))]
    with pytest.raises(UserError, match="16 codes do not fit behind the prompt"):
        MediaWriter(experiment, source.tokenizer(), params).media([prompt], "audio", sampling=Sampling(temperature=0.0))


def test_a_run_goes_on_with_its_own_codes(runs, tmp_path):
    """The folder they came from may hold others by now, whose codebook was trained anew, or be gone: the run has a copy."""
    own = str(shutil.copytree(runs[1], tmp_path / "tokenizer"))
    made = start(tmp_path / "run", writer_experiment(own, ("play",)))
    assert made.experiment.data.tokenizer == own
    kept = load_tokenizer(own)
    codes = kept.codes["audio"]
    other = dataclasses.replace(codes, weights=codes.weights | {"codebook": codes.weights["codebook"] + 1.0})
    with_codes(byte_tokenizer(), {"audio": other}).save(own)
    assert open_corpora(made.experiment)[0].tokenizer().digest != kept.digest
    for _ in range(2):
        assert open_corpora(made.experiment, made)[0].tokenizer().digest == kept.digest
        shutil.rmtree(own, ignore_errors=True)
