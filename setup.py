"""Omnia's package. The rooms keep their plain import names: `from model import Decoder`, `from data import ...`."""

from setuptools import setup

EXTRAS = {
    "plots": ["matplotlib>=3.9"],
    "hf": ["tokenizers>=0.20", "safetensors>=0.4.3", "gguf>=0.17", "jinja2>=3.1"],
    "parquet": ["pyarrow>=16"],
    "warc": ["resiliparse>=2.0"],  # brings FastWARC
    # ArrayRecord files are read without TensorFlow; importlib_resources is imported there, but not asked for.
    "tfds": ["tensorflow-datasets>=4.9.7", "array_record>=0.6", "importlib_resources"],
    # Images, video and sound: what decodes them, and the files that their shards are.
    "media": ["pillow>=10.4", "simplejpeg>=1.8", "av>=14.0", "soundfile>=0.12", "soxr>=0.5", "array_record>=0.6"],
    # What texts, tags and classes are scored with.
    "metrics": ["scikit-learn>=1.5", "seqeval>=1.2.2", "sacrebleu>=2.4", "rouge-score>=0.1.2", "jiwer>=4.0", "pypinyin>=0.53"],
    "tensorboard": ["tensorboardX>=2.6.2"],  # writes event files without TensorFlow
    "wandb": ["wandb>=0.19"],
    "notebooks": ["jupytext>=1.16", "nbclient>=0.10", "ipykernel>=6.29", "matplotlib>=3.9"],
    "eval": ["lm-eval>=0.4.13"],  # its core needs no torch; older ones load tasks in another way
    # Answers over HTTP; llguidance: answers in JSON, by a schema or an expression; websockets: rows that come in.
    "serve": ["uvicorn>=0.30", "prometheus_client>=0.20", "llguidance>=1.0", "jinja2>=3.1", "websockets>=15"],
    "privacy": ["dp-accounting>=0.6"],  # what private training costs
    "federated": ["grpcio>=1.60", "cryptography>=42", "msgpack>=1.0"],  # clients on machines of their own
    "anonymize": ["opencv-python-headless>=4.8,<5", "pillow>=10.4"],  # newer ones come without a detector of faces
    "games": ["pgx>=2.6"],  # two-player games beside our own
    "gcs": ["gcsfs>=2024.6"],
    "s3": ["s3fs>=2024.6"],
}
BEAM = {
    "beam": ["apache-beam>=2.60"],  # it needs an older protobuf than others take, and so an environment of its own
}
ACCELERATORS = {
    "tpu": ["jax[tpu]>=0.10"],
    "cuda": ["jax[cuda13]>=0.10"],  # driver 580 or newer
    "cuda12": ["jax[cuda12]>=0.10"],  # driver 525 or newer
}
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "ruff>=0.9",
    "mypy>=1.13",
    *EXTRAS["plots"],
    *EXTRAS["hf"],
    *EXTRAS["tensorboard"],
    *EXTRAS["parquet"],
    *EXTRAS["warc"],
    *EXTRAS["tfds"],
    *EXTRAS["media"],
    *EXTRAS["notebooks"],
    *EXTRAS["metrics"],
    *EXTRAS["serve"],
    *EXTRAS["privacy"],
    *EXTRAS["federated"],
    *EXTRAS["anonymize"],
    "openai>=2",  # the client that the server must please
]

# What `make docs` builds the site with, in an environment of its own: it reads the sources and imports none of the packages above.
DOCS = [
    "mkdocs>=1.6,<2",  # material needs the first
    "mkdocs-material>=9.7,<10",
    "mkdocstrings[python]>=1.0",
    "ruff>=0.9",  # lays out long signatures
]

setup(
    name="omnia",
    version="0.1.0",
    description="An open GPT-4-style system as a JAX research codebase: prepare, pretrain, evaluate, generate, report.",
    license="Apache-2.0",
    python_requires=">=3.11",
    py_modules=["omnia"],
    packages=[
        "data",
        "data.anonymize",
        "data.clean",
        "data.files",
        "data.loading",
        "data.media",
        "data.media.preparation",
        "data.media.reading",
        "data.media.signals",
        "data.readers",
        "data.records",
        "data.rows",
        "data.text",
        "model",
        "model.attention",
        "model.convert",
        "model.decoding",
        "model.media",
        "train",
        "train.adapters",
        "train.apps",
        "train.apps.dialogue",
        "train.apps.editing",
        "train.apps.education",
        "train.apps.medicine",
        "train.apps.monitor",
        "train.apps.reading",
        "train.apps.recommending",
        "train.apps.service",
        "train.apps.writing",
        "train.bridge",
        "train.checkpoints",
        "train.devices",
        "train.evaluation",
        "train.explain",
        "train.federated",
        "train.generation",
        "train.loop",
        "train.objectives",
        "train.objectives.media",
        "train.objectives.preference",
        "train.objectives.tasks",
        "train.objectives.text",
        "train.optimizers",
        "train.planning",
        "train.privacy",
        "train.reproduce",
        "train.rl",
        "train.rl.environments",
        "train.rl.games",
        "train.rl.policy",
        "train.rl.rewards",
        "train.rl.search",
        "train.runs",
        "train.sources",
        "train.sources.media",
        "train.step",
        "train.step.adversarial",
        "train.step.federated",
        "train.step.private",
        "train.tasks",
        "train.tasks.changes",
        "train.tasks.metrics",
        "train.tasks.recommending",
        "train.verbs",
        "serve",
    ],
    package_data={"serve": ["page.css", "page.html", "rows.html"]},
    entry_points={"console_scripts": ["omnia = omnia:main"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "mctx>=0.0.71",
        "orbax-checkpoint>=0.12",
        "numpy>=2.0",
        "sentencepiece>=0.2.0",
        "tyro>=0.9.20",
        "rich>=13.7",
        "xxhash>=3.4",
        "fsspec>=2024.6",
        "zstandard>=0.22",
        "scipy>=1.13",
    ],
    extras_require=EXTRAS
    | BEAM
    | ACCELERATORS
    | {"test": TEST, "docs": DOCS, "all": [package for extra in EXTRAS.values() for package in extra]},
)
