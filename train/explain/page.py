"""An explanation as a page that needs nothing else: the text, each token in the colour of what it has to do with the answer."""

import base64
import html
from typing import Any

from train.kinds import Section

STYLE = """
:root { --ink: #1c1f24; --soft: #646a73; --paper: #fff; --line: #dfe2e6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a8; --paper: #15171b; --line: #33373d } }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 52rem; margin: 2rem auto;
padding: 0 1rem }
.text { font-size: 1.15rem; line-height: 2.1; white-space: pre-wrap } .text span { padding: 0.2em 0; border-radius: 0.2em }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td, th { text-align: left; padding: 0.2rem 0.6rem 0.2rem 0; border-bottom: 1px solid var(--line) }
img { max-width: 100%; image-rendering: pixelated }
.bar { display: inline-block; height: 0.7em; border-radius: 0.2em } .soft { color: var(--soft) }
"""
TAUGHT = {"helped": "Helped the most", "hurt": "Hurt the most", "self": "Taught themselves the most: rare, or mislabelled"}
"""Headings of the lists of `trained_by`."""
TITLE = "Why "
"""Of a report's sections begins so."""
STRONGEST, LONGEST = 12, 300
"""Tokens of a report's section, and characters of the text."""
FOR, AGAINST = "38, 132, 198", "214, 92, 60"


def measures_of(found: dict[str, Any]) -> list[tuple[str, str]]:
    """How far an explanation can be believed: names and numbers."""
    rows = [(name.replace("_", " "), f"{value:.4f}") for name, value in found["faithfulness"].items()]
    if "completeness_error" in found:
        rows.append(("completeness error", f"{found['completeness_error']:.2g}"))
    if "stability" in found:
        stability = found["stability"]
        rows.append(("standard error", f"{stability['standard_error']:.4f}, {stability['relative']:.1%} of the attributions"))
    if "sanity_check" in found:
        rows.append(("rank correlation, parameters drawn anew", f"{found['sanity_check']['rank_correlation']:+.2f}"))
    return rows


def reading_of(found: dict[str, Any]) -> list[str]:
    """How to read `measures_of`, in sentences."""
    said = [
        "Deletion and insertion: the mean log-odds while the strongest tokens are taken away (lower is better) and put back (higher is"
        " better), beside random orders. An explanation that is no better than random says nothing."
    ]
    if "infidelity" in found["faithfulness"]:
        said.append(
            "Infidelity: how far attributions are from adding up to what the log-odds lose without some tokens, squared (lower is better),"
            " beside the same attributions in random order."
        )
    if "completeness_error" in found:
        said.append("Completeness error: how far attributions are from adding up to what the text changes, as a share of that.")
    if "stability" in found:
        said.append("Standard error: how far an attribution would move with another seed. More samples make it smaller.")
    if "sanity_check" in found:
        said.append(
            "Rank correlation: of the explanation with that of the same answer by the model with all its parameters drawn anew. Near 0 the"
            " explanation rests on what was learned; near 1 a model that has learned nothing is explained alike, so it shows the text and"
            f" not the model. By chance it is within {2 * found['sanity_check']['chance']:.2f} of 0."
        )
    return said


def errors_of(found: dict[str, Any]) -> list[str]:
    """What stands behind each attribution: its standard error, where it was drawn."""
    return [f" ± {error:.4f}" for error in found.get("standard_errors", ())] or [""] * len(found["tokens"])


