"""What a speller learns from, what it proposes, and what of that stands."""

import dataclasses
import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.records.record import Record
from data.tokenizer import character_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import start, train
from train.apps.answering import Answering
from train.apps.editing.editing import Editor
from train.apps.editing.sounds import SYLLABLES, number_of
from train.apps.editing.spelling import AGAIN, ORDER, OTHERS, RIGHT, CharacterHead, Counts, Speller, Spelling, SpellingDataset, written_in
from train.evaluation.ngram import NGram
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.objectives.tasks.options import Supervised
from train.runs.directory import open_run
from train.sources.dataset import dataset_of
from train.step.federated.options import Federated
from train.step.private.options import Private

pytest.importorskip("pypinyin")
LETTERS = tuple(sorted("他她们在再家天下人大小见，。一二三四"))
SENTENCES = ["他们在家。", "她们在家。", "再见，他们。", "大家再见。", "天下人在家。"] * 4


def dataset(types=SYLLABLES, letters=LETTERS, **options):
    shape = TextEncoderConfig(context_length=32, num_layers=1, embed_dim=8, num_heads=1, token_types=types)
    objective = Supervised(labels=letters, counts=tuple(range(1, 1 + len(letters))))
    found = SpellingDataset(options := Spelling(length=32, **options), Experiment(model=shape, data=options, objective=objective))
    found.tokens = character_tokenizer("".join(LETTERS) + "无a")
    return found


def examples(data, *rows):
    return [data.example(Record(row, f"line {number}")) for number, row in enumerate(rows)]


def pair(source, target):
    return {"source": source, "target": target}


def test_pairs_have_as_many_characters_and_right_sentences_a_target_alone():
    data = dataset()
    with pytest.raises(UserError, match="characters"):
        examples(data, pair("他在", "他在家"))
    for right in examples(data, {"target": "他在家。"}, {"target": ["他在家。", "她在家。"]}):
        assert right.parts == RIGHT and right.fields["given"] == "他在家。" and data.labelled(right)
    (asked,) = examples(data, {"source": "他在家。"})
    assert asked.parts != RIGHT and not data.labelled(asked)


@pytest.mark.parametrize(
    "wrong", [{"pairs": 1.0}, {"misspelled": -0.1}, {"correct_weight": -1.0}, {"language": "en"}, {"language": "ja"}, {"right": 0.5}]
)
def test_options_that_mean_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Spelling(**wrong)


@pytest.fixture
def files(monkeypatch):
    """(train, validation) examples -> the files of a dataset hold them."""

    def hold(train, validation):
        monkeypatch.setattr("train.tasks.task.TaskDataset.examples", lambda self, sources, split: train if split == "train" else validation)

    return hold


def test_pairs_are_repeated_up_to_their_share_and_counted_once(files):
    data = dataset(pairs=0.5)
    given = examples(data, pair("他再家。", "他在家。"), *({"target": text} for text in SENTENCES[:4] * 5))
    held = examples(data, pair("大家再见。", "大家在见。"), {"target": "人在家。"})
    files(given, held)
    learned = data.examples([], "train")
    assert len(learned) == 40 and [one.fields["given"] for one in learned].count("他再家。") == 20
    counted = [one for one in learned if data.counted_labels(one)]
    assert counted == given and all(data.counted_labels(one) == tuple(one.label[0]) for one in counted)
    assert all(one.parts == AGAIN for one in learned if one not in given)
    assert data.examples([], "validation") == held[:1]


def test_no_right_sentence_is_learned_that_is_held_out_as_such_or_as_what_a_pair_should_be(files):
    data = dataset(pairs=0.1)
    given = examples(data, pair("他再家。", "他在家。"), *({"target": text} for text in ("大家在家。", "人在家。", "再见，他们。")))
    files(given, examples(data, pair("大家再家。", "大家在家。"), {"target": "人在家。"}))
    assert [one.label[0] for one in data.examples([], "train") if one.parts == RIGHT] == ["再见，他们。"]


