"""Customer service: intents with templates, quoted passages, and a person where neither is sure.

omnia train configs/apps/customer_service.py --start MODEL --data.files log.jsonl --data.templates answers.jsonl
Two minutes on two cores for 9,000 questions (BANKING77) from a MiniLM; then omnia apply RUN --input questions.jsonl --output answers.jsonl
"""

from train import CustomerService, Experiment, fine_tuning


def get_config(arg: str = "") -> Experiment:
    return fine_tuning("customer service", CustomerService(length=64), steps=800, rate=3e-4, every=200, best="accuracy")
