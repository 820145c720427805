"""What tables' own scripts make of public files: examples that are what the tables say, and baselines that find what is planted."""

import json

import pytest

from data.files import json_files
from train.reproduce.counted import nearest
from train.reproduce.files import rows_of, spread
from train.reproduce.table import TABLES
from train.runs.classes import load_file

airlines, answers, coherence, novels, repairs, style, summaries, transfer = (
    load_file(str(TABLES / f"{name}.py"))
    for name in ("airlines", "answers", "coherence", "novels", "repairs", "style", "summaries", "transfer")
)


@pytest.mark.parametrize("count", [0, 1, 3, 10, 99])
def test_spread_is_from_all_over(count):
    found = spread([*range(10)], count)
    assert len(found) == min(count, 10) == len({*found}) and found == sorted(found)
    assert not found or found[0] == 0 and found[-1] >= 9 - 10 / len(found)


def test_the_nearest_text_shares_what_is_rare():
    known = ["the cat sat on the mat", "the dog ate the bone", "the bird sang"]
    assert nearest(known, ["a bone for the dog", "cat", "the bird and the bird"]) == [1, 0, 2]


def asked(target, text="The king died. A kingly king wept.", **more):
    return {"source": text, "question": "who?", "target": target, **more}


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (asked(["the King."]), (0, "The king")),
        (asked(["king"]), (4, "king")),  # no part of "kingly"
        (asked(["nobody", "wept"]), (29, "wept")),
        (asked(["king"], start=24), (24, "king")),  # where its article says
        (asked(["queen"]), None),
        (asked([".", "ing"]), None),
    ],
)
def test_an_answer_is_pointed_at_where_it_stands(row, place):
    found = answers.pointed(row, 7)
    if place is None:
        assert found is None
    else:
        (one,) = found["qas"][0]["answers"]
        assert (one["answer_start"], one["text"]) == place and found["context"][one["answer_start"] :].startswith(one["text"])


def test_questions_are_on_one_section_and_articles_are_tested_on_or_learned_from(tmp_path):
    tales, articles = tmp_path / "tales.jsonl", tmp_path / "articles.json"
    questions = [{"question": f"q{place}", "answers": ["a"], "sections": place} for place in ("1", "2", "1,2", "")]
    json_files.write_lines(tales, [{"sections": ["first", "second"], "questions": questions}])
    assert [(row["question"], row["source"]) for row in answers.of_tales(str(tales))] == [("q1", "first"), ("q2", "second")]
    qas = [{"question": "q", "answers": [{"text": "x", "answer_start": 2}]}]
    articles.write_text(json.dumps({"data": [{"paragraphs": [{"context": f"{n} x", "qas": qas}]} for n in range(40)]}))
    learned, tested = answers.of_articles(str(articles))
    assert len(learned) == answers.LEARNED and len(tested) == 40 - answers.LEARNED
    assert not {row["source"] for row in learned} & {row["source"] for row in tested} and learned[0]["start"] == 2


def test_what_is_read_of_a_session_fits_and_stays_in_order():
    turns = [(f"N{number}", f"We fight the dragon number {number} in cave {number // 7}. Oh!") for number in range(200)]
    lines = summaries.told(turns).split("\n")
    names = [int(line.partition(":")[0][1:]) for line in lines]
    assert len("\n".join(lines)) <= summaries.READ and names == sorted(names) and 5 < len(lines) < 200
    assert all("Oh!" not in line.split(": ")[1:] for line in lines)
    words = summaries.extract(turns).split()
    assert len(words) <= summaries.WORDS and "Oh!" not in words
    numbers = [int(word) for before, word in zip(words, words[1:], strict=False) if before == "number"]
    assert len(numbers) == summaries.WORDS // 9 and numbers == sorted(numbers)
    odd = [("X", "Completely unrelated zebras juggle quietly.")]
    assert not {"zebras"} & {*summaries.extract([*turns, *odd]).split(), *summaries.told([*turns, *odd]).split()}
    assert summaries.extract([("A", "Hm.")]) == "Hm."  # where there is nothing else


def test_parts_without_a_summary_or_said_twice_are_left_out(tmp_path):
    def part(text, summary, score=0.5):
        return {"turns": [["A", text]], "summary": summary, "score": score}

    paths = [tmp_path / "train.jsonl", tmp_path / "test.jsonl"]
    json_files.write_lines(paths[0], [part("We go to the inn.", "inn"), part("We go on and on.", "on", 0.1), part("We stay at home.", " ")])
    json_files.write_lines(paths[1], [part("They go to sea.", "sea"), part("They go to sea.", "again"), part("They die at last.", "", 9)])
    summaries.write_examples(str(tmp_path / "out"), *map(str, paths))
    assert [row["target"] for row in rows_of(tmp_path / "out" / "train.jsonl")] == ["inn"]
    assert [row["target"] for row in rows_of(tmp_path / "out" / "test.jsonl")] == ["sea"]