def page_of(found: dict[str, Any], picture: bytes = b"") -> str:
    """HTML of what `explain` found: see train/explain/explaining.py. picture: a PNG to show in place of the text."""
    tokens = list(zip(found["tokens"], found["attributions"], errors_of(found), strict=True))
    most = max((abs(value) for _, value, _ in tokens), default=0.0) or 1.0
    text = "".join(
        f'<span style="background: {_colour(value / most)}" title="{value:+.4f}">{html.escape(token)}</span>' for token, value, _ in tokens
    )
    rows = "".join(
        f"<tr><td>{html.escape(token) or '&nbsp;'}</td><td>{value:+.4f}{error}</td><td>{_bar(value / most)}</td></tr>"
        for token, value, error in sorted(tokens, key=lambda one: -abs(one[1]))[:40]
    )
    if picture:
        text = (
            f'<img alt="the medium, and the same under its attributions" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        )
    about = f"<b>{html.escape(found['answer'])}</b>"
    if found["against"]:
        about += f" and not <b>{html.escape(found['against'])}</b>"
    measures = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in measures_of(found))
    reading = "".join(f'<p class="soft">{sentence}</p>' for sentence in reading_of(found))
    lens = _lens(found["lens"]) if "lens" in found else ""
    training = _training(found["training"]) if "training" in found else ""
    title = html.escape(found["answer"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Why {title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>{STYLE}</style></head><body>
<h1>Why {about}?</h1>
<p class="soft">{html.escape(found["method"].replace("_", " "))}. Blue speaks for the answer, orange against it. Its log-odds
are {found["value"]:.4f} nats with the text and {found["baseline_value"]:.4f} without its tokens.</p>
<p class="text">{text}</p>
<h2>The strongest tokens</h2><table><tr><th>token</th><th>nats</th><th></th></tr>{rows}</table>
<h2>How far to believe it</h2>
{reading}
<table>{measures}</table>{lens}{training}</body></html>
"""


def section_of(found: dict[str, Any], text: str, picture: bytes = b"") -> Section:
    """The same in short, for the report of the run: the strongest tokens or, of a medium, its picture; and how far to believe it."""
    pairs = [] if picture else sorted(zip(found["tokens"], found["attributions"], strict=True), key=lambda pair: -abs(pair[1]))[:STRONGEST]
    against = f", and not {found['against']!r}" if found["against"] else ""
    rows = [[text[:LONGEST], ""], *([repr(token), f"{value:+.4f} nats"] for token, value in pairs)]
    rows += [list(row) for row in measures_of(found)]
    title = f"{TITLE}{found['answer']!r}{against}? {found['method'].replace('_', ' ').capitalize()}"
    return Section(title, {"why": picture}, ("read, and what of it speaks for the answer", "by how much"), rows)


def _lens(layers: list[dict[str, Any]]) -> str:
    rows = ""
    for one in layers:
        likeliest = ", ".join(f"<b>{html.escape(repr(token))}</b> {share:.3f}" for token, share in one["likeliest"])
        rows += f"<tr><td>{one['layer']}</td><td>{one['answer']:.4f}</td><td>{_bar(one['answer'])}</td><td>{likeliest}</td></tr>"
    return f"""
<h2>Layer by layer</h2>
<p class="soft">What each layer would answer if it were the last (logit lens): the probability of the answer, and the likeliest tokens.
Early layers may hold more than this shows.</p>
<table><tr><th>layer</th><th>answer</th><th></th><th>likeliest</th></tr>{rows}</table>"""


def _training(found: dict[str, Any]) -> str:
    rows = ""
    for name, what in TAUGHT.items():
        rows += f"<tr><th colspan=3>{what}</th></tr>"
        for one in found[name]:
            value = one["self_influence" if name == "self" else "influence"]
            label = html.escape(str(one.get("label", "")))
            rows += f"<tr><td>{value:+.4g}</td><td>{label}</td><td>{html.escape(one['text'][:300])}</td></tr>"
    return f"""
<h2>What taught it</h2>
<p class="soft">How much steps on single {found["unit"]}s of the training data lowered the loss of this (TracIn), over
{len(found["checkpoints"])} checkpoints; {found["read"]:,} of {found["of"]:,} were read.</p>
<table>{rows}</table>"""


def _colour(share: float) -> str:
    return f"rgba({FOR if share >= 0 else AGAINST}, {min(abs(share), 1.0) * 0.75:.3f})"


def _bar(share: float) -> str:
    return f'<span class="bar" style="width: {12 * abs(share):.2f}rem; background: rgb({FOR if share >= 0 else AGAINST})"></span>'
