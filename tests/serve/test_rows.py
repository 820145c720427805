"""The page of a run that answers rows: what it asks for, how answers look, and what it never runs."""

import base64
import hashlib
import html
import json
import re
import urllib.error
import urllib.request

import pytest

from data.errors import UserError
from serve.applications import Working
from serve.cli import Serve, load
from serve.observe import Observed
from tests.serve.browser import CHROMIUM, Browser
from tests.train.apps.runs import TUNE, recommender_run, task_runs, verse_run
from train.kinds import Application, Column
from train.runs.directory import open_run

EVIL = '"><script>window.ran = 1</script>'
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


class Echo(Application):
    """The line that a row holds, or the row."""

    notice = f"For tests, not for `care`. {EVIL}"
    labels = ("bad", "good")
    at_once = 3
    columns = {
        "text": Column("The text."),
        "many": Column("Several.", "list"),
        "number": Column("A number.", "number"),
        "line": Column("The line.", "object"),
        "sure": Column("Whether.", "truth"),
        "image": Column("An image.", "image"),
        EVIL: Column(EVIL),
    }
    example = {"text": "an example", "many": ["a", "b"], "number": 0.5, "line": {"answer": "yes"}, "sure": True}

    def answers(self, rows):
        return [{"error": "it is wrong <b>"} if row.get("text") == "wrong" else row.get("line") or {"row": dict(row)} for row in rows]


class Talking(Echo):
    def reply(self, turns):
        return {"answer": turns[-1]}


def at(address: str, path: str = "/") -> tuple[str, dict]:
    with urllib.request.urlopen(address + path, timeout=30) as found:
        return found.read().decode(), found.headers


def found_in(page: str) -> dict:
    """What is shown, as the page has it."""
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', page)[1]))


def post(address: str, body: dict) -> dict:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as found:
        return json.load(found)


def apply(address: str, *rows: dict) -> list[dict]:
    return post(f"{address}/v1/apply", {"rows": rows})["data"]


@pytest.fixture(scope="module")
def address(listen):
    with listen(served=None, working=Working(Echo(), "tiny")) as (found, application, _):
        application.name = EVIL
        yield found


def test_the_page_has_each_column_and_says_what_answers_are_not_for(address):
    page, headers = at(address)
    found = found_in(page)
    assert found["columns"] == {name: column._asdict() for name, column in Echo.columns.items()}
    assert found["example"] == Echo.example and found["notice"] == Echo.notice and found["most"] == 3 and not found["talks"]
    assert headers["content-type"].startswith("text/html") and len(page) < 30_000


@pytest.mark.parametrize("path", ["/", "/?rows"])
@pytest.mark.parametrize("kind", [Echo, Talking])
def test_a_page_runs_what_stands_in_its_file_and_loads_nothing(listen, kind, path):
    with listen(served=None, working=Working(kind(), "tiny")) as (address, application, _):
        application.name = EVIL
        page, headers = at(address, path)
    policy = headers["content-security-policy"]
    assert "<script>window" not in page and page.count("<script>") == page.count("<style>") == 1 and "{{" not in page
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        own = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'" in policy
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//|<[^>]*\son\w+\s*=|innerHTML|insertAdjacentHTML|@import""", page)


def test_whoever_talks_is_talked_with_and_has_a_page_of_rows_beside(listen):
    with listen(served=None, working=Working(Talking(), "tiny")) as (address, _, _):
        talk, rows = at(address)[0], at(address, "/?rows")[0]
        assert 'aria-label="Message"' in talk and 'data-rows="rows"' in talk and found_in(rows)["talks"]
    with listen() as (address, _, _):  # a model that writes
        for path in ("/", "/?rows"):
            assert 'data-rows=""' in at(address, path)[0]