def test_right_sentences_that_are_held_out_stand_beside_pairs(files):
    """But none that a pair has, too, which is learned from or counted already."""
    data = dataset()
    files(
        examples(data, pair("他再家。", "他在家。"), {"target": "再见，他们。"}),
        examples(
            data, pair("大家再家。", "大家在家。"), *({"target": text} for text in ("人在家。", "人在家。", "他在家。", "大家在家。"))
        ),
    )
    assert data.right_beside(types.SimpleNamespace(corpora=list)) == ["人在家。"]


@pytest.mark.parametrize(
    ("letters", "train", "validation", "said"),
    [
        (LETTERS, [{"target": "他在家。"}], [pair("她再家。", "她在家。")], "no pairs.*train"),
        (LETTERS, [pair("她再家。", "她在家。")], [{"target": "他在家。"}], "no pairs.*validation"),
        (LETTERS[:OTHERS], [pair("她再家。", "她在家。")], [pair("他再家。", "他在家。")], "only 8 characters"),
        (LETTERS[: OTHERS + 1], [pair("她再家。", "她在家。")], [pair("他再家。", "他在家。")], ""),
    ],
)
def test_a_run_that_no_editor_could_be_made_of_is_refused(files, letters, train, validation, said):
    data = dataset(letters=letters, files=("pairs.jsonl",))
    files(examples(data, *train), examples(data, *validation))
    sources = [types.SimpleNamespace(tokenizer=lambda: data.tokens)]
    if not said:
        data.check(sources)
        return
    with pytest.raises(UserError, match=said):
        data.check(sources)


@pytest.mark.parametrize("gradient", [Private(), Federated(epsilon=8.0, clip=0.1)])
def test_a_private_run_is_refused(gradient):
    data = dataset()
    data.experiment = dataclasses.replace(data.experiment, gradient=gradient)
    with pytest.raises(UserError, match="private"):
        data.units([])


def test_right_sentences_are_misspelled_as_rows_and_pairs_stay():
    data = dataset(misspelled=0.5)
    given = examples(data, pair("她们大家。", "他们大家。"), *({"target": text} for text in SENTENCES))
    change = data.changer(given)
    assert change(given[0], 3) is given[0]
    rows = [change(given[1], row).fields["source"] for row in range(200)]
    assert rows == [change(given[1], row).fields["source"] for row in range(200)] and len({*rows}) > 3
    places = np.array([[new != old for new, old in zip(row, "他们在家。", strict=True)] for row in rows]).mean(0)
    assert (places[[0, 2]] > 0.35).all() and (places[[0, 2]] < 0.65).all() and places[4] == 0
    assert all(change(given[1], row).label == given[1].label for row in range(5))


def test_a_row_says_which_character_should_stand_where_another_does():
    data = dataset(correct_weight=0.25)
    (example,) = examples(data, pair("他再无𠮷。", "他在无吉。"))
    ((ids, types, label, _, learned, _),) = data.pieces(example, True)
    numbers = {letter: number for number, letter in enumerate(LETTERS)}
    assert len(ids) == 7 and ids[4] == data.tokens.specials["mask"] and types[1] == number_of("他") > 0
    assert label[1:-1].tolist() == [[numbers["他"]] * 2, [numbers["在"], numbers["再"]], [-1, -1], [-1, -1], [numbers["。"]] * 2]
    np.testing.assert_allclose(learned, [0, 0.25, 1, 0, 0, 0.25, 0])
    ((_, _, unknown, _, _, _),) = data.pieces(example._replace(label=None), False)
    assert (unknown[1:-1, 1] == label[1:-1, 1]).all()
    assert not dataset(types=2).pieces(example, True)[0].types.any()  # such a model has no vector for sounds
    (long,) = examples(data, pair("他再家" * 20, "他在家" * 20))
    ((ids, types, label, _, learned, _),) = data.pieces(long, True)
    assert len(ids) == len(types) == len(label) == len(learned) == 32


