"""`omnia privacy`: what differential privacy costs before a run, and whether a run keeps what it promises."""

import dataclasses
import math
from pathlib import Path

import tyro

from data.errors import UserError
from data.files import json_files, storage
from data.files.text_files import read_text, split_lines
from train.verbs.arguments import below, parse, start_jax


def privacy(arguments: list[str]) -> int:
    verbs = {
        "plan": (plan, "", "the noise that a promise needs, and what a change would cost"),
        "audit": (audit, "RUN", "test the private gradient of a run with canaries: exit code 1 where it breaks its promise"),
        "plant": (plant, "", "put random secrets among the documents of a folder, to be looked for after training"),
        "exposure": (exposure, "RUN", "how much of planted secrets a language model gives away"),
    }
    return below("privacy", arguments, verbs)


# ---------------------------------------------------------------------------------------------------------------------- plan


@dataclasses.dataclass(frozen=True)
class Plan:
    """Find the noise with which training keeps an epsilon, and what other choices would cost. Trains nothing."""

    examples: int
    """Units to learn from: examples, documents or users."""
    batch_size: int
    """Units that a step draws on average (gradient.expected_batch)."""
    epochs: float = 0.0
    """Passes over the data on average: steps times batch size over examples."""
    steps: int = 0
    """Steps, instead of epochs."""
    epsilon: float = 0.0
    """What the run may cost. 0: say what it costs with `noise_multiplier`."""
    delta: float = 1e-5
    """Probability with which the promise may fail, below one over the number of examples."""
    noise_multiplier: float = 0.0
    """Standard deviation of the noise in clipping norms, instead of an epsilon."""
    json: bool = False
    """Print one line of JSON."""


def _check(o: Plan) -> None:
    def refuse(what: str, how: str) -> UserError:
        return UserError(f"omnia privacy plan: {what}", how)

    for name in ("examples", "batch_size"):
        if getattr(o, name) < 1:
            raise refuse(f"--{name.replace('_', '-')} is {getattr(o, name)}", "Give 1 or more.")
    if o.batch_size > o.examples:
        raise refuse(f"--batch-size is {o.batch_size}, of {o.examples} examples", "Give at most so many.")
    for first, second in (("epochs", "steps"), ("epsilon", "noise_multiplier")):
        values = [getattr(o, first), getattr(o, second)]
        if min(values) < 0 or (values[0] > 0) == (values[1] > 0) or not all(map(math.isfinite, values)):
            raise refuse(f"--{first} or --{second.replace('_', '-')} is needed, and not both", "Give one of them, above 0.")
    if not 0 < o.delta < 1 / o.examples:
        most = f"{1 / o.examples:.2g}"
        raise refuse(f"--delta is {o.delta:g}, which allows to publish the data of one example", f"Give less than {most}, above 0.")


CHANGES = (
    ("half the epochs", 1, 0.5),
    ("twice the epochs", 1, 2),
    ("half the batch size", 0.5, 1),
    ("twice the batch size", 2, 1),
    ("four times the batch size", 4, 1),
)
"""What else could be done at the same epsilon: (name, factor of the batch size, factor of the epochs)."""


def plan(arguments: list[str]) -> int:
    o = parse(Plan, "privacy plan", arguments)
    _check(o)
    from train.privacy.accounting import PLD, RDP, Spending, noise_for

    epochs = o.epochs or o.steps * o.batch_size / o.examples

    def steps_of(batch: float, epochs: float) -> int:
        return max(1, math.ceil(epochs * o.examples / batch - 1e-9))

    steps = o.steps or steps_of(o.batch_size, epochs)
    noise = o.noise_multiplier or noise_for(o.epsilon, o.delta, o.batch_size / o.examples, steps)
    cost = Spending(noise, o.batch_size / o.examples, steps)
    found = {
        "noise_multiplier": noise,
        "epsilon_pld": cost.epsilon(o.delta, PLD),
        "epsilon_rdp": cost.epsilon(o.delta, RDP),
        "delta": o.delta,
        "steps": steps,
        "rate": cost.rate,
    }
    if o.json:
        print(json_files.dumps(found))
        return 0
    print(f"{steps:,} steps, each drawing {o.batch_size:,} of {o.examples:,} on average, by themselves (Poisson sampling)")
    print(f"noise multiplier {noise:g}: epsilon {found['epsilon_pld']:.3f} by {PLD}, {found['epsilon_rdp']:.3f} by {RDP}")
    print(f"at delta {o.delta:g}, for one more or one less. The noise in the mean gradient is {noise / o.batch_size:.2g} clipping norms.")
    print(f"\n{'at the same epsilon':26} {'steps':>8} {'noise':>8} {'in the mean':>12}")
    target = found["epsilon_pld"]
    for name, batch_factor, epochs_factor in CHANGES:
        batch = round(o.batch_size * batch_factor)
        if 1 <= batch <= o.examples:
            other = steps_of(batch, epochs * epochs_factor)
            needed = noise_for(target, o.delta, batch / o.examples, other)
            print(f"{name:26} {other:8,} {needed:8.3f} {needed / batch:12.2g}")
    print(f"\n{'other promises':26} {'noise':>8} {'in the mean':>12}")
    for epsilon in (1.0, 3.0, 8.0):
        needed = noise_for(epsilon, o.delta, cost.rate, steps)
        print(f"{f'epsilon {epsilon:g}':26} {needed:8.3f} {needed / o.batch_size:12.2g}")
    print("\nTrying several settings on the same data costs too: each run is a mechanism of its own, and the losses add up.")
    return 0