def test_a_run_without_rows_says_how_it_is_used(listen):
    with listen(served=None, working=Working(Echo(), "tiny")) as (address, application, _):
        application.ready = False
        page, headers = at(address)
        assert "being loaded" in found_in(page)["notice"] and headers["refresh"] == "2"
        application.ready = True
        application.serve(None, None, object())
        assert found_in(at(address)[0]) == {"notice": "This run makes vectors of texts: POST them to /v1/embeddings."}
        application.serve(None, None, object(), notice="It watches.")
        assert found_in(at(address)[0]) == {"notice": "It watches."}
        with pytest.raises(urllib.error.HTTPError) as refused:
            apply(address, {})
        assert "It watches." in refused.value.read().decode()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return recommender_run(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def verse(tmp_path_factory):
    return verse_run(tmp_path_factory.mktemp("verse"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return task_runs(tmp_path_factory.mktemp("tasks"))


def loaded(run, **options):
    return load(Serve(str(run), **options), open_run(run), Observed())


def test_runs_of_all_sorts_are_served_with_their_pages(runs, films, verse, listen):
    """Also one whose model reads no texts, and one whose model could write by itself. The example of the page is answered."""
    for run in (films, verse, runs["task"], runs["service"]):
        found = loaded(run)
        assert found.served is None and (found.embedder is None) == (run in (films, verse))
        with listen(served=None, embedder=found.embedder, working=found.working) as (address, _, _):
            shown = found_in(at(address, "/?rows")[0])
            (line,) = apply(address, shown["example"])
            assert "error" not in line and {*shown["example"]} <= {*shown["columns"]}
            assert shown["talks"] == (run in (verse, runs["service"]))
            if run == verse:
                assert post(f"{address}/v1/chat/completions", {"messages": [{"role": "user", "content": TUNE}]})["omnia"]["poems"]


def test_a_monitor_says_where_to_watch(runs):
    found = loaded(runs["monitor"])
    assert found.working is None and "/monitor --input" in found.notice and "report.html" in found.notice


@pytest.mark.parametrize("option", [{"int8": True}, {"forbidden": "phrases.txt"}])
def test_what_is_for_texts_is_refused_of_an_application(verse, option):
    with pytest.raises(UserError, match=next(iter(option))):
        loaded(verse, **option)


# ---------------------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    found = Browser()
    yield found
    found.close()


@pytest.fixture
def page(browser, address):
    browser.open(f"{address}/?")
    browser.log.clear()
    yield browser
    assert not browser.log and browser.run("window.ran") is None


def fill(page, **values) -> None:
    for name, value in values.items():
        page.run(f"inputOf({json.dumps(name)}).value = {json.dumps(value)}")


def answered(page, rows: int = 1) -> None:
    page.until(f"!running && document.querySelectorAll('article').length === {rows}")


def shown(page, line: dict, **row) -> None:
    """A line as if it had been the answer."""
    page.run(f"$('answers').hidden = false; $('shown').textContent = ''; article({json.dumps(row)}, {json.dumps(line)}, 1)")


def texts(page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.textContent)")


@needs_browser
def test_an_example_is_filled_in_and_answered(page):
    assert texts(page, ".field label") == [*Echo.columns] and texts(page, "#notice code") == ["care"]
    page.run("$('example').click()")
    page.run("inputOf('line').value = ''")
    page.run("$('answer').click()")
    answered(page)
    row = {name: value for name, value in Echo.example.items() if name != "line"}
    assert page.run("lines") == [{"row": row}]
    page.run("$('clear').click()")
    page.run("$('answer').click()")
    page.until("!running && lines.length === 1 && !Object.keys(lines[0].row).length")


@needs_browser
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("one\n two \n\n", ["one", "two"]),
        ('["one", 2]', ["one", 2]),
        ('{"who": "a"}\n[laughs] yes', [{"who": "a"}, "[laughs] yes"]),
        ("7", ["7"]),
    ],
)
def test_lists_are_json_or_an_entry_a_line(page, written, read):
    assert page.run(f"items('many', {json.dumps(written)})") == read
    assert page.run(f"items('many', written({json.dumps(read)}))") == read


@needs_browser
def test_what_cannot_be_read_is_said(page):
    for name, value in (("line", "{"), ("many", '["a"')):
        fill(page, **{"line": "", "many": ""} | {name: value})
        page.run("$('answer').click()")
        assert texts(page, "#problem") == [f"{name} is no JSON."]
    page.run("$('lines').value = '{\"a\": 1}\\n{'; $('answer-all').click()")
    assert texts(page, "#problem") == ["Line 2 is no JSON."]
    page.run("$('lines').value = 'text,number\\na,1,2'; $('answer-all').click()")
    assert texts(page, "#problem") == ["Row 1 has 3 values under 2 names."]
    page.run("$('lines').value = 'text\\n' + 'a\\n'.repeat(4); $('answer-all').click()")
    assert "4 rows, and 3 are answered at once" in texts(page, "#problem")[0]


@needs_browser
def test_many_rows_come_as_lines_a_list_or_a_table(page):
    rows = [{"text": 'a "b", c', "number": 1, "many": ["x", "y"]}, {"text": "two\nlines"}]
    table = 'text;number;many\n"a ""b"", c";1;"[""x"", ""y""]"\n"two\nlines";;\n'
    for text in ("\n".join(map(json.dumps, rows)) + "\n", json.dumps(rows), table, table.replace(";", "\t").replace("\n\t", "\r\n\t")):
        assert page.run(f"rowsOf({json.dumps(text)})") == rows
    page.run(f"$('lines').value = {json.dumps(table)}; $('answer-all').click()")
    answered(page, 2)
    assert page.run("asLines()") == "".join(json.dumps({"row": row}, separators=(",", ":")) + "\n" for row in rows)
    page.run("URL.createObjectURL = blob => { window.saved = blob; return '#' }; $('download').click()")
    assert page.run("window.saved.text()") == page.run("asLines()")
    page.run("navigator.clipboard.writeText = async text => { window.copied = text }; $('copy').click()")
    page.until("$('copy').textContent === 'Copied'")
    assert page.run("window.copied") == page.run("asLines()")


@needs_browser
def test_errors_and_refusals_are_told(page):
    fill(page, text="wrong")
    page.run("$('answer').click()")
    answered(page)
    assert texts(page, "article .error") == ["it is wrong <b>"] and "1 of them wrong" in texts(page, "#status")[0]
    page.run("window.fetch = async () => new Response(JSON.stringify({error: {message: 'no more'}}), {status: 429})")
    page.run("$('answer').click()")
    page.until("!running && $('problem').textContent === 'no more'")


@needs_browser
def test_an_answer_can_be_stopped(page):
    page.run("window.fetch = (_, { signal }) => new Promise((_, no) => signal.onabort = () => no(new DOMException('', 'AbortError')))")
    page.run("$('answer').click()")
    assert texts(page, "#answer") == ["Stop"]
    page.run("$('answer').click()")
    page.until("!running && $('status').textContent === 'Stopped.'")
    assert texts(page, "#answer") == ["Answer"] and texts(page, "#problem") == [""]


@needs_browser
def test_shares_are_bars_and_lists_of_objects_tables(page):
    items = [{"item": "i3", "score": 1.5, "reasons": [{"because": "i1", "words": ["a", "b"]}]}, {"item": "i4", "score": 1.2}]
    shown(page, {"mastery": {"a": 0.2, "b": 0.9}, "probabilities": [0.75, 0.25], "items": items, "gone": None, "sums": {"a": -2.5}})
    assert texts(page, ".bars .number") == ["0.9", "0.2", "0.75", "0.25"]
    assert texts(page, ".bars li > span:first-child") == ["b", "a", "bad", "good"]
    assert page.run("document.querySelector('.bar > div').style.width") == "90%"
    assert texts(page, "thead th")[:3] == ["item", "score", "reasons"] and "because: i1 · words: a, b" in texts(page, "td li")
    assert texts(page, "article > dl > dd > dl > dd") == ["-2.5"] and texts(page, "article > dl > dd > .note") == ["none"]
    shown(page, {"differential": [{"label": f"l{n}", "probability": n / 100} for n in range(20)]})
    assert len(texts(page, "article > dl > dd > .bars li")) == 12 and texts(page, "dd summary") == ["8 more"]
    shown(page, {"choices": ["one", "two", "three"], "probabilities": [0.1, 0.2, 0.7]})
    assert texts(page, ".bars li > span:first-child") == ["three", "two", "one"]


@needs_browser
def test_quotes_are_highlighted_where_they_stand(page):
    entities = [{"kind": "person", "start": 2, "end": 5, "text": "Ann"}, {"kind": "place", "start": 9, "end": 15, "text": "Berlin"}]
    shown(page, {"entities": entities}, other="x", text="🎈 Ann in Berlin.")
    assert texts(page, ".quoted mark small") == ["person", "place"] and texts(page, ".quoted") == ["🎈 Annperson in Berlinplace."]
    edits = [{"start": 3, "end": 5, "old": "go", "new": "goes"}, {"start": 10, "end": 10, "old": "", "new": "."}]
    shown(page, {"text": "he goes home.", "edits": edits}, source="he go home")
    assert texts(page, ".quoted del") == ["go"] and texts(page, ".quoted ins") == ["goes", "."]
    report = [{"section": "History", "quotes": [{"start": 5, "end": 9, "quote": "Two."}]}]
    shown(page, {"text": "One. Two.", "report": report}, text="other")
    assert texts(page, "mark") == ["Two."]
    points = [{"start": 0, "end": 2, "span": {"start": 1, "end": 3, "quote": "so"}}]
    shown(page, {"points": points}, text="is so", other=" so")
    assert texts(page, "mark") == ["so"] and "in other:" in texts(page, ".note")
    shown(page, {"points": points}, text="other")
    assert not texts(page, ".quoted")
    shown(page, {"points": [points[0] | {"text": "is"}]}, text="is so", other=" so")
    assert texts(page, "mark") == ["is", "so"] and [note for note in texts(page, ".note") if note[:3] == "in "] == ["in text:", "in other:"]
    review = [{"label": "term", "start": 5, "end": 9, "confidence": 0.5}]
    shown(page, {"review": review}, id="a", text="One. Two.")  # without words, in the one text that is long enough
    assert texts(page, "mark") == ["Two.term"] and texts(page, "thead th") == ["label", "start", "end", "confidence"]
    shown(page, {"review": review}, text="One. Two.", other="as long a text")
    assert not texts(page, ".quoted")


@needs_browser
def test_what_an_answer_holds_is_never_html(page):
    line = {EVIL: EVIL, "list": [{EVIL: EVIL, "start": 0, "end": 1, "x": "<"}], "link": "javascript:alert(1)", "web": "https://a.example/1"}
    shown(page, line, text="<b>bold</b>")
    assert page.run("document.querySelectorAll('article script, article b, article img').length") == 0
    links = page.run("[...document.querySelectorAll('article a')].map(one => [one.href, one.rel])")
    assert links == [["https://a.example/1", "noopener noreferrer"]]
    assert EVIL in texts(page, "dt") and texts(page, "mark") == ["<"]
    assert json.loads(texts(page, "article > details > pre")[0]) == line


@needs_browser
def test_images_are_chosen_and_sent(page):
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
    page.run(
        f"const raw = Uint8Array.from(atob('{png}'), one => one.charCodeAt(0));"
        "const held = new DataTransfer(); held.items.add(new File([raw], 'a.png', {type: 'image/png'}));"
        "inputOf('image').files = held.files; inputOf('image').onchange()"
    )
    page.until("document.querySelector('.field img')?.complete")
    assert page.run("filledIn()") == {"image": f"data:image/png;base64,{png}"}
    page.run("$('clear').click()")
    assert page.run("filledIn()") == {} and not texts(page, ".field img")


@needs_browser
def test_it_can_be_used_by_keyboard_and_by_those_who_listen(page):
    assert page.run(
        "[...document.querySelectorAll('button, textarea, input')].every(one => one.textContent || one.labels?.length || one.ariaLabel)"
    )
    described = "[...document.querySelectorAll('[aria-describedby]')].map(one => $(one.getAttribute('aria-describedby')).textContent)"
    assert len(page.run(described)) == len(Echo.columns) + 1 and all(page.run(described))
    assert page.run("$('status').getAttribute('role') + $('problem').getAttribute('role')") == "statusalert"
    page.run("inputOf('text').focus()")
    page.type("by hand")
    page.press("Enter", modifiers=2)
    answered(page)
    assert page.run("lines") == [{"row": {"text": "by hand"}}]


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(address, dark):
    phone = Browser(390, 700, dark)
    try:
        phone.open(f"{address}/")
        shown(phone, {"y" * 80: "z" * 300, "items": [{f"name{n}": "w" * 50 for n in range(9)}], "p": {"l" * 90: 0.5}}, text="v" * 300)
        assert phone.run("document.documentElement.scrollWidth <= 390")
        assert (phone.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
    finally:
        phone.close()