def test_contradictions_stand_beside_the_same_turn_again(tmp_path):
    said = [
        "I am at home.",
        "It is a good day.",
        "We meet at five.",
        "Come on Monday, it is good.",
        "So it is.",
        "He was not here.",
        "It costs 12.",
        "Bye.",
    ]
    dialogues = [{"dialogue": "\n".join(f"#P{place % 2}#: {number} {text}" for place, text in enumerate(said))} for number in range(4)]
    json_files.write_lines(tmp_path / "dialogues.jsonl", dialogues)
    coherence.plant(str(tmp_path / "dialogues.jsonl"), str(tmp_path / "out"))
    rows = {row["id"]: row["dialogue"].split("\n") for row in rows_of(tmp_path / "out" / "rows.jsonl")}
    assert {name.split()[1] for name in rows} == {"whole", "shuffled", "elsewhere"} | {
        f"{again}{kind}" for kind in coherence.KINDS for again in ("", "again_")
    }
    for name, lines in rows.items():
        number, kind = name.split()
        whole = rows[f"{number} whole"]
        if kind in coherence.KINDS:
            again = rows[f"{number} again_{kind}"]
            assert lines[:-1] == again[:-1] == whole[-coherence.BEFORE :] and again[-1] in whole[-coherence.BEFORE : -1]
            assert lines[-1] not in whole
        elif kind == "shuffled":
            assert sorted(lines) == sorted(whole) and lines[0] == whole[0]
        elif kind == "elsewhere":
            assert sum(line not in whole for line in lines) == 1


