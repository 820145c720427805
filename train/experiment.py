"""One experiment as a tree of frozen dataclasses: what a config file fills and the command line overrides.

The *kind* of data, objective or optimizer is chosen in the config file, by the class of the value; the command line changes its
fields. Nothing heavy is imported here: `--help` reads this file alone.
"""

import dataclasses
import math
from typing import ClassVar, Literal

from model.config import ModelConfig
from train.kinds import Adapters, Data, Gradient, Metric, Objective, check_range


@dataclasses.dataclass(frozen=True)
class TextData(Data):
    """Packed rows of prepared text."""

    home: ClassVar[str] = "train.sources.text:TextDataset"
    rows: ClassVar[str] = "tokens"
    how_to_get: ClassVar[str] = "Prepare some with `omnia prepare text`, then give the folder: --data.shards DIR."
    path_fields = (*Data.path_fields, "lexicon")

    shards: tuple[str, ...] = ()
    """Folders made by `omnia prepare text` (paths, or URLs such as gs://...). Several are mixed."""
    weights: tuple[float, ...] = ()
    """Proportions of rows from each of `shards`. Empty: by their numbers of rows."""
    max_damaged: int = 0
    """Damaged documents to tolerate, as empty slots, before training stops."""
    fim_rate: float = 0.0
    """Fraction of training segments rearranged for fill-in-the-middle (Bavarian et al. 2022), 0 to 1."""
    words: bool = False
    """Number the words of each row, for objectives that mask whole words."""
    lexicon: str = ""
    """With words, for scripts without spaces: file with a word on each line, such as jieba's dict.txt. Empty: each character is a word."""

    def __post_init__(self):
        check_range("data.", self, 0, "max_damaged")
        if not 0 <= self.fim_rate <= 1:
            raise ValueError(f"data.fim_rate is {self.fim_rate}; it must be from 0 to 1")
        if self.lexicon and not self.words:
            raise ValueError("data.lexicon says what words are, but data.words is off: turn it on")


@dataclasses.dataclass(frozen=True)
class CausalLM(Objective):
    """Next-token prediction (Radford et al. 2018, eq. 1): mean nats per predicted token."""

    home: ClassVar[str] = "train.objectives.text.causal_lm:bind"
    generates: ClassVar[bool] = True
    shifted: ClassVar[bool] = True

    z_loss: float = 0.0
    """Weight of the z-loss, the squared log partition function (Chowdhery et al. 2022, sec. 5); 1e-4 keeps large models stable. 0: off."""
    load_balance: float = 0.01
    """With experts: weight of each layer's load-balancing loss (Fedus et al. 2021, eq. 4, over each row). 0: off."""
    router_z: float = 1e-3
    """With experts: weight of each layer's squared log partition function of the router (Zoph et al. 2022, eq. 5). 0: off."""

    def __post_init__(self):
        check_range("objective.", self, 0, "z_loss", "load_balance", "router_z")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How gradients become updates. Home: a function (options, schedule, steps) -> a list of optax transformations.

    They are chained behind the clipping, and end with the scaling by the rate: see `make_schedule` and `scaled` in
    train/optimizers/build.py.
    """

    home: ClassVar[str] = ""
    averages: ClassVar[bool] = False
    """Whether its state holds an average of the parameters, which evaluation and generation use."""

    learning_rate: float = 1e-3
    """Peak of the schedule."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices and tables, times the learning rate; biases and norms are not decayed."""
    clip_norm: float = 1.0
    """Clip gradients to this global norm. 0: off."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below it, above 0, at most 1: a pretrained model's lower layers then change
    less (Howard & Ruder 2018, sec. 3.2). What stands above the layers has the full rate, embeddings are below the lowest. 1: off."""

    def __post_init__(self):
        # Any rate, momentum and decay that an optimizer of ours has, by the names they share.
        names = {field.name for field in dataclasses.fields(self)}
        check_range("optimizer.", self, 0, "learning_rate", "weight_decay", "clip_norm")
        check_range("optimizer.", self, 0, *sorted(names & {"adam_learning_rate", "epsilon"}))
        check_range("optimizer.", self, 0, *sorted(names & {"beta1", "beta2", "momentum"}), high=1)
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optimizer.layer_decay is {self.layer_decay}; it must be above 0 and at most 1")
        if self.layer_decay < 1 and self.averages:
            raise ValueError(f"optimizer.layer_decay would not reach the average that {type(self).__name__} keeps: leave it at 1")


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    home: ClassVar[str] = "train.optimizers.build:adamw"

    weight_decay: float = 0.1
    """Decoupled weight decay of matrices and tables, times the learning rate; biases and norms are not decayed."""
    beta1: float = 0.9
    """Decay of the mean of gradients (first moment)."""
    beta2: float = 0.95
    """Decay of the mean of squared gradients (second moment)."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    epsilon_hat: bool = False
    """Add epsilon before bias correction (epsilon hat of Kingma & Ba 2015, end of sec. 2), like TensorFlow's Adam."""