# --------------------------------------------------------------------------------------------------------------------- audit


@dataclasses.dataclass(frozen=True)
class Audit:
    """Test the private gradient of a run: what one unit can change, what places without one do, the noise, and, from how well canaries can
    be told, the least epsilon that it can have (Steinke et al. 2023)."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run, trained with the gradient Private."""
    canaries: int = 1000
    """Units with known gradients; more give a sharper bound and cost more steps."""
    json: bool = False
    """Print one line of JSON."""


def audit(arguments: list[str]) -> int:
    o = parse(Audit, "privacy audit", arguments)
    if o.canaries < 100:
        raise UserError(f"omnia privacy audit: --canaries is {o.canaries}", "Give 100 or more: fewer tell nothing.")
    from train.runs.directory import PRIVACY, open_run
    from train.step.private.options import Private

    run = open_run(o.run_dir)
    if not isinstance(gradient := run.experiment.gradient, Private):
        rounds = f"What rounds of clients promise their users is in {PRIVACY}."
        mend = rounds if gradient.private else "It promises nothing that could be audited."
        raise UserError(f"{o.run_dir}: steps of {type(gradient).__name__} are not audited, those of Private are", mend)
    start_jax()
    from train.privacy.audit_run import audit_run

    found = audit_run(run, o.canaries)
    if o.json:
        print(json_files.dumps(found))
        return 0 if found["passed"] else 1
    for name, check in found["checks"].items():
        low, high = check["allowed"]
        print(f"{'ok' if check['passed'] else 'BROKEN':7} {name:13} {check['found']:.4g} {check['what']}; allowed {low:.4g} to {high:.4g}")
    least, claimed = found["epsilon_audited"], found["epsilon_claimed_step"]
    verdict = "ok" if claimed is None or least <= claimed else "BROKEN"
    print(f"{verdict:7} canaries      epsilon of a step that draws all is at least {least:.3f}; claimed {_shown(claimed)}")
    print(f"The run so far: epsilon {_shown(found['epsilon'])} at delta {found['delta']:g}, after {found['steps']:,} steps.")
    return 0 if found["passed"] else 1


def _shown(epsilon: float | None) -> str:
    return "infinite, without noise" if epsilon is None else f"{epsilon:.3f}"


# ------------------------------------------------------------------------------------------------------------------ exposure


@dataclasses.dataclass(frozen=True)
class Plant:
    """Write random secrets as documents of their own, and a list of them, to be prepared and trained on with other texts."""

    output: str
    """Folder to write them into, one document each: give it to `omnia prepare text` beside your own texts."""
    secrets: str
    """File to write the list to, one secret a line: for `omnia privacy exposure`, not for training."""
    form: str = "the secret number is ######"
    """What all secrets look like; each # becomes a random digit."""
    count: int = 10
    """Different secrets."""
    repeats: int = 1
    """Documents that each secret is written into."""
    seed: int = 0
    """Seed of what is drawn."""


def plant(arguments: list[str]) -> int:
    o = parse(Plant, "privacy plant", arguments)
    for name in ("count", "repeats"):
        if getattr(o, name) < 1:
            raise UserError(f"omnia privacy plant: --{name} is {getattr(o, name)}", "Give 1 or more.")
    from train.privacy.exposure import secrets

    made = secrets(o.form, o.count, o.seed)
    Path(o.output).mkdir(parents=True, exist_ok=True)
    storage.write_atomically(o.secrets, "".join(f"{secret}\n" for secret in made).encode())
    for number, secret in enumerate(made):
        for repeat in range(o.repeats):
            storage.write_atomically(f"{o.output}/secret-{number}-{repeat}.txt", f"{secret}\n".encode())
    print(f"{o.output}: {o.count * o.repeats:,} documents with {o.count:,} secrets, listed in {o.secrets}")
    return 0


@dataclasses.dataclass(frozen=True)
class Exposure:
    """Rank planted secrets among all that are possible by how likely the model finds them (Carlini et al. 2019): 1.44 bits on average where
    it learned none; log2 of how many are possible where it finds one the likeliest."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    secrets: str
    """File of the secrets that were in the training text, one a line."""
    form: str = "the secret number is ######"
    """What all secrets look like; each # stands for a digit."""
    seed: int = 0
    """Seed of what is drawn, where the space is too large to rank all of it."""
    json: bool = False
    """Print one line of JSON."""


def exposure(arguments: list[str]) -> int:
    o = parse(Exposure, "privacy exposure", arguments)
    from train.runs.directory import open_run

    run, planted = open_run(o.run_dir), split_lines(read_text(o.secrets))
    start_jax()
    from train.privacy.exposure import exposure_of

    found = exposure_of(run, o.form, planted, seed=o.seed)
    if o.json:
        print(json_files.dumps(found))
        return 0
    for one in sorted(found["secrets"], key=lambda one: -one["exposure"]):
        print(f"{one['exposure']:7.2f} bits  {one['secret']}")
    how = "all" if found["exact"] else f"{found['ranked']:,} drawn"
    print(f"mean {found['mean']:.2f} bits, most {found['most']:.2f}; {found['uniform']:.2f} on average where nothing was learned")
    print(f"{found['size']:,} possible secrets, {how} of them ranked")
    return 0