def test_the_head_answers_with_the_character_that_stands_there_and_the_likeliest_others():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 12)), jnp.float32)
    batch = types.SimpleNamespace(labels=jnp.asarray([[[0, 4], [0, int(logits[0, 1].argmax())], [0, -1]]]))
    log_p = np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[0]
    found = np.asarray(CharacterHead(12, by_token=True).answers(logits, batch))[0]
    for place, own in ((0, 4), (1, int(log_p[1].argmax()))):
        order = [one for one in np.argsort(-log_p[place]) if one != own][:OTHERS]
        np.testing.assert_allclose(found[place, 0], log_p[place, own], rtol=1e-5)
        assert found[place, 1 : 1 + OTHERS].tolist() == order
        np.testing.assert_allclose(found[place, 1 + OTHERS :], log_p[place, order], rtol=1e-5)
    assert found[2, 0] == -np.inf and found[2, 1] == log_p[2].argmax()


def counts(data, *pairs):
    given = examples(data, *(pair(*one) for one in pairs), *({"target": text} for text in SENTENCES))
    return Counts(Counts.arrays_of(given, LETTERS), LETTERS, range(1, 1 + len(LETTERS))), given


def test_a_gain_is_what_whole_sentences_differ_by():
    made, given = counts(dataset())

    def ids(text):
        return np.array([LETTERS.index(letter) if letter in LETTERS else len(LETTERS) for letter in text])

    model = NGram.fit([ids(text) for text in dict.fromkeys(SENTENCES)], len(LETTERS) + 1, ORDER)
    text, changes = "他再家无。", [(0, "她"), (1, "在"), (4, "，"), (3, "天")]
    for (place, new), gain in zip(changes, made.gains(text, changes), strict=True):
        other = text[:place] + new + text[place + 1 :]
        nats = [-model.nats_per_token([ids(one)]) * len(text) for one in (other, text)]
        assert gain == pytest.approx(nats[0] - nats[1])


def test_what_was_written_is_counted_once_for_each_pair():
    data = dataset()
    made, given = counts(data, ("他再家。", "他在家。"), ("她再家。", "她在家。"), ("他再家。", "他在家。"))
    assert made.written == dict(written_in(given)) == {("再", "在"): 2} and made.misspelled["再"] == 2
    assert "在" in made.confusions.of("再")["written"][0] and "再" in made.confusions.of("在")["written"][0]
    both, _ = counts(data, ("他再家。", "他在家。"), ("她再家。", "她在家。"), ("在见。", "再见。"))
    assert both.written == {("再", "在"): 2, ("在", "再"): 1}


FIXES = {"再家": "在", "小下": "天"}
"""What the encoder of Fake likes better in the place of the first of two characters."""


class Fake:
    """As Answering: an encoder that likes better what FIXES says, and else what stands there. Others are the last labels, a comma above
    all."""

    reads = ("run", 1, False)

    def __init__(self, data, held):
        self.dataset = data
        objective = data.experiment.objective
        self.run = types.SimpleNamespace(path="run", experiment=types.SimpleNamespace(objective=objective), corpora=list)
        self._given, self._held = counts(data, ("他再家。", "他在家。"))[1], examples(data, *held)

    def __call__(self, given):
        return [self._answer(one.fields["source"]) for one in given]

    def _answer(self, text):
        found = np.full((len(text), 1 + 2 * OTHERS), -9.0, np.float32)
        for place, letter in enumerate(text):
            better = FIXES.get(text[place : place + 2], "")
            others = [better] * bool(better) + [one for one in reversed(LETTERS) if one not in (letter, better)]
            found[place, 1 : 1 + OTHERS] = [LETTERS.index(one) for one in others[:OTHERS]]
            found[place, [0, 1 + OTHERS]] = (-5, -0.1) if better else (-0.01, -6)
            found[place, 0] = found[place, 0] if letter in LETTERS else -np.inf
        return found

    def held_out(self):
        return self._held

    def learned_from(self):
        return self._given

    def learned(self, what, of=None):
        self.of = of
        return what()

    def counted(self, what, of=None):
        return what()