@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
    """Muon: momentum with orthogonalised matrices (Jordan et al. 2024); Adam for tables, norms and biases."""

    home: ClassVar[str] = "train.optimizers.build:muon"

    learning_rate: float = 0.02
    """Peak of the schedule, for matrices."""
    adam_learning_rate: float = 3e-3
    """Peak of the schedule, for tables, norms and biases."""
    momentum: float = 0.95
    """Decay of the mean of the matrices' gradients (Nesterov)."""
    beta1: float = 0.9
    """Adam's decay of the mean of gradients."""
    beta2: float = 0.95
    """Adam's decay of the mean of squared gradients."""


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent."""

    home: ClassVar[str] = "train.optimizers.build:sgd"

    momentum: float = 0.0
    """Decay of the velocity. 0: none."""


@dataclasses.dataclass(frozen=True)
class Yogi(Optimizer):
    """Adam whose second moment grows at most by a square at a time (Zaheer et al. 2018): FedYogi, behind federated rounds."""

    home: ClassVar[str] = "train.optimizers.build:yogi"

    learning_rate: float = 1e-2
    """Peak of the schedule."""
    beta1: float = 0.9
    """Decay of the mean of gradients (first moment)."""
    beta2: float = 0.99
    """Decay of the second moment."""
    epsilon: float = 1e-3
    """Added to the root of the second moment."""


@dataclasses.dataclass(frozen=True)
class Adagrad(Optimizer):
    """Rates that fall with the sum of squared gradients (Duchi et al. 2011): FedAdagrad, behind federated rounds."""

    home: ClassVar[str] = "train.optimizers.build:adagrad"

    learning_rate: float = 1e-2
    """Peak of the schedule."""
    epsilon: float = 1e-3
    """Added to the root of the sum."""


@dataclasses.dataclass(frozen=True)
class Lion(Optimizer):
    """Lion: the sign of a momentum (Chen et al. 2023). One moment instead of AdamW's two; every update has the size of the learning
    rate."""

    home: ClassVar[str] = "train.optimizers.build:lion"

    learning_rate: float = 3e-4
    """Peak of the schedule; a third to a tenth of AdamW's."""
    weight_decay: float = 0.3
    """Decoupled weight decay of matrices and tables, times the learning rate; three to ten times AdamW's."""
    beta1: float = 0.9
    """Weight of the momentum, against the gradient, inside the sign."""
    beta2: float = 0.99
    """Decay of the mean of gradients (first moment)."""


@dataclasses.dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern 2018): second moments as sums of rows and columns, no first moment, almost no state."""

    home: ClassVar[str] = "train.optimizers.build:adafactor"

    learning_rate: float = 3e-2
    """Peak of the schedule, relative to the root mean square of each layer's matrix (at least 1e-3)."""


