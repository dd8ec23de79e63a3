"""The training loop: one stage of any of the methods, from the batch to the log."""

import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn
from tqdm import tqdm

from smoothing._validate import check_array, check_labels
from smoothing.forward import logits_of, one_line, reason
from smoothing.machine import processes, usable_device, widest_float
from training.attack import SmoothAdv
from training.augment import AUGMENTATIONS
from training.data import FolderImages
from training.losses import Loss, cross_entropy

#: Steps between two looks at the loss: each look waits for the device.
LOOK = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What one stage of training computes.

    Attributes
    ----------
    epochs : int
        Passes over the images.
    sigma : tuple of two floats, or float array of shape (n,)
        Noise: bounds of Eq. 4's uniform distribution, drawn anew per image and epoch, or each image's own level.
    lr : float
        Initial learning rate.
    m : int, default=1
        Noise samples per image and step, for the attack and for the loss.
    attack : SmoothAdv, optional
        Train on adversarial examples, under the very noise that they were made for.
    warmup : int, default=1
        Epochs until the attack has its whole epsilon, which grows in equal steps.
    loss : Loss, default=cross_entropy
    optimizer : {"sgd", "adam"}, default="sgd"
        SGD has momentum 0.9; both have the weight decay given.
    weight_decay : float, default=1e-4
    schedule : {"step", "cosine"}, default="step"
        "step" divides the learning rate by 10 every `drop_every` epochs; "cosine" brings it to 0, step by step.
    drop_every : int, default=50
    batch_size : int, default=256
        Images per step, over all processes; the batches of an epoch differ by at most one image.
    augment : str, default="none"
        One of `training.AUGMENTATIONS`.
    name : str, default="train"
        Names the stage in logs; part of its random streams' name.

    Raises
    ------
    ValueError
        When a setting is out of range; the message names it.
    """

    epochs: int
    sigma: tuple[float, float] | Float32[np.ndarray, " n"]
    lr: float
    m: int = 1
    attack: SmoothAdv | None = None
    warmup: int = 1
    loss: Loss = field(default=cross_entropy)
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    drop_every: int = 50
    batch_size: int = 256
    augment: str = "none"
    name: str = "train"

    def __post_init__(self) -> None:
        if isinstance(self.sigma, tuple):
            low, high = self.sigma
            if not 0 <= low <= high < math.inf:
                raise ValueError(f"sigma range [{low}, {high}]: need 0 <= sigma_min <= sigma_max, finite")
        else:
            levels = check_array("sigma", self.sigma)
            if not (np.isfinite(levels).all() and (levels >= 0).all()):
                raise ValueError("sigma: every image's level must be finite and >= 0")
        for name in ("epochs", "m", "warmup", "drop_every", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr = {self.lr}: must be finite and > 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay = {self.weight_decay}: must be finite and >= 0")
        for name, known in (("optimizer", _OPTIMIZERS), ("schedule", _SCHEDULES), ("augment", AUGMENTATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: choose {', '.join(known)}")

    @property
    def passes(self) -> int:
        """Forward passes of a training image in an epoch, as many backward: m for each attack step, m to learn."""
        return self.m * (1 + (0 if self.attack is None else self.attack.steps))


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How a stage is computed. Other choices give other rounding, and several processes other noise; the method is one.

    Attributes
    ----------
    device : str, default="auto"
        "auto" is CUDA where there is any, each process its GPU, else the CPU; or "cpu", "cuda", "cuda:1", ...
    precision : {"float32", "bfloat16"}, default="float32"
        bfloat16 computes the network under autocast; weights, loss and optimizer stay float32.
    accumulate : int, default=1
        Parts of a batch that are computed one after the other, to save memory.
    compile : bool, default=False
        Compile the network with torch.compile.
    channels_last : bool, default=True
        Memory format of weights and activations.

    Raises
    ------
    ValueError
        For a precision that is not known, or accumulate < 1.
    """

    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = 1
    compile: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision = {self.precision!r}: choose float32 or bfloat16")
        if self.accumulate < 1:
            raise ValueError(f"accumulate = {self.accumulate}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch reports.

    Attributes
    ----------
    stage : str
    epoch : int
        From 0.
    loss : float
        Mean loss of the images, under the noise and attack of the epoch.
    accuracy : float
        Fraction of the noisy, attacked copies that the network classified correctly, before each step.
    lr : float
        At the end of the epoch.
    seconds : float
        Wall time.
    images_per_second : float
    """

    stage: str
    epoch: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    images_per_second: float


def fit(
    model: nn.Module,
    images: Float32[np.ndarray, "n c h w"] | FolderImages,
    labels: Int64[np.ndarray, " labels"],
    *,
    stage: Stage,
    engine: Engine | None = None,
    seed: int = 0,
    state: Mapping[str, Any] | None = None,
    after_epoch: Callable[[dict[str, Any]], None] | None = None,
    progress: bool = False,
) -> tuple[Epoch, ...]:
    """Train the model, in place, through one stage.

    Order, levels, noise, augmentation and dropout of an epoch come from streams named by (seed, stage name, epoch,
    process): the same arguments give the same weights, bit for bit on one CPU, and so do the same arguments with the
    `state` of any epoch in between.

    Parameters
    ----------
    model : torch.nn.Module
        Maps (b, C, H, W) to logits; moved to the device and left in evaluation mode.
    images : float32 array of shape (n, C, H, W), or FolderImages
        Pixels in [0, 1].
    labels : int64 array of shape (n,)
        True classes, one per image.
    stage : Stage
        What to compute.
    engine : Engine, optional
        How to compute it; the defaults of `Engine` unless given.
    seed : int, default=0
        Names the streams, >= 0.
    state : mapping, optional
        What `after_epoch` was given, for a model with that epoch's weights: go on after it.
    after_epoch : callable, optional
        Called in every process with the state after each epoch: tensors, numbers, strings, lists and dicts.
    progress : bool, default=False
        Show a bar on stderr: loss, accuracy, images per second, time left.

    Returns
    -------
    tuple of Epoch
        One for each epoch, those before `state` included.

    Raises
    ------
    ValueError
        When lengths do not fit together, or `state` is not of this stage.
    FloatingPointError
        When loss or weights stop being finite: `after_epoch` has seen the last epoch that was good.
    """
    engine = engine or Engine()
    processes(engine.device)
    accelerator = Accelerator()
    world, rank = accelerator.num_processes, accelerator.process_index
    device = usable_device(accelerator.device if engine.device == "auto" else engine.device)
    if not isinstance(images, FolderImages):
        images = check_array("images", images)
    labels = check_labels(labels)
    _check(images, labels, stage, world * engine.accumulate)
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    model.to(device).to(memory_format=layout)
    net = cast(nn.Module, torch.compile(model, dynamic=False)) if engine.compile else model
    synced = accelerator.prepare_model(net, device_placement=False)  # averages gradients over the processes
    steps = math.ceil(len(labels) / stage.batch_size)
    optimizer = _OPTIMIZERS[stage.optimizer](model.parameters(), stage.lr, stage.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _SCHEDULES[stage.schedule](stage, step / steps)
    )
    history: list[dict[str, Any]] = []
    if state is not None:
        history = _restored(optimizer, schedule, state)

    for epoch in range(len(history), stage.epochs):
        began = time.perf_counter()
        shared, own = (_generator(seed, stage.name, epoch, name, d) for name, d in ((0, "cpu"), (1 + rank, device)))
        dropout = _seed(seed, stage.name, epoch, 1 + rank, 0)  # longer than other names: no stream begins alike
        sigma = _levels(stage, len(labels), shared)  # Eq. 4
        order = torch.randperm(len(labels), generator=shared).numpy()
        attack = _warm(stage, epoch)
        meter = _Meter(device, f"{stage.name} {epoch + 1}/{stage.epochs}", len(labels), progress)
        synced.train()
        with meter, _dropout_from(dropout, device):
            for batch in np.array_split(order, steps):
                parts = np.array_split(batch, world * engine.accumulate)[rank::world]
                for number, part in enumerate(parts):
                    x = torch.from_numpy(np.ascontiguousarray(images[part], dtype=np.float32)).to(device)
                    y, level = torch.from_numpy(labels[part]).to(device), sigma[part].to(device)
                    x = AUGMENTATIONS[stage.augment](x, own).contiguous(memory_format=layout)
                    noise = level.reshape(-1, 1, 1, 1) * torch.randn((stage.m, *x.shape), generator=own, device=device)
                    # Accelerate would patch its autocast into the model, where it would stay when training is over
                    with (
                        one_line(f"the model failed in training on images of {tuple(x.shape[1:])}"),
                        torch.autocast(device.type, torch.bfloat16, enabled=engine.precision == "bfloat16"),
                    ):
                        hard = x if attack is None else attack(net, x, y, noise=noise)
                        rows = logits_of(synced((hard + noise).flatten(0, 1))).float()
                    logits = rows.reshape(stage.m, len(x), -1)
                    loss = stage.loss(logits, y, level)
                    with nullcontext() if number == len(parts) - 1 else accelerator.no_sync(synced):
                        torch.autograd.backward(loss.sum() * (world / len(batch)))
                    meter.add(loss, logits.argmax(dim=2) == y)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                meter.advance(len(batch))
        loss, accuracy = accelerator.reduce(meter.sums, "sum").tolist()
        seconds = time.perf_counter() - began
        mean, lr = loss / len(labels), optimizer.param_groups[0]["lr"]
        if not math.isfinite(mean) or not all(bool(p.isfinite().all()) for p in model.parameters()):
            raise FloatingPointError(f"loss = {mean} in epoch {epoch}: training diverged; lower lr = {stage.lr}")
        row = Epoch(
            stage=stage.name,
            epoch=epoch,
            loss=mean,
            accuracy=accuracy / len(labels),
            lr=lr,
            seconds=seconds,
            images_per_second=len(labels) / seconds,
        )
        history.append(asdict(row))
        if after_epoch is not None:
            after_epoch(
                {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "history": list(history)}
            )
    model.to(memory_format=torch.contiguous_format).eval()
    return tuple(Epoch(**row) for row in history)


class _Meter:
    """Loss and accuracy of an epoch so far, kept on the device and looked at now and then; a bar that shows them."""

    def __init__(self, device: torch.device, title: str, total: int, progress: bool) -> None:
        self.sums = torch.zeros(2, dtype=widest_float(device), device=device)
        self._title = title
        self._seen = 0  # by this process
        self._steps = 0
        shown = progress and processes().is_main_process
        self._bar = tqdm(total=total, desc=title, unit="image", leave=False, disable=not shown)

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def add(self, loss: Float[Tensor, " b"], right: Bool[Tensor, "m b"]) -> None:
        self.sums += torch.stack([loss.detach().sum(), right.sum() / len(right)])
        self._seen += len(loss)

    def advance(self, images: int) -> None:
        """Count a step; every `LOOK` steps show the means, and raise where the loss has become useless."""
        self._bar.update(images)
        self._steps += 1
        if self._steps % LOOK == 0:
            loss, accuracy = (self.sums / self._seen).tolist()
            self._bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}")
            if not math.isfinite(loss):
                raise FloatingPointError(f"{self._title}: loss = {loss}: training diverged; lower the learning rate")


def _sgd(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)


def _adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)


_OPTIMIZERS: Mapping[str, Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
}

#: Factors of the learning rate, from the stage and the epochs done, a fraction counted in.
_SCHEDULES: Mapping[str, Callable[[Stage, float], float]] = {
    "step": lambda stage, epoch: 0.1 ** int(epoch // stage.drop_every),
    "cosine": lambda stage, epoch: (1 + math.cos(math.pi * epoch / stage.epochs)) / 2,
}


def _restored(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, state: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Put optimizer and schedule where they were after the epochs that are returned."""
    try:
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        return list(state["history"])
    except Exception as error:  # whatever a damaged or foreign state leads PyTorch to
        raise ValueError(
            f"the state of training does not belong to this stage ({reason(error)}); begin anew"
        ) from error


def _check(images: np.ndarray | FolderImages, labels: np.ndarray, stage: Stage, least: int) -> None:
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: need as many of each, and at least one")
    if not isinstance(stage.sigma, tuple) and len(stage.sigma) != len(labels):
        raise ValueError(f"{len(stage.sigma)} noise levels for {len(labels)} images: need as many of each")
    if min(stage.batch_size, len(labels)) < 2 * least and least > 1:
        raise ValueError(f"batch_size = {stage.batch_size}: too small to be divided among {least} parts; enlarge it")


def _generator(seed: int, stage: str, epoch: int, name: int, device: str | torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed(seed, stage, epoch, name))


def _seed(seed: int, stage: str, epoch: int, *name: int) -> int:
    words = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(stage.encode()), epoch, *name)).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1


def _levels(stage: Stage, n: int, generator: torch.Generator) -> Float32[Tensor, " n"]:
    if isinstance(stage.sigma, tuple):
        low, high = stage.sigma
        return low + (high - low) * torch.rand(n, generator=generator)
    return torch.from_numpy(np.asarray(stage.sigma, dtype=np.float32))


def _warm(stage: Stage, epoch: int) -> SmoothAdv | None:
    """Return the epoch's attack: its epsilon grows over the first `warmup` epochs."""
    if stage.attack is None or epoch + 1 >= stage.warmup:
        return stage.attack
    return replace(stage.attack, epsilon=stage.attack.epsilon * (epoch + 1) / stage.warmup)


@contextmanager
def _dropout_from(seed: int, device: torch.device) -> Iterator[None]:
    """Let PyTorch's global random state follow a stream, not that of the noise, and put it back afterwards."""
    own_state = device.type in ("cuda", "xpu")
    with torch.random.fork_rng([device] if own_state else [], device_type=device.type if own_state else "cuda"):
        torch.manual_seed(seed)
        yield
