"""What README.md and docs/ tell people to type works: every command and every block of Python runs, smaller, in the order of the page."""

import ast
import contextlib
import functools
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

import omnia
from tests.data.media.media_files import audio_file, image_file, picture
from tests.options import DEFAULTS, keys_of
from tests.train.conftest import write_texts
from train.adapters.options import LoRA
from train.apps.dialogue.coherence import Coherence
from train.apps.editing.editing import Editing
from train.apps.editing.restyling import Restyling
from train.apps.editing.spelling import Spelling
from train.apps.education.grading import Grading
from train.apps.education.practice import Practice
from train.apps.education.tutoring import Tutoring
from train.apps.medicine.medical_case import MedicalCase
from train.apps.monitor.finance_monitor import FinanceMonitor
from train.apps.reading.extraction import Extraction
from train.apps.reading.filter import Filter
from train.apps.service.customer_service import CustomerService
from train.apps.writing.story import Story
from train.apps.writing.verse import Verse
from train.experiment import Experiment
from train.federated.options import Gathered
from train.loop.checks import check_options
from train.objectives.distillation import Distillation
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.recommendation import NextItem
from train.objectives.tasks.retrieval import Retrieval
from train.objectives.tasks.towers import TwoTowers
from train.objectives.tasks.tracing import NextAnswer
from train.reproduce.table import table_path
from train.sources.media.options import MediaShards
from train.step.adversarial.options import FGM, SMART, FreeLB
from train.step.federated.options import Federated
from train.step.private.options import Private
from train.tasks.classification import Classification
from train.tasks.code import Programs
from train.tasks.recommending.interactions import Recommendation
from train.tasks.sequence import Conversations
from train.tasks.spans import Spans
from train.tasks.together import Together
from train.verbs.arguments import parse
from train.verbs.config_files import load_config
from train.verbs.reproduce import Reproduce
from train.verbs.train import Train

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
LONGEST_README = 150
"""Lines: what is longer goes to a page of docs/."""

# How a command of a page is made small enough for a test. Everything else of it runs as it is written.
INSTEAD = {"sentencepiece:4096": "byte"}
VALUES = {
    "--max-new-tokens": "4",
    "--model.embed-dim": "16",
    "--optimizer.learning-rate": "5e-3",
    "--seed": "0",
}  # one program for all runs
NEW_RUN = {
    "--steps": "4",
    "--batch-size": "8",
    "--model.num-layers": "1",
    "--model.embed-dim": "16",
    "--model.num-heads": "2",
    "--model.context-length": "32",
    "--samples.tokens": "0",
    "--evaluation.rows": "8",
    "--optimizer.learning-rate": "5e-3",
    "--schedule.decay": "constant",  # the others compile the number of steps into the program
}
OF_MEDIA = {"--model.context-length": "160", "--data.scenes": "60", "--data.validation": "2"}
OF_WORLD = OF_MEDIA | {"--data.tasks": "image"}
OF_TASK = {name: value for name, value in NEW_RUN.items() if not name.startswith("--model.")} | {"--data.length": "32"}
WITH_KINDS = [
    Train("somewhere", Experiment(**kinds))
    for kinds in (
        {"data": MediaShards()},
        {"data": Classification(), "objective": Supervised(), "gradient": FreeLB(), "adapters": LoRA()},
        {"data": Spans(), "objective": Retrieval(), "gradient": FGM()},
        {"data": Programs(), "objective": Distillation(), "gradient": SMART()},
        {"data": Recommendation(), "objective": NextItem()},
        {"data": Recommendation(), "objective": TwoTowers()},
        {"data": Together()},
        {"data": CustomerService()},
        {"data": Coherence()},
        {"data": Conversations()},
        {"data": Story(controls=("kind",))},
        {"data": Verse()},
        {"data": Editing()},
        {"data": Spelling()},
        {"data": Restyling()},
        {"data": FinanceMonitor()},
        {"data": Grading()},
        {"data": Extraction()},
        {"data": Filter()},
        {"data": Practice(), "objective": NextAnswer()},
        {"data": Tutoring()},
        {"data": MedicalCase()},
        {"gradient": Private()},
        {"gradient": Federated()},
        {"gradient": Gathered()},
    )
]
"""Commands whose experiments have kinds that pages speak of."""
OLD_RUN = {"--steps": "6"}


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """(line, language, text) of every fenced block."""
    text = page.read_text()
    found = [
        (text.count("\n", 0, match.start()) + 2, match[1], match[2])
        for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    ]
    assert text.count("```") == 2 * len(found)
    return found