@dataclasses.dataclass(frozen=True)
class ScheduleFree(Optimizer):
    """AdamW whose running average takes the place of a decaying rate (Defazio et al. 2024); needs schedule.decay constant.

    Evaluation, samples, generation and export use the average.
    """

    home: ClassVar[str] = "train.optimizers.build:schedule_free"
    averages: ClassVar[bool] = True

    learning_rate: float = 3e-3
    """Constant rate after the warm-up; one to ten times AdamW's peak."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices and tables, times the learning rate; biases and norms are not decayed."""
    beta1: float = 0.9
    """Where gradients are taken, between the average (1) and the moving point (0); above 0."""
    beta2: float = 0.95
    """Decay of the mean of squared gradients (second moment)."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self):
        super().__post_init__()
        if self.beta1 == 0:
            raise ValueError("optimizer.beta1 is 0; ScheduleFree needs it above 0: the average could not be told from what is kept")


@dataclasses.dataclass(frozen=True)
class Exact(Gradient):
    """The gradient of the whole batch, summed over micro_batches."""

    home: ClassVar[str] = "train.step.gradients:exact"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The learning rate over the run: linear warm-up to the peak, then a decay."""

    warmup_steps: int = 100
    """Steps from 0 to the peak."""
    decay: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Shape from the end of the warm-up to the last step. wsd stays at the peak and decays only at the end (Hägele et al. 2024)."""
    final_fraction: float = 0.1
    """Final learning rate, as a fraction of the peak (not used by constant)."""
    decay_fraction: float = 0.2
    """With wsd: fraction of all steps used for the final decay, above 0, at most 1."""

    def __post_init__(self):
        check_range("schedule.", self, 0, "warmup_steps", "final_fraction")
        if not 0 < self.decay_fraction <= 1:
            raise ValueError(f"schedule.decay_fraction is {self.decay_fraction}; it must be above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh; their product is the number of devices."""

    data: int = -1
    """Copies of the model, each with its own rows (data parallelism). -1: all devices that the other axes leave."""
    fsdp: int = 1
    """Ways to split rows and parameters (fully sharded data parallelism)."""
    tensor: int = 1
    """Ways to split heads, feed-forward width and vocabulary (tensor parallelism)."""
    context: int = 1
    """Ways to split positions; keys and values are gathered (context parallelism)."""
    expert: int = 1
    """Ways to split experts (expert parallelism); elsewhere this axis splits rows."""
    cpu_devices: int = 0
    """Devices that a CPU is divided into. 0: for a small model as many cores as divide the rows, otherwise 1."""

    def __post_init__(self):
        check_range("mesh.", self, 0, "cpu_devices")
        if self.data != -1:
            check_range("mesh.", self, 1, "data")
        check_range("mesh.", self, 1, "fsdp", "tensor", "context", "expert")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Validation during training."""

    every: int = 250
    """Steps between evaluations; the last step always evaluates. 0: only the last."""
    rows: int = 0
    """Rows of the validation split to use, from its start. 0: all of it."""
    patience: int = 0
    """Stop after this many evaluations in a row without a better `best`. 0: never."""
    best: str = "loss"
    """The measure by which evaluations are compared, for `patience` and checkpoints.keep_best: any that they give, such as f1. More is
    better, but for losses and errors."""
    metrics: tuple[Metric, ...] = ()
    """Metrics of the predictions that are not means over rows, such as F1."""

    def __post_init__(self):
        check_range("evaluation.", self, 0, "every", "rows", "patience")


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Saving the train state, asynchronously."""

    every: int = 250
    """Steps between saves; the last step always saves. 0: only the last."""
    keep: int = 2
    """Newest checkpoints to keep; the newest good one is always kept."""
    keep_every: int = 0
    """Also keep checkpoints at multiples of this step. 0: none."""
    keep_best: int = 0
    """Also keep this many checkpoints of the best evaluations, by evaluation.best, among those of evaluated steps. 0: none."""
    use_best: bool = False
    """Evaluate, generate, export and start from the best checkpoint instead of the newest. Needs keep_best."""

    def __post_init__(self):
        check_range("checkpoints.", self, 0, "every", "keep_every", "keep_best")
        check_range("checkpoints.", self, 1, "keep")
        if self.use_best and not self.keep_best:
            raise ValueError("checkpoints.use_best needs the best checkpoint to be kept: set checkpoints.keep_best to 1 or more")


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is done when something goes wrong.

    A step whose loss or gradient is not finite, or whose loss is a spike, changes nothing but the count of steps and rows.
    """

    spike: float = 0.0
    """Skip steps whose loss is this many standard deviations above its moving average; 6 is cautious. 0: off."""
    skips: int = 5
    """Consecutive bad steps before the run returns to its last good checkpoint and continues with the following rows."""
    rewinds: int = 2
    """Returns without progress before the run stops with exit code 77."""
    stall_seconds: float = 1800.0
    """Seconds without progress (compiling is no progress) before the process writes its stacks and exits with code 76. 0: never."""

    def __post_init__(self):
        check_range("faults.", self, 0, "spike", "rewinds", "stall_seconds")
        check_range("faults.", self, 1, "skips")


@dataclasses.dataclass(frozen=True)
class Samples:
    """Texts generated during training, for inspection."""

    every: int = 0
    """Steps between samples. 0: only at the end."""
    prompts: tuple[str, ...] = ("",)
    """Texts to continue; an empty text starts a new document."""
    tokens: int = 64
    """Tokens of each sample. 0: no samples."""
    temperature: float = 0.8
    """Sampling temperature, 0 or more; 0 is greedy."""

    def __post_init__(self):
        check_range("samples.", self, 0, "every", "tokens", "temperature")


@dataclasses.dataclass(frozen=True)
class Logging:
    """Logging. metrics.jsonl, metrics.csv and report.html are always written."""

    every: int = 10
    """Steps between rows of metrics."""
    tensorboard: bool = False
    """Also write TensorBoard events (extra: tensorboard)."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Also log to Weights & Biases (extra: wandb)."""

    def __post_init__(self):
        check_range("logging.", self, 1, "every")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that determines a run. The same experiment gives the same run."""

    name: str = "experiment"
    """Name for reports and loggers."""
    steps: int = 1000
    """Training steps."""
    batch_size: int = 32
    """Rows per step, over all devices and micro-batches."""
    micro_batches: int = 1
    """Split each step's rows into this many micro-batches, one after the other, to save memory. The gradient stays the same."""
    seed: int = 0
    """Seed of initial weights, data order, dropout and samples."""
    start: str = ""
    """Run directory to start from: its newest parameters, model and tokenizer. The context may be shorter. Empty: start fresh."""
    start_layers: tuple[int, ...] = ()
    """Layers of that run's model to take, counted from 0, in ascending order: a shallower model, such as a student. Empty: all."""
    frozen: tuple[str, ...] = ()
    """Freeze parameters whose names begin with these prefixes, such as embedding or image/encoder, or with patterns, such as '*norm';
    layers:4 freezes the first 4 layers."""
    ema_decay: float = 0.0
    """Keep an exponential moving average of the parameters with this decay, for evaluation and generation. 0: off."""
    model: ModelConfig = ModelConfig()
    data: Data = TextData()
    objective: Objective = CausalLM()
    adapters: Adapters = Adapters()
    gradient: Gradient = Exact()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Schedule()
    mesh: MeshShape = MeshShape()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    faults: Faults = Faults()
    samples: Samples = Samples()
    logging: Logging = Logging()

    def __post_init__(self):
        check_range("", self, 1, "steps", "batch_size", "micro_batches")
        check_range("", self, 0, "seed", high=2**31)
        check_range("", self, 0.0, "ema_decay", high=1.0)
        if self.batch_size % self.micro_batches:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batches {self.micro_batches}")
        if self.start_layers and (self.start_layers[0] < 0 or list(self.start_layers) != sorted({*self.start_layers})):
            raise ValueError(f"start_layers {self.start_layers}: give numbers from 0 on, in ascending order")
        optimizer = type(self.optimizer).__name__
        if self.frozen and self.optimizer.averages:
            raise ValueError(f"frozen parameters have no average, which {optimizer} keeps of all: choose another optimizer")
        if self.ema_decay and self.optimizer.averages:
            raise ValueError(f"ema_decay is {self.ema_decay}, but {optimizer} keeps an average of its own: leave ema_decay at 0")
        if self.model.expert_capacity and self.micro_batches > 1:
            raise ValueError(
                f"model.expert_capacity is a share of the whole batch and cannot be kept in micro_batches {self.micro_batches}: "
                "use 1, or no capacity (0)"
            )

    @property
    def keeps_average(self) -> bool:
        """Whether an average of the parameters is kept, which evaluation and generation use."""
        return self.ema_decay > 0 or self.optimizer.averages


