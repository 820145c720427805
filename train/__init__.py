"""Training: objectives, the step, the loop, checkpoints, evaluation. Brings `data` and `model` together."""

import importlib

_FACE = {
    # an experiment
    "Experiment": "experiment",
    "TextData": "experiment",
    "CausalLM": "experiment",
    "AdamW": "experiment",
    "Muon": "experiment",
    "Schedule": "experiment",
    "MeshShape": "experiment",
    "Evaluation": "experiment",
    "Checkpoints": "experiment",
    "Samples": "experiment",
    "Logging": "experiment",
    "load_config": "verbs.config_files",
    # a run
    "new_run": "runs.resolve",
    "create_run": "runs.directory",
    "open_run": "runs.directory",
    "open_corpora": "runs.directory",
    "resolve": "runs.resolve",
    "train": "loop.loop",
    "read_metrics": "loop.telemetry",
    "write_report": "loop.report",
    "load_parameters": "checkpoints.checkpointer",
    "load_generator": "generation.text",
    # published models
    "fetch": "bridge.packages",
    "import_model": "bridge.importing",
    "load_chat": "generation.chat",
    "load_embedder": "generation.embeddings",
    # what it is worth, and why
    "evaluate_run": "evaluation.checkpoint",
    "evaluate_by_position": "evaluation.long_context",
    "look_inside": "explain.inside",
    # pictures, clips and sounds
    "WorldScenes": "sources.media.options",
    "MediaShards": "sources.media.options",
    "MediaLM": "objectives.media.options",
    "MediaClassification": "objectives.media.options",
    "load_writer": "generation.about_media",
    # devices, there or not
    "make_mesh": "devices.mesh",
    "state_of": "objectives.bind",
    "make_plan": "verbs.plan",
    "print_plan": "verbs.plan",
    # its parts
    "realise": "kinds",
    "bind": "objectives.bind",
    "update_of": "objectives.bind",
    "make_update": "step.update",
    "learner_of": "loop.learner",
    "fresh_state": "loop.learner",
    # tasks
    "Supervised": "objectives.tasks.options",
    "fine_tuning": "tasks.recipe",
    "LoRA": "adapters.options",
    "AdaLoRA": "adapters.options",
    "SGD": "experiment",
    "Private": "step.private.options",
    "Federated": "step.federated.options",
    "Gathered": "federated.options",
    "Distillation": "objectives.distillation",
    "MaskedLM": "objectives.text.options",
    "SupervisedTogether": "objectives.tasks.options",
    "Together": "tasks.together",
    "Classification": "tasks.classification",
    "Tagging": "tasks.tagging",
    "Spans": "tasks.spans",
    "MultipleChoice": "tasks.choice",
    "Similarity": "tasks.similarity",
    "SequenceToSequence": "tasks.sequence",
    "Conversations": "tasks.sequence",
    "Programs": "tasks.code",
    "Retrieval": "objectives.tasks.retrieval",
    "Recommendation": "tasks.recommending.interactions",
    "NextItem": "objectives.tasks.recommendation",
    "TwoTowers": "objectives.tasks.towers",
    "TextPairs": "tasks.retrieval",
    # runs at work
    "Coherence": "apps.dialogue.coherence",
    "Comparison": "apps.editing.edits",
    "CustomerService": "apps.service.customer_service",
    "Editing": "apps.editing.editing",
    "Restyling": "apps.editing.restyling",
    "Spelling": "apps.editing.spelling",
    "FinanceMonitor": "apps.monitor.finance_monitor",
    "Story": "apps.writing.story",
    "Verse": "apps.writing.verse",
    "World": "apps.writing.adventure",
    "distinct": "tasks.metrics.diversity",
    "self_bleu": "tasks.metrics.diversity",
    "tunes": "apps.writing.tunes",
    "off_policy": "apps.recommending.off_policy",
    "undisguised": "apps.reading.lookalikes",
    "MedicalCase": "apps.medicine.medical_case",
    "Grading": "apps.education.grading",
    "Extraction": "apps.reading.extraction",
    "Filter": "apps.reading.filter",
    "Practice": "apps.education.practice",
    "Tutoring": "apps.education.tutoring",
    "NextAnswer": "objectives.tasks.tracing",
    # learning from reward
    "Letters": "rl.environments.text_tasks",
    "Satisfaction": "rl.environments.satisfaction",
    "Demonstrations": "rl.options",
    "Prompts": "rl.options",
    "PPO": "rl.options",
    "Questions": "rl.policy.questions",
    "critic_of": "rl.policy.policy_gradient",
    "start_parameters": "runs.start",
    "row_keys": "rl.policy.rollout",
    "rollout": "rl.policy.rollout",
    "evaluate_rollout": "rl.policy.experience",
    "scores_by_token": "rl.policy.experience",
    "generalized_advantages": "rl.policy.advantages",
    "whiten": "rl.policy.advantages",
    "clipped_loss": "rl.policy.policy_gradient",
    "make_learn": "rl.policy.learner",
    # looking ahead
    "CONNECT_FOUR": "rl.games.games",
    "random_play": "rl.search.search",
    "grow_tree": "rl.search.search",
    "measure_decoding": "rl.search.decoding",
}
__all__ = list(_FACE)


def __getattr__(name):
    """Load a name of the face on first use, so that importing the room costs nothing (PEP 562)."""
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FACE[name]}"), name)


def __dir__():
    return sorted(__all__)
