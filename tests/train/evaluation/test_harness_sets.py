"""Public data sets as tasks of lm-eval: what is read of small made files, what is asked, how answers are scored."""

import json
import os
from pathlib import Path

import pytest

from train.evaluation import harness_sets

TEN = range(10)
"""Of a set without a split the last of ten rows is the test part."""
ARTICLE = {"paragraphs": [{"context": "The sea is blue.", "qas": [{"question": "What is blue?", "answers": [{"text": "The sea"}]}]}]}
FILES = {
    "openbookqa/{train,test}.json": [{"instruction": "Choose: What burns?\n\nAnswer1: wood Answer2: sand\n\nFormat:", "answer": "answer1"}],
    "rte/{rte1_dev,rte2_dev,rte1_test,rte2_test}.jsonl": [{"premise": "It rains.", "hypothesis": "It is wet.", "label": 1}],
    "mr_polarity/rt-polarity.{neg,pos}": [f"film {number}" for number in TEN],
    "subjectivity/{plot,quote}.tok.gt9.5000": [f"sentence {number}" for number in TEN],
    "trec_qc/{train,test}.txt": ["NUM:count How many cats ?"],
    "xquad/xquad.{en,zh}.articles_00-37.json": [{"data": [ARTICLE] * 31}],
    "gsm8k_test/gsm8k_test.jsonl": [{"question": "One and one?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}] * 2,
    "mawps/{train,test}set.json": [{"original_text": "Two of 5 ?", "ans": "5.0"}],
    "mbpp/mbpp.jsonl": [
        {"task_id": number, "text": f"Task {number}.", "code": "def two():\r\n  return K", "test_setup_code": "K = 2", "test_list": tests}
        for number, tests in ((1, ["assert two() == 2"]), (11, ["assert two() == 2", "assert two() < 3"]), (511, ["assert two() == 2"]))
    ],
    "humaneval_python/humaneval-python.jsonl": [
        {"prompt": '\ndef one():\n    """ One. """\n', "canonical_solution": "    return 1\n", "test": "assert one() == 1"}
    ],
    "dialogsum/dev.jsonl": [{"dialogue": "A: Hi. B: Hi.", "summary": "They greet."}],
    "dialogsum/test_000-399.jsonl": [{"dialogue": "A: Bye. B: Bye.", "summary1": "They part."}],
    "wikitext2/test.txt": [" = Cat = ", " A cat sleeps . "],
    "zh_chnsenticorp_hotel/ChnSentiCorp_htl_all.csv": ["label,review", *(f"{int(number < 7)},第{number}家" for number in TEN)],
    "zh_online_shopping/online_shopping_10_cats.csv": [
        "cat,label,review",
        "酒店,1,很近",
        *(f"{'书籍' if number < 5 else '水果'},{number % 2},第{number}件" for number in TEN),
    ],
    "applications/ag_news_cut/{train,test}.jsonl": [{"topic": "sports", "title": "A goal", "text": "They won."}],
    "applications/financial_phrasebank/{train,test}.jsonl": [{"text": "Sales rose .", "sentiment": "positive"}],
    "applications/pubmedqa_labeled/{train,test}.jsonl": [{"contexts": ["A.", "B."], "question": "Is A B?", "answer": "maybe"}],
    "applications/zh_finance_news/{train,test}.jsonl": [{"title": "利润增长", "sentiment": "positive"}],
    "applications/zh_news_titles/{train,test}.jsonl": [{"text": "足球比赛", "topic": "sports"}],
}
"""Rows of each file, or lines of it. The part of a name in braces stands for several files."""
SHOWN = {
    "local_subjectivity": "Sentence: sentence 9\nThis sentence is from a summary",
    "local_zh_hotel": "评论：第9家\n总的来说，这家酒店很差",
    "local_zh_shopping": "评论：第9件\n总的来说，这件商品很好",
    "local_ag_news": "News: A goal. They won.\nTopic: sports",
    "local_financial_phrasebank": "News: Sales rose .\nTo investors this is positive",
    "local_pubmedqa": "Abstract: A.\nB.\nQuestion: Is A B?\nAnswer (yes, no or maybe): maybe",
    "local_zh_finance_news": "标题：利润增长\n对这家公司来说，这是好消息",
    "local_zh_news_titles": "标题：足球比赛\n类别：体育",
    "local_xquad_zh": "文章：The sea is blue.\n问题：What is blue?\n用文章中的词语回答：The sea",
    "local_mawps": "Problem: Two of 5 ?\nThe result is 5",
    "local_mbpp": '"""Task 11.\nassert two() == 2\n"""\ndef two():\n  return K',
    "local_humaneval": 'def one():\n    """ One. """\n    return 1\n',
}
"""The first test example of a task, with its answer."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """All files, in a folder that OMNIA_DATA names."""
    for pattern, rows in FILES.items():
        before, _, rest = pattern.partition("{")
        names, _, after = rest.partition("}")
        for name in names.split(","):
            file = tmp_path / f"{before}{name}{after}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    monkeypatch.setenv("OMNIA_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def parts(monkeypatch):
    """Sets as {split: examples}, without the package `datasets`."""
    monkeypatch.setattr(harness_sets, "_datasets", lambda splits: splits)


def test_every_task_file_asks_and_shows_examples(folder):
    pytest.importorskip("lm_eval", reason="lm-eval is missing; the extra `eval` has it")
    from train.evaluation import harness

    names = sorted(f"local_{file.stem}" for file in harness.TASKS.glob("*.yaml"))
    for name, task in zip(names, harness.load_tasks(names)[1], strict=True):
        assert task.config.task == name
        task.set_config(key="num_fewshot", value=0)
        task.build_all_requests(limit=1, rank=0, world_size=1)
        assert task.instances
        if name in SHOWN:
            document = next(iter(task.test_docs()))
            target = task.doc_to_target(document)
            answer = task.doc_to_choice(document)[target] if task.OUTPUT_TYPE == "multiple_choice" else target
            assert task.doc_to_text(document) + task.config.target_delimiter + answer == SHOWN[name]
    assert set(SHOWN) <= set(names)


def test_reviews_are_tested_on_every_tenth_row_and_nothing_of_it_is_learned(folder, parts):
    file = folder / "zh_chnsenticorp_hotel" / "ChnSentiCorp_htl_all.csv"
    texts = ["\ufeff一", "", *"二三四五六七八九十", "十"]
    file.write_text("label,review\n" + "".join(f'1,"{text}"\n' for text in texts))
    found = harness_sets.reviews("zh_chnsenticorp_hotel/ChnSentiCorp_htl_all.csv")
    assert [row["text"] for row in found["test"]] == ["十"]
    assert [row["text"] for row in found["train"]] == [*"一二三四五六七八"]  # neither 九, before the test row, nor the other 十


def test_kinds_come_in_turn_so_that_the_first_examples_have_all(folder, parts):
    goods = harness_sets.reviews("zh_online_shopping/online_shopping_10_cats.csv", leave_out="酒店")["train"]
    assert sorted((row["category"], row["label"]) for row in goods[:4]) == [("书籍", 0), ("书籍", 1), ("水果", 0), ("水果", 1)]
    assert len(goods) == 8 and not any(row["category"] == "酒店" for row in goods)
    file = folder / "applications" / "financial_phrasebank" / "test.jsonl"
    kinds = ["neutral"] * 3 + ["negative"] + ["positive"] * 2
    file.write_text("".join(json.dumps({"text": "x", "sentiment": kind}) + "\n" for kind in kinds))
    news = harness_sets.labelled("applications/financial_phrasebank", "sentiment", ["negative", "neutral", "positive"])["test"]
    assert [row["label"] for row in news] == [1, 0, 2, 1, 2, 1]
    films = harness_sets.subjectivity()
    assert [row["label"] for row in films["train"][:4]] == [0, 1, 0, 1] and [row["text"] for row in films["test"]] == ["sentence 9"] * 2


@pytest.mark.parametrize(
    ("text", "result", "right"),
    [
        (" 6 * 2 = 12 apples", "12", 1),
        (" 12, or 13", "12", 0),
        (" $1,250.00.", "1250", 1),
        (" .75", "0.75", 1),
        (" -3", "3", 0),
        (" 1.8333", "1.8333", 1),
        (" 1.83", "1.8333", 0),
        (" none", "0", 0),
    ],
)
def test_the_last_number_counts(text, result, right):
    assert harness_sets.last_number({"result": result}, [text]) == {"exact_match": right}


def test_programs_are_judged_by_their_tests(folder, parts):
    """The set's own passes, with what its tests need; others do not, nor does one that leaves before its tests."""
    mbpp, humaneval = harness_sets.mbpp(), harness_sets.humaneval()
    assert [(split, [one["text"] for one in rows]) for split, rows in mbpp.items()] == [("prompt", ["Task 1."]), ("test", ["Task 11."])]
    (task,), (function,) = mbpp["test"], humaneval["test"]
    assert task["code"] == "def two():\n  return K"
    answers = {
        (0, task["code"]): 1,
        (0, "def two():\n  return 1"): 0,
        (0, "def two(:"): 0,
        (0, "raise SystemExit(0)"): 0,
        (1, function["code"]): 1,
        (1, "\n    return 2"): 0,
    }
    for (number, text), right in answers.items():
        assert harness_sets.passes_tests((task, function)[number], [text]) == {"pass_at_1": right}


def test_the_check_of_a_function_is_called_where_the_file_only_names_it(folder, parts):
    """As in OpenAI's own file: without the call every function would pass."""
    record = {"prompt": "def one():\n", "canonical_solution": "    return 1\n", "entry_point": "one"}
    record["test"] = "def check(candidate):\n    assert candidate() == 1\n"
    (folder / "humaneval_python" / "humaneval-python.jsonl").write_text(json.dumps(record) + "\n")
    (function,) = harness_sets.humaneval()["test"]
    assert [harness_sets.passes_tests(function, [text])["pass_at_1"] for text in (function["code"], "\n    return 2")] == [1, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("read", "count"), [(harness_sets.mbpp, 500), (harness_sets.humaneval, 164)])
def test_the_own_programs_of_published_sets_pass(read, count, parts):
    if not Path(os.environ.get("OMNIA_DATA", "nowhere"), "mbpp").exists():
        pytest.skip("OMNIA_DATA names no folder with MBPP and HumanEval")
    tests = read()["test"]
    assert len(tests) == count
    assert [one for one in tests if not harness_sets.passes_tests(one, [one["code"]])["pass_at_1"]] == []