HELD = 5 * [
    pair("大家再家。", "大家在家。"),
    pair("他们再家。", "他们在家。"),
    pair("她们再见。", "她们再见。"),
    pair("人再家。", "人在家。"),
    *3 * [pair("小下人。", "天下人。")],
    pair("小下人。", "小下人。"),
]
"""What people wrote is right in one of four cases where 小下 stands."""


@pytest.fixture(scope="module")
def editor():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.tasks.task.TaskDataset.examples", lambda self, sources, split: [])
        answering = Fake(dataset(), HELD)
        return Editor(answering, Speller(answering))


def edit(editor, text, **more):
    (line,) = editor.answers([Record({"source": text} | more, "line 1")])
    return line


def test_what_is_misspelled_is_put_right_in_its_place(editor):
    text = "再见。`他再家。` 她们再家。\n- 天下人再家，再见。"
    line = edit(editor, text)
    assert line["text"] == "再见。`他再家。` 她们在家。\n- 天下人在家，再见。"
    for one in line["edits"]:
        assert text[one["start"] : one["end"]] == one["old"] == "再" and one["new"] == "在" and one["confidence"] > 0.5
    again = edit(editor, line["text"])
    assert again["text"] == line["text"] and again["edits"] == []


@pytest.mark.parametrize("before", ["3个", "在2015年", "１０个人", "a@b.cn", "在http://a.cn/b_1大家", "a/b", "#人", "小_"])
def test_what_stands_beside_digits_and_addresses_is_put_right(editor, before):
    assert edit(editor, f"{before}再家。")["text"] == f"{before}在家。"


def test_strength_and_names(editor):
    assert edit(editor, "她们再家。", strength=0)["edits"] == [] == edit(editor, "她们再家。", protect=["再家"])["edits"]
    assert edit(editor, "小下人。")["edits"] == []
    (unsure,) = edit(editor, "小下人。", strength=1)["edits"]
    assert unsure["new"] == "天" and 1 / 3 < unsure["confidence"] < 0.9
    assert edit(editor, "人再家" + "天" * 40)["edits"] == []  # longer than a row


def test_of_a_place_others_of_like_sound_are_proposed_and_those_of_the_encoder(editor):
    (proposals,) = editor.proposer(["她再家。"])
    assert {(one.edit.old, one.edit.new) for one in proposals.edits} >= {("她", "他"), ("再", "在")}
    assert "他" not in LETTERS[-OTHERS:]  # which is what the encoder names
    assert all(len(one.features) == len(Speller.names) for one in proposals.edits)
    assert all("，" not in one.edit.new and one.edit.old != "。" for one in proposals.edits)
    assert proposals.applied(lambda edit: (edit.old, edit.new) == ("她", "他")) == "他再家。"


def test_of_a_character_that_was_not_learned_nothing_is_proposed(editor):
    """It sounds like one that was, but may be of another script."""
    (proposals,) = editor.proposer(["牠们再家。"])
    assert number_of("牠") == number_of("他") and {one.edit.start for one in proposals.edits} == {1, 2, 3}


def test_what_was_learned_depends_on_what_is_proposed(editor):
    assert [*Speller.reads] == editor._answering.of[-len(Speller.reads) :] and OTHERS in Speller.reads


