"""The training loop: one stage of any of the methods, from the batch to the log."""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

from smoothing._validate import check_array, check_labels
from smoothing.forward import logits_of, one_line, reason
from smoothing.machine import current, processes, usable_device, widest_float
from smoothing.progress import Counter, Progress
from training.attack import SmoothAdv
from training.augment import AUGMENTATIONS
from training.batches import Batches
from training.byte_images import ByteImages
from training.data import Images, StreamedImages
from training.smoothmix import SmoothMix
from training.stage import OPTIMIZERS, SCHEDULES, Engine, Stage, WeightedLevels

#: Steps between two looks at the loss: each look waits for the device.
LOOK = 20


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
        Fraction of the noisy, attacked copies that the network classified correctly, before each step; mixed images
        do not count.
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
    images: Images,
    labels: Int64[np.ndarray, " labels"] | Float32[np.ndarray, "labels k"],
    *,
    stage: Stage,
    engine: Engine | None = None,
    seed: int = 0,
    state: Mapping[str, Any] | None = None,
    after_epoch: Callable[[dict[str, Any]], None] | None = None,
    progress: bool | Progress = False,
    kind: "type[Learner] | None" = None,
) -> tuple[Epoch, ...]:
    """Train the model, in place, through one stage.

    Order, levels, noise, augmentation and dropout of an epoch come from streams named by (seed, stage name, epoch,
    process): the same arguments give the same weights, bit for bit on one CPU, and so do the same arguments with the
    `state` of any epoch in between. No step waits for the device, but for a look at the loss every `LOOK` steps.

    Parameters
    ----------
    model : torch.nn.Module
        Maps (b, C, H, W) to logits; moved to the device and left in evaluation mode.
    images : float32 array of shape (n, C, H, W), ByteImages or StreamedImages
        Pixels in [0, 1]. On an accelerator they are kept as `training.batches.Batches` says.
    labels : int64 array of shape (n,), or float32 array of shape (n, k)
        True classes, one per image; or what each of k answers is worth, for a loss that takes that, and the answer of
        the largest worth is the right one.
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
    progress : bool or callable, default=False
        Show a bar on stderr, with loss, accuracy, images per second and time left, or call progress(stage, done, total)
        from time to time.
    kind : type, default=Learner
        What computes losses, where the model is no classifier.

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
    if not isinstance(images, ByteImages | StreamedImages):
        images = check_array("images", images)
    labels = labels if labels.ndim == 2 else check_labels(labels)
    _check(images, labels, stage, world * engine.accumulate)
    learner = (kind or Learner)(model, stage, engine, accelerator, device)
    batches = Batches(images, labels, device)
    steps = math.ceil(len(labels) / stage.batch_size)
    optimizer = OPTIMIZERS[stage.optimizer](model.parameters(), stage.lr, stage.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: SCHEDULES[stage.schedule](stage, step / steps))
    history: list[dict[str, Any]] = []
    if state is not None:
        history = _restored(optimizer, schedule, state)

    for epoch in range(len(history), stage.epochs):
        began = time.perf_counter()
        shared, own = (_generator(seed, stage.name, epoch, name, d) for name, d in ((0, "cpu"), (1 + rank, device)))
        dropout = _seed(seed, stage.name, epoch, 1 + rank, 0)  # longer than other names: no stream begins alike
        sigma = _levels(stage, len(labels), shared)  # Eq. 4
        order = torch.randperm(len(labels), generator=shared).numpy()
        taken = np.array_split(order, steps)
        parts = [part for batch in taken for part in np.array_split(batch, world * engine.accumulate)[rank::world]]
        attack, mix = _warm(stage, epoch)
        meter = _Meter(device, f"{stage.name} {epoch + 1}/{stage.epochs}", len(labels), progress)
        learner.train()
        with meter, _dropout_from(dropout, device), closing(batches.epoch(parts, sigma)) as given:
            for batch in taken:
                for number in range(engine.accumulate):
                    x, y, level = next(given)
                    loss, right = learner.backward(
                        x,
                        y,
                        level,
                        attack=attack,
                        mix=mix,
                        generator=own,
                        share=world / len(batch),
                        last=number == engine.accumulate - 1,
                    )
                    meter.add(loss, right)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                meter.advance(len(batch))
        learner.share_buffers()
        loss, accuracy = accelerator.reduce(meter.sums, "sum").tolist()
        seconds = time.perf_counter() - began
        mean, lr = loss / len(labels), optimizer.param_groups[0]["lr"]
        if not math.isfinite(mean) or not _finite(model):
            raise FloatingPointError(
                f"loss = {mean} in epoch {epoch}: training diverged; lower the learning rate, {stage.lr}"
            )
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


class Learner:
    """A model on its device, and the gradients of a stage's loss: what a step computes before the optimizer's turn.

    Nothing here waits for the device: no value is read back, and nothing is copied from the host.
    """

    def __init__(
        self, model: nn.Module, stage: Stage, engine: Engine, accelerator: Accelerator, device: torch.device
    ) -> None:
        self._layout = torch.channels_last if engine.channels_last else torch.contiguous_format
        model.to(device).to(memory_format=self._layout)
        self._model = model
        self._net = cast(nn.Module, torch.compile(model, dynamic=False)) if engine.compile else model
        # averages gradients over the processes
        self._synced = accelerator.prepare_model(self._net, device_placement=False)
        self._stage, self._accelerator, self._device = stage, accelerator, device
        self._narrow = engine.precision == "bfloat16"

    def train(self) -> None:
        """Put the model into training mode."""
        self._synced.train()

    def backward(
        self,
        x: Float32[Tensor, "b c h w"],
        y: Int64[Tensor, " b"] | Float32[Tensor, "b k"],
        level: Float32[Tensor, " b"],
        *,
        attack: SmoothAdv | None,
        mix: SmoothMix | None,
        generator: torch.Generator,
        share: float,
        last: bool,
    ) -> tuple[Float[Tensor, " b"], Bool[Tensor, "m b"]]:
        """Add the gradients of a part of a batch; return each image's loss, and which of its copies are right.

        Parameters
        ----------
        x, y, level
            Images, labels and noise levels, on the device.
        attack : SmoothAdv, optional
        mix : SmoothMix, optional
        generator : torch.Generator
            Augmentation, noise and shares of mixed images come from it.
        share : float
            Factor of the sum of the losses.
        last : bool
            Whether the batch is complete with this part: only then the processes exchange gradients.
        """
        stage = self._stage
        x = AUGMENTATIONS[stage.augment](x, generator).contiguous(memory_format=self._layout)
        normal = torch.randn((stage.m, *x.shape), generator=generator, device=self._device)
        noise = level.reshape(-1, 1, 1, 1) * normal
        # PyTorch wants the forward pass, too, where gradients are kept to oneself
        with nullcontext() if last else self._accelerator.no_sync(self._synced):
            loss, right = self.losses(x, y, level, noise, attack=attack, mix=mix, generator=generator)
            torch.autograd.backward(loss.sum() * share)
        return loss.detach(), right

    def losses(
        self,
        x: Float32[Tensor, "b c h w"],
        y: Int64[Tensor, " b"] | Float32[Tensor, "b k"],
        level: Float32[Tensor, " b"],
        noise: Float32[Tensor, "m b c h w"],
        *,
        attack: SmoothAdv | None,
        mix: SmoothMix | None,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, " b"], Bool[Tensor, "m b"]]:
        """Return each image's loss, from its noisy copies x + noise, and which of these are right."""
        with self.forward_pass(x):
            hard = x if attack is None else attack(self._net, x, y, noise=noise)
            copies = hard + noise
            if mix is not None:
                lam = torch.rand(len(x), generator=generator, device=self._device) / 2
                mixed = mix.mixed(self._net, x, y, noise=noise, sigma=level, share=lam)
                copies = torch.cat([copies, mixed + noise])
            rows = logits_of(self._synced(copies.flatten(0, 1))).float()
        logits = rows.reshape(len(copies), len(x), -1)
        own = logits[: len(noise)]
        loss = self._stage.loss(own, y, level)
        if mix is not None:
            loss = loss + mix.loss(own, logits[len(noise) :], y, share=lam)
        truth = y.argmax(dim=1) if y.ndim == 2 else y
        return loss, own.argmax(dim=2) == truth

    def share_buffers(self) -> None:
        """Give all processes the buffers of the first, such as running means: each had those of its own images."""
        if self._accelerator.num_processes > 1:
            for buffer in self._model.buffers():
                buffer.detach().copy_(broadcast(buffer.detach().contiguous()))

    @contextmanager
    def forward_pass(self, x: Float32[Tensor, "b c h w"]) -> Iterator[None]:
        """Compute in the precision of the engine; a model that fails on these images raises one line."""
        # Accelerate would patch its autocast into the model, where it would stay when training is over
        with one_line(f"the model failed in training on images of {tuple(x.shape[1:])}"), self._autocast():
            yield

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = self._device.type
        if not self._narrow and not torch.amp.is_autocast_available(kind):
            return nullcontext()
        return torch.autocast(kind, torch.bfloat16, enabled=self._narrow)


