"""`omnia explain`: what of a text an answer rests on."""

import dataclasses

import tyro

from data.errors import UserError
from data.files import json_files, storage
from train.explain.page import TAUGHT, TITLE, errors_of, measures_of, page_of, reading_of, section_of
from train.loop.report import write_report
from train.loop.sections import add_sections
from train.verbs.arguments import parse, start_jax


@dataclasses.dataclass(frozen=True)
class Explain:
    """Say how much each token of a text has to do with what a model says: the next token of a decoder, a token that an encoder-decoder
    writes, a label of a classifier."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    prompt: str = ""
    """The text."""
    image: str = ""
    """Instead of a text: a picture, for a run that classifies pictures."""
    audio: str = ""
    """The same: a recording."""
    method: str = "integrated_gradients"
    """integrated_gradients, gradient_x_input, occlusion, rollout (attention), shap, partition (Owen values) or lime."""
    pair: str = ""
    """Second text, for a run that classifies pairs."""
    written: str = ""
    """Of an encoder-decoder: what it has written before the answer."""
    answer: str = ""
    """Label, or text whose first token is asked for. Empty: what the model finds most likely."""
    against: str = ""
    """Another label or text: why that answer and not this."""
    sanity_check: bool = False
    """Also explain the same answer with the parameters drawn anew, three times, and compare (Adebayo et al. 2018)."""
    lens: bool = False
    """Also what each layer of a decoder would answer (logit lens)."""
    training: int = 0
    """So many examples of the training data that helped the most, hurt the most, and taught themselves the most (TracIn). 0: none."""
    samples: int = 512
    """Texts that shap, partition and lime read, about; for integrated_gradients, points at most."""
    seed: int = 0
    """Seed of what is drawn."""
    step: int | None = None
    """Checkpoint. Default: the latest."""
    output: str = ""
    """Page to write, an HTML file that needs nothing else."""
    report: bool = False
    """Put it into the run's report.html, in place of the explanation that was there."""
    json: bool = False
    """Print one line of JSON, last."""


def _of_medium(run, o: Explain, kind, path: str):
    """What is found of a picture or recording, and a map of it."""
    from train.explain.explaining import explained, method_named
    from train.explain.media import heat_map, medium_of
    from train.sources.media.shapes import shapes_of

    method = method_named(o.method)
    subject, cut = medium_of(run, kind, path, answer=o.answer, against=o.against, step=o.step)
    found = explained(subject, method, o.samples, o.seed, o.sanity_check)
    return found, heat_map(cut, shapes_of(run.experiment)[kind], found["attributions"])


def explain(arguments: list[str]) -> None:
    o = parse(Explain, "explain", arguments)
    if o.samples < 16:
        raise UserError(f"omnia explain: --samples is {o.samples}", "Give 16 or more.")
    if o.seed < 0:
        raise UserError(f"omnia explain: --seed is {o.seed}", "Give 0 or more.")
    media = [(kind, path) for kind, path in (("image", o.image), ("audio", o.audio)) if path]
    if len(media) + bool(o.prompt) > 1 or media and (o.pair or o.written or o.lens or o.training):
        what = "omnia explain: --image and --audio stand alone, without a text, --pair, --written, --lens and --training"
        raise UserError(what, "Give one of --prompt, --image and --audio.")
    if o.training < 0:
        raise UserError(f"omnia explain: --training is {o.training}", "Give 0 or more.")
    if o.output and not o.output.endswith((".html", ".htm")):
        raise UserError(f"omnia explain: --output {o.output}: is no page", "Name a file that ends with .html.")
    from train.runs.directory import open_run

    run = open_run(o.run_dir)
    start_jax()
    from train.explain.explaining import explain as explain_run

    asked = {"answer": o.answer, "against": o.against, "step": o.step}
    picture = b""
    if media:
        found, picture = _of_medium(run, o, *media[0])
    else:
        asked |= {"pair": o.pair, "written": o.written}
        more = {"sanity_check": o.sanity_check, "lens": o.lens}
        found = explain_run(run, o.prompt, o.method, samples=o.samples, seed=o.seed, **more, **asked)
    if o.training:
        from train.explain.influence import trained_by

        found["training"] = trained_by(run, o.prompt, o.training, pair=o.pair, written=o.written, answer=o.answer, seed=o.seed)
    if o.output:
        storage.write_atomically(o.output, page_of(found, picture).encode())
    if o.report:
        add_sections(run.path, [section_of(found, o.prompt or o.image or o.audio, picture)], (TITLE,))
        write_report(run.path)
    if o.json:
        print(json_files.dumps(found))
        return
    against = f" and not {found['against']!r}" if found["against"] else ""
    print(f"Why {found['answer']!r}{against}: log-odds {found['value']:.4f} nats, {found['baseline_value']:.4f} without tokens")
    most = max(map(abs, found["attributions"])) or 1.0
    for token, value, error in zip(found["tokens"], found["attributions"], errors_of(found), strict=True):
        print(f"{value:+10.4f}{error}  {'█' * round(20 * abs(value) / most):20}  {token!r}")
    measures = measures_of(found)
    widest = max(len(name) for name, _ in measures)
    for name, measure in measures:
        print(f"{name:{widest}}  {measure}")
    print(*reading_of(found), sep="\n")
    for one in found.get("lens", []):
        print(f"layer {one['layer']:3} {one['answer']:.4f}  {', '.join(f'{token!r} {share:.3f}' for token, share in one['likeliest'])}")
    if "training" in found:
        for name, what in TAUGHT.items():
            print(f"{what} ({found['training']['unit']}s of {found['training']['of']:,})")
            for one in found["training"][name]:
                label = f"  {one['label']}" if "label" in one else ""
                print(f"{one['self_influence' if name == 'self' else 'influence']:+10.4g}{label}  {one['text'][:100]!r}")
