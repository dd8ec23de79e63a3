"""What a training run can be told, and presets: the paper's settings, and quick ones for two CPU cores."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from smoothing import sigma_grid
from training.attack import SmoothAdv
from training.losses import Loss, Macer, cross_entropy
from training.stage import Engine, Stage

#: Settings that say where and how a run is done, not what it computes: a run may go on with other ones.
CIRCUMSTANCES = frozenset({"data_dir", "download", "out", "resume", "tracker"})


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of one training run; the flags of `srs-train` carry the same names.

    Noise levels and epsilon are l2 distances between images whose pixels lie in [0, 1].
    """

    dataset: str = "digits"
    """digits, mnist, cifar10 or imagefolder:PATH, with PATH/{train,test}/CLASS/FILE."""
    data_dir: Path = Path("data")
    """Folder that holds MNIST/raw or cifar-10-batches-py."""
    download: bool = False
    """Fetch MNIST or CIFAR-10 into --data-dir where it is not there."""
    image_size: int | None = None
    """Side in pixels that images of a folder are scaled and cropped to. Default: they are all of one size."""
    train_images: int | None = None
    """Train on this many images, drawn at random with the seed. Default: all."""
    model: str = "digits_cnn"
    """Architecture: lenet, cifar_resnet20, cifar_resnet56, cifar_resnet110, resnet50, digits_cnn, or your own
    package.module:factory, called with the number of classes."""
    normalizer: Literal["none", "cifar10", "imagenet"] = "none"
    """Mean and standard deviation that a first layer takes out of the pixels."""
    augment: Literal["none", "crop-flip"] = "none"
    """crop-flip: shift by up to an eighth of the width (CIFAR: padding 4) and mirror."""
    method: Literal["sample-wise", "gaussian", "smooth-adv", "macer"] = "sample-wise"
    """sample-wise: Algorithm 1, pretrain, choose each image's sigma, finetune. The others at one --sigma."""
    sigma: float | None = None
    """Noise level of gaussian, smooth-adv and macer."""
    sigma_min: float = 0.12
    """sample-wise: smallest noise level sigma_min."""
    sigma_max: float = 1.0
    """sample-wise: largest noise level sigma_max."""
    sigma_step: float = 0.05
    """sample-wise: sigma_interval; images choose among its multiples within [sigma_min, sigma_max] (Eq. 5)."""
    n0: int = 500
    """sample-wise: noise samples per image and level for that choice."""
    racing: bool = True
    """sample-wise: draw no more samples at levels that cannot win."""
    m: int = 2
    """Noise samples per image and step (macer has its own)."""
    k: int = 4
    """Steps of the attack of sample-wise and smooth-adv; 0 trains without one."""
    epsilon: float = 2.0
    """l2 budget of the attack."""
    attack: Literal["pgd", "ddn"] = "pgd"
    """pgd: projected gradient. ddn: decoupled direction and norm."""
    warmup: int = 1
    """Epochs over which epsilon grows to its value."""
    macer_samples: int = 16
    """macer: noise samples per image, k in its paper."""
    macer_lambda: float = 16.0
    """macer: weight lambda of the radius."""
    macer_beta: float = 16.0
    """macer: inverse temperature beta of the radius."""
    macer_gamma: float = 8.0
    """macer: hinge gamma."""
    epochs: int = 150
    """Epochs of pretraining; of the whole training where there is one stage."""
    finetune_epochs: int = 150
    """sample-wise: epochs of finetuning."""
    lr: float = 0.1
    """Initial learning rate."""
    finetune_lr: float = 0.001
    """sample-wise: initial learning rate of finetuning."""
    schedule: Literal["step", "cosine"] = "step"
    """step: a tenth every --drop-every epochs. cosine: down to 0 within the stage."""
    drop_every: int = 50
    """Epochs between two drops of the learning rate."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """sgd has momentum 0.9."""
    weight_decay: float = 1e-4
    """Weight decay."""
    batch: int = 256
    """Images per step, over all processes."""
    accumulate: int = 1
    """Parts of a batch that are computed one after the other, to save memory."""
    seed: int = 0
    """Seed of the weights and of every random stream."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: each process its GPU where there are any, else the CPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's arithmetic; weights stay float32."""
    compile: bool = False
    """Compile the network."""
    channels_last: bool = True
    """Memory format of weights and activations."""
    threads: int | None = None
    """CPU threads. Default: as many as PyTorch takes."""
    out: Path = Path("runs/train")
    """Folder for checkpoint, configuration and logs."""
    tracker: str | None = None
    """Where loss and accuracy of the epochs are shown as well: tensorboard, in a folder of --out, wandb, mlflow or
    another tracker that Accelerate knows, installed and set up as its documentation says. Default: log.tsv alone."""
    resume: bool = False
    """Go on with the run that --out holds; a run that is finished is left as it is."""

    def __post_init__(self) -> None:
        for name in ("data_dir", "out"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        single = self.method != "sample-wise"
        if single and self.sigma is None:
            raise ValueError(f"--method {self.method} trains at one noise level: give it with --sigma")
        if not single and self.sigma is not None:
            raise ValueError(
                f"--sigma {self.sigma}: sample-wise takes --sigma-min and --sigma-max; or choose a --method"
            )
        if self.sigma is not None and not 0 <= self.sigma < math.inf:
            raise ValueError(f"--sigma {self.sigma}: must be finite and >= 0")
        for name in ("train_images", "image_size", "n0", "macer_samples", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**63)")
        self.sigmas  # noqa: B018 - raises where the grid is empty
        self.engine  # noqa: B018 - raises likewise
        self.stage()
        if not single:
            self.stage(np.array([self.sigma_min], dtype=np.float32))

    @property
    def sigmas(self) -> Float64[np.ndarray, " k"]:
        """Noise levels that the model is made for: Eq. 5's grid, or the one level."""
        if self.sigma is not None:
            return np.array([self.sigma])
        return sigma_grid(self.sigma_min, self.sigma_max, self.sigma_step)

    @property
    def engine(self) -> Engine:
        """How the run is computed."""
        return Engine(
            device=self.device,
            precision=self.precision,
            accumulate=self.accumulate,
            compile=self.compile,
            channels_last=self.channels_last,
        )

    def stage(self, chosen: np.ndarray | None = None) -> Stage:
        """Return the first stage; with each image's chosen sigma, float of shape (n,), the finetuning stage."""
        attack = None
        if self.method in ("sample-wise", "smooth-adv") and self.k:
            attack = SmoothAdv(self.epsilon, self.k, method=self.attack)
        loss: Loss = cross_entropy
        if self.method == "macer":
            loss = Macer(self.macer_lambda, self.macer_beta, self.macer_gamma)
        sigma = (self.sigma_min, self.sigma_max) if self.sigma is None else (self.sigma, self.sigma)
        pretrain = Stage(
            name="pretrain" if self.method == "sample-wise" else "train",
            epochs=self.epochs,
            lr=self.lr,
            sigma=sigma,
            m=self.macer_samples if self.method == "macer" else self.m,
            attack=attack,
            warmup=self.warmup,
            loss=loss,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            drop_every=self.drop_every,
            batch_size=self.batch,
            augment=self.augment,
        )
        if chosen is None:
            return pretrain
        return replace(
            pretrain,
            name="finetune",
            epochs=self.finetune_epochs,
            lr=self.finetune_lr,
            warmup=1,
            sigma=chosen.astype(np.float32),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, without `out` and `resume`."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("out", "resume")}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


_MNIST = TrainSettings(dataset="mnist", model="lenet")
_CIFAR = TrainSettings(dataset="cifar10", model="cifar_resnet110", normalizer="cifar10", augment="crop-flip")
_QUICK: dict[str, Any] = {
    "epochs": 10,
    "finetune_epochs": 5,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "lr": 1e-3,
    "finetune_lr": 3e-4,
    "schedule": "cosine",
    "warmup": 3,
    "batch": 128,
    "m": 2,
    "k": 2,
    "precision": "bfloat16",
}

#: Presets by name: what they are for, and the settings. "paper" is its appendix A, Tables 4 and 5.
PRESETS: Mapping[str, tuple[str, TrainSettings]] = {
    "digits": (
        "scikit-learn's digits, sigma in [0.1, 0.6]: half a minute on a CPU.",
        TrainSettings(
            sigma_min=0.1,
            sigma_max=0.6,
            sigma_step=0.1,
            epochs=40,
            finetune_epochs=20,
            optimizer="adam",
            weight_decay=0.0,
            lr=3e-3,
            finetune_lr=1e-3,
            schedule="cosine",
            warmup=5,
            batch=128,
            m=2,
            k=2,
            epsilon=0.25,
            threads=1,  # the network is so small that threads would wait for each other
        ),
    ),
    "mnist-quick": (
        "MNIST, sigma in [0.12, 1.00], 20,000 images, 10 + 5 epochs: some 20 minutes on two CPU cores.",
        replace(_MNIST, **_QUICK, train_images=20_000),
    ),
    "mnist-paper": ("MNIST, sigma in [0.12, 1.00], Table 5.", replace(_MNIST, m=4, k=10, epsilon=2.0)),
    "mnist-paper-0.50": (
        "MNIST, sigma in [0.12, 0.50], Table 5.",
        replace(_MNIST, sigma_max=0.5, m=4, k=2, epsilon=1.0),
    ),
    "mnist-paper-0.25": (
        "MNIST, sigma in [0.12, 0.25], Table 5.",
        replace(_MNIST, sigma_max=0.25, m=4, k=2, epsilon=0.25),
    ),
    "cifar10-quick": (
        "CIFAR-10 with ResNet-20, sigma in [0.12, 0.50], 10 + 5 epochs: a GPU, or a night on a CPU.",
        replace(_CIFAR, **_QUICK, model="cifar_resnet20", sigma_max=0.5, epsilon=1.0),
    ),
    "cifar10-paper": ("CIFAR-10, sigma in [0.12, 1.00], Table 4.", replace(_CIFAR, m=2, k=4, epsilon=2.0)),
    "cifar10-paper-0.50": (
        "CIFAR-10, sigma in [0.12, 0.50], Table 4.",
        replace(_CIFAR, sigma_max=0.5, m=4, k=2, epsilon=1.0),
    ),
    "cifar10-paper-0.25": (
        "CIFAR-10, sigma in [0.12, 0.25], Table 4.",
        replace(_CIFAR, sigma_max=0.25, m=4, k=4, epsilon=0.25),
    ),
}
