"""How a pretrained model is usually fine-tuned, so that a config says only what is its own."""

from model.config import OfStart
from train.experiment import AdamW, Checkpoints, Evaluation, Exact, Experiment, Samples, Schedule
from train.kinds import Data, Gradient, Objective
from train.objectives.tasks.options import Supervised


def fine_tuning(
    name: str,
    data: Data,
    *,
    objective: Objective = Supervised(),
    gradient: Gradient = Exact(),
    steps: int = 500,
    batch_size: int = 32,
    rate: float = 5e-5,
    weight_decay: float = 0.01,
    dropout: float = 0.1,
    frozen: tuple[str, ...] = (),
    every: int = 0,
    rows: int = 0,
    best: str = "",
) -> Experiment:
    """An experiment that starts from any run: AdamW, a warm-up over a tenth of the steps, then a linear decay to zero (Devlin et al. 2019,
    app. A.3).

    every: steps between evaluations, of `rows` examples, and saves; 0: only at the end, rows 0: all. best: the measure whose best
    checkpoint is kept and used; empty: the newest is used.
    """
    return Experiment(
        name=name,
        steps=steps,
        batch_size=batch_size,
        frozen=frozen,
        model=OfStart(dropout=dropout),
        data=data,
        objective=objective,
        gradient=gradient,
        optimizer=AdamW(learning_rate=rate, weight_decay=weight_decay, beta2=0.999),
        schedule=Schedule(warmup_steps=steps // 10, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=every, rows=rows, best=best or "loss"),
        checkpoints=Checkpoints(every=every, keep_best=int(bool(best)), use_best=bool(best)),
        samples=Samples(tokens=0),
    )