@dataclasses.dataclass(frozen=True)
class Scaling(Experiment):
    """A study of how the loss falls with compute: one experiment at several widths, then one more whose loss is predicted first.

    The width decides model.embed_dim, model.num_heads and steps, whatever these fields say; everything else is the experiment's.
    """

    sizes: tuple[int, ...] = (32, 48, 64, 96)
    """Widths to fit the law to, at least four, each a multiple of head_width."""
    predict: int = 128
    """Larger width whose loss is predicted, then measured."""
    head_width: int = 16
    """Width of a head at every size."""
    tokens_per_parameter: float = 20.0
    """Training tokens per parameter outside the embedding tables (20: Hoffmann et al. 2022)."""

    def __post_init__(self):
        super().__post_init__()
        check_range("", self, 1, "head_width")
        if not 0 < self.tokens_per_parameter < math.inf:
            raise ValueError(f"tokens_per_parameter is {self.tokens_per_parameter}; it must be above 0")
        if len(set(self.sizes)) < 4 or len(set(self.sizes)) != len(self.sizes):
            raise ValueError(f"sizes {self.sizes}: a law of three numbers needs at least four different widths")
        if self.predict <= max(self.sizes):
            raise ValueError(f"predict is {self.predict}; it must be above the largest of sizes, {max(self.sizes)}")
        for width in (*self.sizes, self.predict):
            if width < 1 or width % self.head_width:
                raise ValueError(f"width {width} is not a multiple of head_width {self.head_width}")
        if self.model.num_kv_heads or self.model.head_dim or self.model.mlp_dim:
            raise ValueError("model.num_kv_heads, head_dim and mlp_dim follow the width in a study; leave them at 0")
        if self.evaluation.patience:
            raise ValueError("evaluation.patience would end sizes early; a study needs it at 0")
