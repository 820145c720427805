"""A medical case: the text of a record, values and an image to an outcome, any of them missing. For research, not for care.

omnia train configs/apps/medical_case.py --start MODEL --data.files cases.jsonl --data.label OUTCOME \
  --data.values 'age: 0..120' 'temperature: 30..44' 'sex: F|M' --data.patient patient
A minute on two cores for 190 cases from a MiniLM. Then
omnia apply RUN --input cases.jsonl --output answers.jsonl --report
"""

from train import Experiment, MedicalCase, Supervised, fine_tuning

ENCODER = ("embedding", "layers", "p*", "token_types")
"""Parameters of an encoder such as BERT: its layers, positions and pooler among them."""


def get_config(arg: str = "") -> Experiment:
    """The encoder stays as it is, since hundreds of cases would not teach it better; `whole` trains it too."""
    frozen, rate, decay = ((), 1e-4, 0.01) if arg == "whole" else (ENCODER, 1e-2, 10.0)
    return fine_tuning(
        "medical case, for research",
        MedicalCase(validation=0.2),
        objective=Supervised(class_weights="balanced"),
        steps=50,
        rate=rate,
        weight_decay=decay,
        dropout=0.0,
        frozen=frozen,
    )
