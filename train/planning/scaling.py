"""A scaling study: runs of growing size, the law of their losses, and a prediction of the next size that is then put to the test."""

import dataclasses
import math
from pathlib import Path

import numpy as np

from data.errors import UserError
from data.files import json_files
from model.flops import training_flops_per_token
from train.experiment import Experiment, Scaling
from train.loop.report import BLUE, GREY, ORANGE
from train.runs.directory import create_run, has_checkpoint, is_run, open_corpora, open_run
from train.runs.resolve import resolve

LEAST_POINTS = 4


@dataclasses.dataclass(frozen=True)
class Law:
    """L(C) = a C^-b + c: loss in nats per token over FLOPs of training (Hoffmann et al. 2022, sec. 3; Henighan et al. 2020, eq. 1)."""

    a: float
    b: float
    c: float

    def __call__(self, flops):
        return self.a * np.asarray(flops, float) ** -self.b + self.c


def fit_law(flops, losses) -> Law:
    """The law with b > 0 and 0 <= c below every loss that is nearest to the points, as differences of log losses.

    Huber's loss (as in Hoffmann et al. 2022, eq. 3) forgives a single run that went wrong; several starts, since the sum has more than
    one valley. flops, losses: at least four, positive. UserError otherwise: three numbers are fitted, and one point must be left to err.
    """
    from scipy.optimize import least_squares

    flops, losses = np.asarray(flops, float), np.asarray(losses, float)
    if len(flops) < LEAST_POINTS or len(set(flops)) < LEAST_POINTS:
        raise UserError(
            f"a law of three numbers cannot be fitted to {len(set(flops))} sizes", f"Give at least {LEAST_POINTS}: --sizes 32 48 64 96 ..."
        )
    if not (np.isfinite(losses).all() and (losses > 0).all() and (flops > 0).all()):
        raise UserError(f"losses {losses.tolist()} of {flops.tolist()} FLOPs: a law needs positive numbers")
    # FLOPs in units of their geometric mean, so that a is the part of the loss there that more compute removes.
    centre = math.exp(np.log(flops).mean())
    x = np.log(flops / centre)

    def differences(theta):
        log_a, b, c = theta
        return np.log(np.exp(log_a - b * x) + c) - np.log(losses)

    top = losses.min()
    bounds = ([-20.0, 1e-6, 0.0], [math.log(10 * losses.max()), 3.0, top])
    starts = [(math.log(losses.mean() - share * top), b, share * top) for share in (0.0, 0.3, 0.6, 0.9) for b in (0.05, 0.2, 0.6)]
    fits = [least_squares(differences, start, bounds=bounds, loss="huber", f_scale=1e-3, x_scale=(1, 0.1, top)) for start in starts]
    log_a, b, c = min(fits, key=lambda fit: fit.cost).x
    return Law(float(math.exp(log_a) * centre**b), float(b), float(c))


def sized(scaling: Scaling, width: int) -> Experiment:
    """The experiment at one width: heads of `head_width`, and steps by the fixed number of tokens per parameter."""
    from model.transformer import count_parameters

    fields = {field.name: getattr(scaling, field.name) for field in dataclasses.fields(Experiment)}
    heads = width // scaling.head_width
    model = dataclasses.replace(scaling.model, embed_dim=width, num_heads=heads, num_kv_heads=0, head_dim=0, mlp_dim=0)
    tokens = scaling.tokens_per_parameter * (count_parameters(model) - _tables(model))
    steps = max(1, round(tokens / (scaling.batch_size * model.context_length)))
    return Experiment(**fields | {"name": f"{scaling.name}_{width}", "model": model, "steps": steps})


def _tables(config) -> int:
    """Parameters of the embedding tables, which the count leaves out (Kaplan et al. 2020, sec. 2.1): in a small model they are most."""
    tables = config.vocab_size * (1 if config.tied_embeddings else 2) + config.hashed_rows
    return config.embed_dim * (tables + (config.context_length if config.positions == "learned" else 0))


def training_flops(experiment: Experiment) -> float:
    length = experiment.model.context_length
    return experiment.steps * experiment.batch_size * length * training_flops_per_token(experiment.model, length)