@pytest.mark.parametrize(("sure", "area"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_areas_are_of_what_is_good_over_what_is_not(sure, area):
    bad = {"elsewhere", "shuffled", *coherence.KINDS}
    names = ["whole", *bad, *(f"again_{kind}" for kind in coherence.KINDS)]
    scores = {f"{number} {name}": (1 - sure, 1 - sure) if name in bad else (sure, sure) for number in range(3) for name in names}
    assert coherence.aurocs(scores) == dict.fromkeys(("contradiction", "elsewhere", "shuffled", coherence.UNSEEN), area)


def test_what_is_learned_of_several_languages_is_in_line_and_not_asked(tmp_path):
    def article(title, language):
        def asked(number):
            return {"question": f"{language} {title} {number}?", "answers": [{"text": f"{title} {number}"}]}

        return {"title": title, "paragraphs": [{"context": f"{language} {title} text {n}", "qas": [asked(n)]} for n in range(5)]}

    paths = [tmp_path / f"{language}.json" for language in transfer.LANGUAGES]
    for path in paths:
        path.write_text(json.dumps({"data": [article(title, path.stem) for title in ("sun", "moon")]}))
    transfer.write_texts(str(tmp_path / "out"), *map(str, paths))
    for language in transfer.LANGUAGES:
        learned, tested = (transfer.questions(str(tmp_path / "out"), language, part) for part in ("train", "test"))
        assert (len(learned[0]), len(tested[0])) == (2 * transfer.LEARNED, 2 * (5 - transfer.LEARNED))
        assert not {*learned[0]} & {*tested[0]} and all(label in text for text, label in zip(*tested, strict=True))
    pairs = rows_of(tmp_path / "out" / "pairs.jsonl")
    assert all(row["text"].split()[1:] == row["pair"].split()[1:] for row in pairs)
    assert {row["text"].split()[0] for row in pairs} == {"en"}  # answers that are names say the same in both
    assert {row["pair"].split()[0] for row in pairs} == {*transfer.LANGUAGES} - {"en"}
    for said in (json.dumps(pairs), *((tmp_path / "out" / name).read_text() for name in ("all.txt", "sides.json"))):
        assert "sun text 0" in said
        assert not any(f"{title} {more}{n}" in said for title in ("sun", "moon") for more in ("", "text ") for n in (3, 4))
    (command,) = next(job.commands for job in transfer.get_table().shared if job.name == "tokens")
    assert "--validation 0" in command  # else the tokenizer never sees the last tenth, which is the last language


def test_the_mean_is_of_the_other_languages():
    right = dict.fromkeys(transfer.LANGUAGES, 0.5) | {"en": 1.0, "zh": 0.0}
    assert transfer.measures(right)["others"] == pytest.approx(0.4)


# ---------------------------------------------------------------------------------------------------------------- repairs, novels


@pytest.mark.parametrize(
    ("fixed", "place"),
    [
        ("a ( ) { c ; }", (4, 6)),
        ("a ( ) { b ; c ; }", None),  # as it is
        ("a ( ) { x ; c ; }", None),  # other words in place of some
        ("( ) { c ; }", None),  # two pieces
    ],
)
def test_what_was_taken_out_is_one_piece(fixed, place):
    row = {"buggy": "a ( ) { b ; c ; }", "fixed": fixed}
    assert repairs.taken(row) == place


def test_statements_are_balanced_and_whole():
    words = "f ( ) { a ; if ( b ) { c ; } d ; }".split()
    found = {" ".join(words[first:last]) for first, last in repairs.statements(words)}
    whole = "if ( b ) { c ; }"
    assert found == {"a ;", whole, f"a ; {whole}", "c ;", "d ;", f"{whole} d ;", f"a ; {whole} d ;"}


def test_a_repair_counts_where_it_is_what_people_made(tmp_path):
    rows = [
        {"buggy": f"void m ( ) {{ int v{n} ; log ( v{n} ) ; return v{n} ; }}", "fixed": f"void m ( ) {{ int v{n} ; return v{n} ; }}"}
        for n in range(30)
    ]
    changed = {"buggy": "int m ( ) { return 1 ; }", "fixed": "int m ( ) { return 2 ; }"}
    paths = [tmp_path / f"{name}.jsonl" for name in ("train", "valid", "test")]
    for path, own in zip(paths, (rows[:20], rows[20:25], [*rows[25:], changed]), strict=True):
        json_files.write_lines(path, own)
    repairs.write_examples(str(tmp_path), *map(str, paths))
    (asked,) = json.loads((tmp_path / "questions.json").read_text())["data"]
    assert len(asked["paragraphs"]) == 25
    for one in asked["paragraphs"]:
        (answer,) = one["qas"][0]["answers"]
        assert one["context"][answer["answer_start"] :].startswith(answer["text"]) and answer["text"].startswith("log (")
    tested = rows_of(tmp_path / "test.jsonl")
    found = repairs.scores(tested, [row["fixed"].replace(" ", "  ") for row in tested[:3]] + ["" for _ in tested[3:]])
    assert (found["exact"], found["deletions"]) == (0.5, 0.6) and repairs.counted(str(tmp_path))["deletions"] == 1.0


def test_words_of_novels_have_the_tags_of_the_outermost_entities():
    text = "The  lord of the manor\nin London ."
    entities = [[0, 22, "PER"], [13, 22, "FAC"], [5, 9, "PER"], [26, 32, "GPE"]]
    first, second = novels.sentences_of({"text": text, "entities": entities})
    assert list(zip(first["tokens"], first["tags"], strict=True)) == [
        ("The", "B-PER"),
        *((word, "I-PER") for word in ("lord", "of", "the", "manor")),
    ]
    assert second == {"tokens": ["in", "London", "."], "tags": ["O", "B-GPE", "O"]}
    assert novels.outermost([[0, 5, "A"], [3, 8, "B"], [8, 9, "C"]]) == [(0, 5, "A"), (8, 9, "C")]  # of two that cross the first


# ---------------------------------------------------------------------------------------------------------------- airlines, style


def test_a_new_airline_is_not_learned_from(tmp_path):
    rows = [
        {"topic": topic, "text": f"{topic} {n}", "sentiment": "negative"} for topic in ("American", "Southwest", "United") for n in (1, 2)
    ]
    for name in ("train", "test"):
        json_files.write_lines(tmp_path / f"{name}.jsonl", rows)
    airlines.write_posts(str(tmp_path / "out"), str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl"))
    for name, airline in airlines.AIRLINES.items():
        assert {row["topic"] for row in rows_of(tmp_path / "out" / f"but_{name}_train.jsonl")} == {row["topic"] for row in rows} - {airline}
        assert {row["topic"] for row in rows_of(tmp_path / "out" / f"{name}_test.jsonl")} == {airline}
    assert len(rows_of(tmp_path / "out" / "all_train.jsonl")) == len(rows)


def test_sentences_without_a_model_are_told_the_other_way_round():
    learned = [
        {"text": f"a {word} film number{n}", "style": kind}
        for kind, word in zip(style.STYLES, ("dull", "fine"), strict=True)
        for n in range(30)
    ]
    asked = [{"text": "a dull film number7 , dull", "style": "positive"}, {"text": "a film", "style": "negative"}]
    assert style.baseline("copied", learned, asked) == [row["text"] for row in asked]
    assert style.baseline("deleted", learned, asked) == ["a film number7 ,", "a film"]
    assert style.baseline("retrieved", learned, asked)[0] == "a fine film number7"
    assert style.baseline("filled", learned, asked) == ["a fine film number7 , fine", "a film"]


def test_sentences_are_asked_for_in_the_kind_that_they_are_not(tmp_path):
    for name in ("positive", "negative"):
        (tmp_path / name).write_text("".join(f"{name} {n}\n" for n in range(40)))
    style.write_sentences(str(tmp_path / "out"), str(tmp_path / "positive"), str(tmp_path / "negative"))
    asked, learned = (rows_of(tmp_path / "out" / f"{name}.jsonl") for name in ("asked", "train"))
    assert asked and all(row["text"].split()[0] == style.other(row["style"]) for row in asked)
    assert all(row["text"].split()[0] == row["style"] for row in learned) and not {row["text"] for row in asked} & {
        row["text"] for row in learned
    }