class _Meter:
    """Loss and accuracy of an epoch so far, kept on the device and looked at now and then; a bar that shows them."""

    def __init__(self, device: torch.device, title: str, total: int, progress: bool | Progress) -> None:
        self.sums = torch.zeros(2, dtype=widest_float(device), device=device)
        self._title = title
        self._seen = 0  # by this process
        self._steps = 0
        self._counter = Counter(processes().is_main_process and progress, title, total)

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._counter.__exit__(None, None, None)

    def add(self, loss: Float[Tensor, " b"], right: Bool[Tensor, "m b"]) -> None:
        self.sums += torch.stack([loss.sum(), right.sum() / len(right)])
        self._seen += len(loss)

    def advance(self, images: int) -> None:
        """Count a step; every `LOOK` steps show the means, and raise where the loss has become useless."""
        self._counter.advance(images)
        self._steps += 1
        if self._steps % LOOK == 0:
            loss, accuracy = (self.sums / self._seen).tolist()
            self._counter.note(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}")
            if not math.isfinite(loss):
                raise FloatingPointError(f"{self._title}: loss = {loss}: training diverged; lower the learning rate")


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


def _check(images: Images, labels: np.ndarray, stage: Stage, least: int) -> None:
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: need as many of each, and at least one")
    if isinstance(stage.sigma, np.ndarray) and len(stage.sigma) != len(labels):
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
    if isinstance(stage.sigma, WeightedLevels):
        return stage.sigma.draw(n, generator)
    return torch.from_numpy(np.asarray(stage.sigma, dtype=np.float32))


def _warm(stage: Stage, epoch: int) -> tuple[SmoothAdv | None, SmoothMix | None]:
    """Return the epoch's attack and mixing: epsilon, and the weight of mixed images, grow over the first epochs."""
    attack, mix = stage.attack, stage.mix
    if epoch + 1 >= stage.warmup:
        return attack, mix
    part = (epoch + 1) / stage.warmup
    if attack is not None:
        attack = replace(attack, epsilon=attack.epsilon * part)
    if mix is not None:
        mix = replace(mix, eta=mix.eta * part)
    return attack, mix


def _finite(model: nn.Module) -> bool:
    """Whether all weights are finite, with one look at the device."""
    return bool(torch.stack([parameter.isfinite().all() for parameter in model.parameters()]).all())


@contextmanager
def _dropout_from(seed: int, device: torch.device) -> Iterator[None]:
    """Let PyTorch's global random state follow a stream, not that of the noise, and put it back afterwards."""
    module = None if device.type == "cpu" else torch.get_device_module(device)
    with torch.random.fork_rng([device] if module else [], device_type=device.type if module else "cuda"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all devices there are
        if module is not None:
            with current(device):
                module.manual_seed(seed)
        yield
