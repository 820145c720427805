"""An encoder, pretrained from prepared text by the loop, as `omnia train` does it."""

from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import start, train
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.loop.telemetry import read_metrics
from train.objectives.text.options import MaskedLM
from train.sources.pairs import SentencePairData

MODEL = TextEncoderConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2, dropout=0.1, norm_position="post")


def test_bert_learns_tokens_and_pairs_in_one_pass(corpora, tmp_path):
    """Of two corpora, on two devices, in micro-batches, validated; what the config left open is in the run."""
    experiment = Experiment(
        steps=6,
        batch_size=8,
        micro_batches=2,
        model=MODEL,
        data=SentencePairData(shards=corpora),
        objective=MaskedLM(sentence_pairs=1.0),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=1),
        mesh=MeshShape(data=2),
        evaluation=Evaluation(every=2, rows=8),
        checkpoints=Checkpoints(every=6),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
    )
    run = start(tmp_path / "run", experiment)
    assert run.experiment.objective.mask == 258 and run.experiment.model.vocab_size == 384
    train(run, devices=2)
    measured = [row for row in read_metrics(run.path) if row["kind"] == "evaluation"]
    assert [row["step"] for row in measured] == [2, 4, 6] and measured[2]["loss"] < measured[0]["loss"] < 6.2
    assert all(0.4 < row["next_sentence"] < 1.2 for row in measured)