def study(folder: Path, scaling: Scaling) -> dict | None:
    """Train the ladder in `folder`/<width>, fit, predict the next width, write that down, train it, and compare.

    A width that is finished is not trained again, and one that was stopped goes on. Returns what scaling.json holds, or None when a signal
    stopped it: {"points": [{"width", "parameters", "flops", "tokens", "loss"}], "law": {"a", "b", "c"}, "prediction": {"width", "flops",
    "loss"}, "measured", "error": measured / predicted - 1}.
    """
    resolved = resolve(scaling, open_corpora(scaling))
    assert isinstance(resolved, Scaling)
    scaling = resolved
    remember(folder, scaling)
    points = []
    for width in sorted(scaling.sizes):
        if (point := train_size(folder, scaling, width)) is None:
            return None
        points.append(point)
    law = fit_law([point["flops"] for point in points], [point["loss"] for point in points])
    last = sized(scaling, scaling.predict)
    flops = training_flops(last)
    prediction = {"width": scaling.predict, "flops": flops, "loss": float(law(flops))}
    result = {"points": points, "law": dataclasses.asdict(law), "prediction": prediction}
    earlier = _read(folder / "scaling.json")
    if earlier.get("prediction") != prediction:
        json_files.write(folder / "scaling.json", result)  # before the truth is known
    print(
        f"L(C) = {law.a:.4g} C^-{law.b:.4f} + {law.c:.4f}; predicted for width {scaling.predict}: {prediction['loss']:.4f} nats per token"
    )
    if (point := train_size(folder, scaling, scaling.predict)) is None:
        return None
    result |= {"measured": point, "error": point["loss"] / prediction["loss"] - 1}
    json_files.write(folder / "scaling.json", result)
    draw(folder / "scaling.png", points, law, prediction, point)
    return result


def remember(folder: Path, scaling: Scaling) -> None:
    """Keep the fields of the study beside its runs; UserError when the folder holds another study."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"sizes": sorted(scaling.sizes), "predict": scaling.predict, "head_width": scaling.head_width}
    fields |= {"tokens_per_parameter": scaling.tokens_per_parameter}
    earlier = _read(folder / "study.json")
    for name in ("head_width", "tokens_per_parameter"):
        if earlier and earlier[name] != fields[name]:
            raise UserError(
                f"{folder}: its sizes were trained with {name} {earlier[name]}, asked {fields[name]}", "Choose another --run-dir."
            )
    if not earlier and (is_run(folder) or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not a scaling study", "Choose another --run-dir.")
    json_files.write(folder / "study.json", fields)


def train_size(folder: Path, scaling: Scaling, width: int) -> dict | None:
    """Train one width, or go on with it; None when a signal stopped it."""
    from model.transformer import count_parameters
    from train.loop.checks import check
    from train.loop.loop import train
    from train.runs.resolve import check_resume

    experiment, path = sized(scaling, width), folder / str(width)
    corpora = open_corpora(experiment)
    check(experiment, corpora)
    if is_run(path) and has_checkpoint(path):
        run = open_run(path)
        check_resume(run.experiment, experiment)
        if run.experiment.steps != experiment.steps:
            raise UserError(f"{path}: has {run.experiment.steps} steps, asked {experiment.steps}", "Choose another --run-dir.")
    else:
        run = create_run(path, experiment, corpora)
    summary = train(run)
    if summary["stopped"]:
        return None
    if not summary["validation"]:
        raise UserError(f"{path}: was not validated, and a study compares validation losses", "Prepare with --validation 0.1.")
    parameters = count_parameters(experiment.model) - _tables(experiment.model)
    flops, loss = training_flops(experiment), summary["validation"]["loss"]
    print(f"width {width}: {parameters:,} parameters, {flops:.3g} FLOPs, {loss:.4f} nats per token")
    return {"width": width, "parameters": parameters, "flops": flops, "tokens": summary["tokens"], "loss": loss}


def _read(path: Path) -> dict:
    return json_files.read(path, "Restore the file, or choose another --run-dir.") if path.exists() else {}


def draw(path: Path, points: list[dict], law: Law, prediction: dict, measured: dict) -> None:
    """Points, law, prediction and truth on logarithmic axes."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter, ScalarFormatter
    except ModuleNotFoundError:
        raise UserError(
            "scaling.png needs matplotlib; scaling.json is written", "pip install 'omnia[plots]', then the same again."
        ) from None
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    flops = np.array([point["flops"] for point in points])
    line = np.geomspace(flops.min() / 1.2, prediction["flops"] * 1.2, 200)
    label = f"{law.a:.3g} C$^{{-{law.b:.3f}}}$ + {law.c:.2f}"
    axes.plot(line, law(line), color=GREY, linewidth=1.2, label=label)
    axes.plot(flops, [point["loss"] for point in points], "o", color=BLUE, label="measured, fitted")
    axes.plot(prediction["flops"], prediction["loss"], "s", color=ORANGE, markersize=9, fillstyle="none", label="predicted")
    axes.plot(measured["flops"], measured["loss"], "o", color=ORANGE, label="measured afterwards")
    for point in [*points, measured]:
        axes.annotate(f"{point['width']}", (point["flops"], point["loss"]), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("FLOPs of training (labels: width)")
    axes.set_ylabel("validation loss, nats per token")
    axes.grid(color=GREY, alpha=0.2, which="both")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})