def smaller(words: list[str]) -> list[str]:
    """A command of a page, at the size of a test."""
    words = [INSTEAD.get(word, word) for word in words]
    changed = dict(VALUES)
    if words[1] == "train":
        new = words[2].partition(":")[0].endswith(".py")
        sizes = (
            OF_TASK
            if "configs/tasks/" in words[2]
            else NEW_RUN | (OF_WORLD if "media/world" in words[2] else OF_MEDIA if "configs/media/" in words[2] else {})
        )
        if "private" in words:  # whose steps need room for more than they draw on average
            sizes = sizes | {"--batch-size": "16"}
        changed |= sizes if new else OLD_RUN
        words += [word for flag, value in sizes.items() if new and flag not in words for word in (flag, value)]
    elif words[1] == "plan":
        changed |= NEW_RUN
        words += [word for flag, value in NEW_RUN.items() if flag.startswith("--model.") for word in (flag, value)]
    return [changed.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def documented_keys(call: str, of: str = "") -> set[str]:
    """The keys that docs/reference.md promises of a call's JSON, those that it always has: the table's cell up to its semicolon."""
    cell = re.search(rf"^\| `{call}`{of} \| (.*) \|$", REFERENCE, re.MULTILINE)[1]
    return set(re.findall(r"`([\w/]+)`", re.sub(r"\([^)]*\)", "", cell.split(";")[0])))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def run(command: str) -> tuple[int, str]:
    """Exit code and output of one line of a page."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        assert set(words[1:]) <= targets()
        return 0, ""
    assert words[0] == "omnia", f"{command}: nothing here knows how to test it"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = omnia.main(smaller(words)[1:])
        except SystemExit as end:
            code = end.code
    if "--json" in words and not code:
        for line in out.getvalue().splitlines()[-1:]:
            verb = words[1:3] if words[1] in ("checkpoint", "privacy", "audit", "federate") else words[1:2]
            call = " ".join([*verb, *(word for word in words if word in ("--by-position", "--needle", "--list"))])
            found = set(json.loads(line))
            if "exact" in found and call == "evaluate":  # and a key for each part of the data
                assert found > documented_keys(call, " on media"), command
            elif "media" in found:
                assert found == {"prompt", "media", "text"} and "with media as input `prompt`, `media`, `text`" in REFERENCE
            else:
                assert found == documented_keys(call, " of a policy" if call == "evaluate" and "score" in found else ""), command
    return code, out.getvalue() + err.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as a reader has it: the configs, a folder of texts, some pictures and recordings."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    write_texts(tmp_path / "texts", 0, 30)
    for number in range(8):
        kind = tmp_path / "photos" / ("waves", "more waves")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        (kind / f"{number}.png").write_bytes(image_file(picture(seed=number), "PNG"))
    (tmp_path / "scene.png").write_bytes(image_file(form="PNG"))
    (tmp_path / "scene.wav").write_bytes(audio_file())
    (tmp_path / "recordings.csv").write_text("audio,label\nscene.wav,tone\n")
    document = {"parts": [{"text": "Look: "}, {"image": "scene.png"}, {"text": " waves."}]}
    (tmp_path / "documents.jsonl").write_text(json.dumps(document) + "\n")
    rows = "".join(f"the {kind} film number {number},{label}\n" for number in range(20) for kind, label in (("good", "yes"), ("bad", "no")))
    for name in ("reviews.csv", "new_reviews.csv"):
        (tmp_path / name).write_text("text,label\n" + rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_every_block_of_python_runs(page, folder):
    for line, language, text in blocks(page):
        where = f"{page.name}, line {line}"
        if language == "bash":
            for command in text.splitlines():
                code, said = run(command)
                assert code == 0, f"{where}: {command}\n{said}"
        elif language == "console":
            (command,) = (one[2:] for one in text.splitlines() if one.startswith("$ "))
            code, said = run(command)
            for shown in text.splitlines():
                assert shown.startswith("$ ") or shown.strip() in said, f"{where}: {command} does not say: {shown}\n{said}"
            assert "Traceback" not in said
        elif language == "python":
            exec(compile(text, where, "exec"), {})
        else:
            pytest.fail(f"{where}: a block of {language or 'nothing'}; use bash, console or python, which are tested")


def prose(page: Path) -> str:
    """A page without its blocks of code; of a notebook in percent format the Markdown cells."""
    text = page.read_text()
    if page.suffix == ".py":
        cells = re.findall(r"^# %% \[markdown\].*\n((?:#.*\n)*)", text, re.MULTILINE)
        text = re.sub(r"^# ?", "", "\n".join(cells), flags=re.MULTILINE)
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page is called on GitHub; a heading that comes again gets a number."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        name = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {name + f"-{number}" * (number > 0) for name, count in found.items() for number in range(count + 1)}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page to files that do not exist, or to headings that the file lacks."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", prose(page)):
        target = "".join(target)
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if "://" not in target and (not file.exists() or (anchor and anchor not in anchors(file))):
            found.append(target)
    return found


def test_the_readme_is_short():
    assert len(README.splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "notebooks").glob("*.py"))], ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    assert not broken_links(page)


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Fine-tune / RL\n# Same\n# Same\n```\n# no heading\n```\n")
    good = "[a](other.md) [a](other.md#fine-tune--rl) [a](other.md#same-1) [a](#here) [a](https://example.org/none) `[a]`"
    bad = ["none.md", "other.md#fine-tune-rl", "other.md#same-2", "other.md#no-heading", "#there", "none.png"]
    links = "\n".join(f"![a]({target})" for target in bad)
    (tmp_path / "page.md").write_text(f"# Here\n{good}\n{links}\n```\n[a](code.md)\n```\n")
    (tmp_path / "notebook.py").write_text("# %% [markdown]\n# # Here\n# [a](#here) [a](none.md)\n\n# %%\n# [a](code.md)\nx = 1\n")
    assert broken_links(tmp_path / "page.md") == bad
    assert broken_links(tmp_path / "notebook.py") == ["none.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    """`train/devices/mesh.py` and the like, in code type."""
    for name in re.findall(r"`((?:data|model|train|configs|tests|docs|benchmarks)/[\w/]+\.\w+)(?::\w+)?`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_all_verbs_and_options_that_are_named_exist():
    for verb in omnia.VERBS:
        assert re.search(rf"\bomnia {verb}\b|make {verb}|\*\*{verb}\*\*", README), verb
    for flag in set(re.findall(r"`(--[a-z][a-z0-9.-]*)", "".join(page.read_text() for page in PAGES))):
        known = {*options(), *(name for default in (*DEFAULTS.values(), *WITH_KINDS) for name in keys_of(default))}
        assert flag.removeprefix("--") in known or flag in omnia.CONFIG_HELP, flag


@functools.cache
def options() -> set[str]:
    """Of the verbs that are not in DEFAULTS, and of the scripts in launch/, from the comments at their tops."""
    out = io.StringIO()
    for verb in (
        ["doctor"],
        ["report"],
        ["reproduce"],
        ["plan"],
        ["launch"],
        ["label"],
        ["import"],
        ["export"],
        ["apply"],
        ["attack"],
        ["anonymize"],
        ["embed"],
        ["explain"],
        ["serve"],
        ["prepare", "codes"],
        ["prepare", "images"],
        ["prepare", "clean"],
        ["prepare", "classifier"],
        *(["checkpoint", name] for name in ("ls", "verify", "diff", "export")),
        *(["privacy", name] for name in ("plan", "audit", "plant", "exposure")),
        *(["federate", name] for name in ("client", "keys", "split")),
        ["audit", "verify"],
        ["review"],
        ["prepare", "classifier"],
    ):
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            omnia.main([*verb, "--help"])
    for script in (ROOT / "launch").glob("*.sh"):
        out.writelines(line for line in script.read_text().splitlines(True) if line.startswith("#"))
    return set(re.findall(r"(?<![\w-])--([a-z][a-z0-9.-]*)", out.getvalue()))


def test_the_table_of_configs_is_that_of_the_folder():
    listed = re.findall(r"^\| `(\w+\.py)(:\w+)?` \|", RESULTS, re.MULTILINE)
    assert {name for name, _ in listed} == {path.name for path in (ROOT / "configs").glob("*.py")}
    for name, arg in listed:
        load_config(f"{ROOT}/configs/{name}{arg}")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda path: path.stem)
def test_the_command_in_the_header_of_a_config_is_one(path, monkeypatch):
    """It names its own file, and no option that does not exist."""
    monkeypatch.chdir(ROOT)
    header = ast.get_docstring(ast.parse(path.read_text())).replace("\\\n", "")
    commands = re.findall(r"^omnia (?:train|quickstart|reproduce).*$", header, re.MULTILINE)
    assert commands
    for command in commands:
        _, verb, *words = shlex.split(command)
        if verb == "train":
            assert words[0].startswith(str(path.relative_to(ROOT)))
            check_options(parse(Train, "train", words[1:], Train("", load_config(words[0]))).experiment)
        elif verb == "reproduce":
            assert table_path(parse(Reproduce, "reproduce", words).table) == path


def test_the_extras_of_readme_are_those_of_setup():
    text = (ROOT / "setup.py").read_text()
    extras = {
        key
        for name in ("EXTRAS", "BEAM", "ACCELERATORS")
        for key in re.findall(r'^    "(\w+)":', text.split(f"{name} = {{")[1].split("\n}")[0], re.MULTILINE)
    }
    section = README.split("## Extras")[1].split("##")[0]
    assert extras | {"all"} == set(re.findall(r"`(\w+)`", section))