def test_the_likeliest_sentence_is_scored_as_sighan_does():
    data = dataset()
    given = examples(data, pair("他再家。", "他在家。"), pair("她们再见。", "她们再见。"))
    answers = [Fake._answer(None, one.fields["source"]) for one in given]
    _, texts = data.joined(given, answers)
    assert texts == ["他在家。", "她们再见。"]
    values = data.score(given, texts).values
    assert values["sentence_f1"] == 1 and values["spoiled"] == 0 and values["edit_f0.5"] == 1


def test_what_was_counted_is_kept_and_made_anew_for_others(tmp_path):
    run = types.SimpleNamespace(path=str(tmp_path), identity="one")
    answering = Answering.__new__(Answering)
    answering.run, asked = run, []

    def what():
        asked.append(1)
        return {"times": np.arange(3), "wrong": np.array(["他", "她"])}

    for of, times in ((["a"], 1), (["a"], 1), (["b"], 2)):
        found = answering.counted(what, of=of)
        assert found["times"].tolist() == [0, 1, 2] and found["wrong"].tolist() == ["他", "她"] and len(asked) == times
    content = (tmp_path / "application.npz").read_bytes()
    (tmp_path / "application.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="Remove it"):
        answering.counted(what, of=["b"])
    noticed = 0
    for place in range(len(content)):  # where a byte is damaged, it is noticed or does not matter
        (tmp_path / "application.npz").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = answering.counted(what, of=["b"])
        except UserError:
            noticed += 1
        else:
            assert found["times"].tolist() == [0, 1, 2] and found["wrong"].tolist() == ["他", "她"]
    assert noticed > len(content) / 2


def sentence(draw, word):
    """One in which 在 and 再 are told apart by what comes next."""
    return "".join(draw.choice([*"天下人大小"], 3)) + word + "".join(draw.choice([*"一二三四"], 2))


def test_a_run_learns_from_pairs_and_right_sentences_and_corrects_others(tmp_path):
    draw = np.random.default_rng(0)
    rights = [sentence(draw, word) for word in ("在家", "再见") for _ in range(60)]
    wrong = {text: text.translate(str.maketrans("在再", "再在")) for text in rights}
    rows = {"pairs": [pair(wrong[text], text) for text in rights[::2]], "right": [{"target": text} for text in rights]}
    others = [sentence(draw, word) for word in ("在家", "再见") for _ in range(10)]
    rows["held"] = [pair(text.translate(str.maketrans("在再", "再在")), text) for text in others]
    rows["beside"] = [{"target": sentence(draw, "在家")} for _ in range(10)]
    for name, own in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    character_tokenizer("".join(LETTERS)).save(str(tmp_path / "characters"))
    experiment = Experiment(
        steps=60,
        batch_size=16,
        model=TextEncoderConfig(
            context_length=16, num_layers=1, embed_dim=16, num_heads=2, token_types=SYLLABLES, pooler=False, prediction_head=False
        ),
        data=Spelling(
            files=(str(tmp_path / "pairs.jsonl"), str(tmp_path / "right.jsonl")),
            validation_files=(str(tmp_path / "held.jsonl"), str(tmp_path / "beside.jsonl")),
            length=16,
            tokenizer=str(tmp_path / "characters"),
        ),
        objective=Supervised(head_dropout=0.0),
        optimizer=AdamW(learning_rate=3e-2),
        schedule=Schedule(0, "constant"),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    run = start(tmp_path / "run", experiment)
    summary = train(run)
    assert summary["validation"]["sentence_f1"] > 0.8 and summary["validation"]["examples"] == len(others)
    editor = dataset_of(run.experiment).application(open_run(run.path))
    asked = [Record({"source": row["source"]}, "line") for row in rows["held"]]
    lines = editor.answers(asked)
    assert np.mean([line["text"] == row["target"] for line, row in zip(lines, rows["held"], strict=True)]) > 0.8
    for name in rows:  # what was learned and counted is kept
        (tmp_path / f"{name}.jsonl").unlink()
    again = dataset_of(run.experiment).application(open_run(run.path))
    assert again.answers(asked) == lines
