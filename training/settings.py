"""What a training run can be told."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from smoothing import sigma_grid
from smoothing.limits import MOST_LEVELS
from training.attack import SmoothAdv
from training.denoisers import DENOISERS
from training.losses import Consistency, Loss, Macer, best_level, cross_entropy, mean_squared_error, soft_radius
from training.margin_levels import FEWEST_PASSES, MOST_PASSES, PASSES
from training.smoothmix import SmoothMix
from training.stage import Engine, Stage, WeightedLevels

#: Settings that say where and how a run is done, not what it computes: a run may go on with other ones.
CIRCUMSTANCES = frozenset({"checkpoint", "data_dir", "download", "out", "resume", "tracker"})

#: Settings of routers alone: no other run's configuration has them.
ROUTER_ONLY = frozenset({"checkpoint", "router_sigma", "router_kind", "router_loss", "validation_images"})
ROUTER_ONLY |= {"n_final", "n_router", "alpha"}

#: What --loss may name, by method, the default first; other methods have a loss of their own.
LOSSES: Mapping[str, tuple[str, ...]] = {
    "sample-wise": ("cross-entropy", "consistency", "smoothmix"),
    "smooth-adv": ("cross-entropy", "consistency"),
}

#: Settings that a configuration leaves out where they have these values: runs of earlier versions knew no others.
LEFT_OUT: Mapping[str, Any] = {"choice": "grid", "choice_passes": None}

#: Losses of routers by name.
ROUTER_LOSSES: Mapping[str, Loss] = {"soft-radius": soft_radius, "best-level": best_level}


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of one training run; the flags of `srs-train` carry the same names.

    Noise levels and epsilon are l2 distances between images whose pixels lie in [0, 1].
    """

    dataset: str = "digits"
    """digits, mnist, fashion-mnist, cifar10, cifar100, svhn; imagefolder:PATH, with PATH/{train,test}/CLASS/FILE;
    hf:PATH, what datasets' save_to_disk wrote, or Parquet files; or your own package.module:factory, called with
    "train" and "test", which returns a map-style torch Dataset of (image, label)."""
    data_dir: Path = Path("data")
    """Folder that holds MNIST/raw, FashionMNIST/raw, cifar-10-batches-py, cifar-100-python or train_32x32.mat."""
    download: bool = False
    """Fetch a known data set into --data-dir where it is not there."""
    image_size: int | None = None
    """Side in pixels that pictures of a folder or of a factory are scaled and cropped to. Default: they are all of one
    size."""
    train_images: int | None = None
    """Train on this many images, drawn at random with the seed. Default: all."""
    model: str = "digits_cnn"
    """Architecture: lenet, cifar_resnet20, cifar_resnet56, cifar_resnet110, resnet50, digits_cnn, timm:NAME,
    torchvision:NAME, or your own package.module:factory, called with the number of classes. Of a denoiser: unet_small
    or unet."""
    normalizer: Literal[
        "none", "cifar10", "imagenet", "cifar10-centered", "imagenet-centered", "inception", "clip", "mnist"
    ] = "none"
    """Mean and standard deviation that a first layer takes out of the pixels."""
    augment: Literal["none", "crop-flip"] = "none"
    """crop-flip: shift by up to an eighth of the width (CIFAR: padding 4) and mirror."""
    method: Literal[
        "sample-wise", "gaussian", "smooth-adv", "macer", "consistency", "smoothmix", "router", "denoiser"
    ] = "sample-wise"
    """sample-wise: Algorithm 1, pretrain, choose each image's sigma, finetune. gaussian, smooth-adv, macer, consistency
    and smoothmix at one --sigma, or at --sigmas. router: learn which level a new image should have, for the base
    classifier in --checkpoint. denoiser: learn to take the noise away, in front of a classifier that never saw any."""
    loss: Literal["cross-entropy", "consistency", "smoothmix"] | None = None
    """sample-wise and smooth-adv: on adversarial examples, cross-entropy or consistency; sample-wise: or smoothmix
    instead of those. Default: cross-entropy. All other methods have their own."""
    sigma: float | None = None
    """Noise level of methods other than sample-wise and router; denoiser: in place of a range."""
    sigma_min: float = 0.12
    """sample-wise, denoiser: smallest noise level sigma_min."""
    sigma_max: float = 1.0
    """sample-wise, denoiser: largest noise level sigma_max."""
    sigma_step: float = 0.05
    """sample-wise: sigma_interval; images choose among its multiples within [sigma_min, sigma_max] (Eq. 5)."""
    sigmas: tuple[float, ...] | None = None
    """Noise levels, increasing. Each image's is drawn from them in every epoch; sample-wise then chooses among them, in
    place of --sigma-min, --sigma-max and --sigma-step. router: levels to choose from; default: those that the base
    classifier was trained for."""
    sigma_weights: tuple[float, ...] | None = None
    """What the levels are drawn in proportion to, one number each: of --sigmas, or of sample-wise's grid. Finetuning
    draws none. Default: all alike."""
    n0: int = 500
    """sample-wise: noise samples per image and level for that choice. router: for the radii that it learns from."""
    racing: bool = True
    """sample-wise: draw no more samples at levels that cannot win."""
    choice: Literal["grid", "margins"] = "grid"
    """sample-wise: how each image's level is chosen. grid: by --n0 votes at every level. margins: from --choice-passes
    noisy passes an image, whose logits tell how far the label is from losing, and one model of all images."""
    choice_passes: int | None = None
    """sample-wise with --choice margins: forward passes of each image, at least 6. Default: 30."""
    m: int = 2
    """Noise samples per image and step (macer has its own)."""
    k: int = 4
    """Steps of the attack of sample-wise and smooth-adv; 0 trains without one. Of smoothmix's path: 1 or more."""
    epsilon: float = 2.0
    """l2 budget of the attack."""
    attack: Literal["pgd", "ddn"] = "pgd"
    """pgd: projected gradient. ddn: decoupled direction and norm."""
    warmup: int = 1
    """Epochs over which epsilon grows to its value, or smoothmix's weight eta."""
    macer_samples: int = 16
    """macer: noise samples per image, k in its paper."""
    macer_lambda: float = 16.0
    """macer: weight lambda of the radius."""
    macer_beta: float = 16.0
    """macer: inverse temperature beta of the radius."""
    macer_gamma: float = 8.0
    """macer: hinge gamma."""
    consistency_lambda: float | None = None
    """consistency: weight lambda of the divergence between noisy copies. Default: 10; on adversarial examples 1."""
    consistency_eta: float | None = None
    """consistency: weight eta of the entropy. Default: 0.5."""
    smoothmix_eta: float | None = None
    """smoothmix: weight eta of the mixed images. Default: 5."""
    smoothmix_reach: float | None = None
    """smoothmix: length of the path to the adversarial image, in units of sigma. Default: 8."""
    checkpoint: Path | None = None
    """router: checkpoint of the base classifier, of the architecture that --model names. denoiser: checkpoint of a
    classifier whose answers to clean images it is finetuned to keep (stability loss). Default: no finetuning."""
    router_sigma: float | None = None
    """router: noise level of the router's own votes."""
    router_kind: Literal["free", "monotone"] = "free"
    """free: a logit for each level. monotone: one score and ordered thresholds, so that only neighbours compete."""
    router_loss: Literal["soft-radius", "best-level"] = "soft-radius"
    """soft-radius: the expected radius of a level drawn with the router's probabilities. best-level: cross-entropy to
    the level of the largest radius."""
    validation_images: int | None = None
    """router: training images that are held out, to compare it with one level for all. Default: a fifth."""
    n_final: int = 10_000
    """router: final samples of the certificates whose radii are expected."""
    n_router: int = 1000
    """router: noise samples of the router per held-out image."""
    alpha: float = 0.001
    """router: failure probability of those certificates."""
    epochs: int = 150
    """Epochs of pretraining; of the whole training where there is one stage."""
    finetune_epochs: int = 150
    """sample-wise, denoiser: epochs of finetuning."""
    lr: float = 0.1
    """Initial learning rate."""
    finetune_lr: float = 0.001
    """sample-wise, denoiser: initial learning rate of finetuning."""
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
        self._check_choice()
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", Path(self.checkpoint))
        if self.method == "router":
            self._check_router()
            return
        for name in ("router_sigma", "validation_images"):
            if getattr(self, name) is not None:
                raise ValueError(f"{self._said(name)}: needs --method router")
        if self.method == "denoiser":
            self._check_denoiser()
            return
        if self.checkpoint is not None:
            raise ValueError(f"{self._said('checkpoint')}: needs --method router or denoiser")
        single = self.method != "sample-wise"
        self._check_levels()
        self._check_loss()
        self._check_counts("train_images", "image_size", "n0", "macer_samples", "threads")
        self.levels  # noqa: B018 - raises where the grid is empty
        self.engine  # noqa: B018 - raises likewise
        self.stage()
        if not single:
            self.stage(self.levels[:1])

    def _said(self, name: str) -> str:
        """Return a setting as the command line has it."""
        return f"--{name.replace('_', '-')} {_shown(getattr(self, name))}"

    def _check_levels(self) -> None:
        """Check which noise levels are named, and that they are named once."""
        if self.sigma is not None and self.sigmas is not None:
            raise ValueError(f"--sigma {self.sigma}: the levels are those of --sigmas; leave one of them out")
        if self.method == "sample-wise" and self.sigma is not None:
            raise ValueError(
                f"--sigma {self.sigma}: sample-wise takes --sigma-min and --sigma-max or --sigmas; or choose a --method"
            )
        if self.method != "sample-wise" and self.sigma is None and self.sigmas is None:
            raise ValueError(
                f"--method {self.method} trains at one noise level: give it with --sigma, or several with --sigmas"
            )
        if self.sigma is not None and not 0 <= self.sigma < math.inf:
            raise ValueError(f"--sigma {self.sigma}: must be finite and >= 0")
        if self.sigma == 0 and self.method == "smoothmix":
            raise ValueError("--sigma 0.0: smoothmix walks lengths in units of sigma; give one > 0")
        if self.sigmas is not None:
            object.__setattr__(self, "sigmas", _increasing("--sigmas", self.sigmas))
            if len(self.sigmas) < 2:
                raise ValueError(f"{self._said('sigmas')}: give two levels or more, or a --method with one --sigma")
        if self.sigma_weights is not None:
            self._check_weights(self.sigma_weights)

    def _check_weights(self, weights: tuple[float, ...]) -> None:
        object.__setattr__(self, "sigma_weights", tuple(map(float, weights)))
        said = self._said("sigma_weights")
        if self.sigma is not None:
            raise ValueError(f"{said}: weigh several levels; name them with --sigmas")
        if len(weights) != len(self.levels):
            raise ValueError(f"{said}: there are {len(self.levels)} levels; give a weight for each")
        if not all(0 < weight < math.inf for weight in weights):
            raise ValueError(f"{said}: must be finite and > 0; leave out of --sigmas what shall not be drawn")

    def _check_loss(self) -> None:
        """Check that what is said of a loss is said of the one that is used."""
        if self.loss is not None and self.loss not in LOSSES.get(self.method, ()):
            able = [method for method, losses in LOSSES.items() if self.loss in losses]
            raise ValueError(f"--loss {self.loss}: --method {self.method} cannot have it; take {' or '.join(able)}")
        for name in ("consistency_lambda", "consistency_eta", "smoothmix_eta", "smoothmix_reach"):
            kind, value = name.split("_")[0], getattr(self, name)
            if value is None:
                continue
            if kind != self._kind:
                raise ValueError(f"{self._said(name)}: needs --method {kind}, or sample-wise with --loss {kind}")
            if not 0 <= value < math.inf or (value == 0 and name == "smoothmix_reach"):
                raise ValueError(f"{self._said(name)}: must be finite and {'>' if 'reach' in name else '>='} 0")
        if self._kind == "consistency" and self.m < 2:
            raise ValueError(f"--m {self.m}: consistency compares noisy copies of an image; give 2 or more")

    @property
    def _kind(self) -> str:
        """What the loss is called: by --loss, or as the method that it belongs to."""
        return self.method if self.method in ("macer", "consistency", "smoothmix") else self.loss or "cross-entropy"

    @property
    def _drawn(self) -> tuple[float, float] | WeightedLevels:
        """The noise of the first stage: drawn from levels, from a range, or the one level."""
        if self.method != "router" and (self.sigmas or self.sigma_weights):
            levels = tuple(self.levels.tolist())
            return WeightedLevels(levels, self.sigma_weights or (1.0,) * len(levels))
        return (self.sigma_min, self.sigma_max) if self.sigma is None else (self.sigma, self.sigma)

    def _check_choice(self) -> None:
        if self.choice == "grid" and self.choice_passes is not None:
            raise ValueError(f"--choice-passes {self.choice_passes}: needs --choice margins; the grid takes --n0")
        if self.choice == "grid":
            return
        if self.method != "sample-wise":
            raise ValueError(f"--choice {self.choice}: --method {self.method} chooses no levels; leave it out")
        if self.choice_passes is None:
            object.__setattr__(self, "choice_passes", PASSES)
        elif self.choice_passes < FEWEST_PASSES:
            raise ValueError(f"--choice-passes {self.choice_passes}: must be at least {FEWEST_PASSES}")
        elif self.choice_passes > MOST_PASSES:
            raise ValueError(
                f"--choice-passes {self.choice_passes}: must be at most {MOST_PASSES}; take --choice grid instead"
            )

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**63)")

    def _check_router(self) -> None:
        """Check what a router needs, but for its base classifier, which a preset leaves open."""
        if self.sigma is not None:
            raise ValueError(f"--sigma {self.sigma}: a router has --sigmas to choose from and --router-sigma")
        if self.sigma_weights is not None:
            raise ValueError(f"{self._said('sigma_weights')}: a router draws no levels; leave it out")
        self._check_loss()
        if self.router_sigma is not None and not 0 < self.router_sigma < math.inf:
            raise ValueError(f"--router-sigma {self.router_sigma}: must be finite and > 0")
        self.router_stage  # noqa: B018 - raises where it cannot be
        if self.sigmas is not None:
            object.__setattr__(self, "sigmas", check_router_levels("--sigmas", self.sigmas))
        if not 0 < self.alpha < 1:
            raise ValueError(f"--alpha {self.alpha}: must lie strictly between 0 and 1, such as 0.001")
        if self.validation_images == 1:
            raise ValueError("--validation-images 1: too few to tell a gain from chance; hold out two or more")
        self._check_counts("train_images", "image_size", "n0", "threads", "validation_images", "n_final", "n_router")
        self.engine  # noqa: B018 - raises likewise

    def _check_denoiser(self) -> None:
        if self.model not in DENOISERS:
            raise ValueError(f"--model {self.model}: is no denoiser; choose {', '.join(DENOISERS)}")
        if self.normalizer != "none":
            raise ValueError(f"--normalizer {self.normalizer}: a denoiser takes pixels as they are; drop it")
        for name in ("sigmas", "sigma_weights"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{self._said(name)}: a denoiser takes all between --sigma-min and --sigma-max; drop it"
                )
        self._check_loss()
        low, high = self.denoiser_levels
        name = "--sigma-min" if self.sigma is None else "--sigma"
        if not 0 < low < math.inf:
            raise ValueError(f"{name} {low}: a denoiser needs noise that is finite and > 0")
        if not low <= high < math.inf:
            raise ValueError(f"--sigma-max {high}: must be finite, and at least --sigma-min {low}")
        self.levels  # noqa: B018 - raises where the grid is empty
        self._check_counts("train_images", "image_size", "threads")
        self.engine  # noqa: B018 - raises likewise
        self.denoiser_stage(mean_squared_error)
        self.denoiser_stage(mean_squared_error, finetune=True)

    @property
    def levels(self) -> Float64[np.ndarray, " k"]:
        """Noise levels that the model is made for: those that are listed, Eq. 5's grid, or the one level."""
        if self.sigmas is not None:
            return np.array(self.sigmas)
        if self.sigma is not None:
            return np.array([self.sigma])
        if self.sigma_step > 0 and (self.sigma_max - self.sigma_min) / self.sigma_step > MOST_LEVELS:
            raise ValueError(f"--sigma-step {self.sigma_step}: more than {MOST_LEVELS:,} levels; take larger steps")
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

    @property
    def router_stage(self) -> Stage:
        """The one stage of a router: the radii at all levels are its labels."""
        if self.router_sigma is None:
            raise ValueError("--method router votes under noise of its own: give its level with --router-sigma")
        return replace(
            self.stage(), name="router", sigma=(self.router_sigma,) * 2, loss=ROUTER_LOSSES[self.router_loss]
        )

    @property
    def denoiser_levels(self) -> tuple[float, float]:
        """Between which noise levels a denoiser is trained."""
        return (self.sigma_min, self.sigma_max) if self.sigma is None else (self.sigma, self.sigma)

    def denoiser_stage(self, loss: Loss, *, finetune: bool = False) -> Stage:
        """Return a stage of a denoiser: the first, to return images, or the second, to keep a classifier's answers."""
        first = replace(self.stage(), name="denoise", sigma=self.denoiser_levels, loss=loss)
        if not finetune:
            return first
        return replace(first, name="finetune", epochs=self.finetune_epochs, lr=self.finetune_lr)

    def stage(self, chosen: np.ndarray | None = None) -> Stage:
        """Return the first stage; with each image's chosen sigma, float of shape (n,), the finetuning stage."""
        attack: SmoothAdv | None = None
        mix: SmoothMix | None = None
        loss: Loss = cross_entropy
        if self._kind == "smoothmix":
            mix = SmoothMix(_or(self.smoothmix_eta, 5.0), _or(self.smoothmix_reach, 8.0), self.k)
        elif self.method in ("sample-wise", "smooth-adv") and self.k:
            attack = SmoothAdv(self.epsilon, self.k, method=self.attack)
        if self._kind == "consistency":
            lam = 10.0 if attack is None else 1.0
            loss = Consistency(_or(self.consistency_lambda, lam), _or(self.consistency_eta, 0.5))
        if self._kind == "macer":
            loss = Macer(self.macer_lambda, self.macer_beta, self.macer_gamma)
        pretrain = Stage(
            name="pretrain" if self.method == "sample-wise" else "train",
            epochs=self.epochs,
            lr=self.lr,
            sigma=self._drawn,
            m=self.macer_samples if self.method == "macer" else self.m,
            attack=attack,
            mix=mix,
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
        """Return the settings as plain values, without `out`, `resume`, and what another method or `LEFT_OUT` has."""
        left_out = {"out", "resume"} | (set() if self.method == "router" else ROUTER_ONLY)
        left_out |= {name for name, value in LEFT_OUT.items() if getattr(self, name) == value}
        if self.method == "denoiser":
            left_out -= {"checkpoint"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return {name: _plain(value) for name, value in values.items()}


def check_router_levels(name: str, sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return levels that a router may choose among; `name` is what a message calls them.

    Raises
    ------
    ValueError
        One line, where they are not two or more, positive and increasing.
    """
    if len(sigmas) < 2:
        raise ValueError(
            f"{name} {_shown(tuple(sigmas))}: a router chooses among two levels or more; one needs no router"
        )
    return _increasing(name, sigmas)


def _increasing(name: str, sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return noise levels that are finite, positive and increasing, or raise one line."""
    levels = tuple(map(float, sigmas))
    if not all(0 < level < math.inf for level in levels):
        raise ValueError(f"{name} {_shown(levels)}: levels must be finite and > 0")
    if not all(a < b for a, b in itertools.pairwise(levels)):
        raise ValueError(f"{name} {_shown(levels)}: levels must increase, each once")
    return levels


def _or(value: float | None, default: float) -> float:
    """Return a setting, or what it is where it is left open."""
    return default if value is None else value


def _plain(value: Any) -> Any:
    """Return a setting as files keep it."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _shown(value: Any) -> str:
    """Return a setting as the command line has it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
