"""The engine: votes under noise, from passes of noisy images through models that were seen to be fit for it."""

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor, nn

from smoothing._validate import MOST_VOTES
from smoothing._voting.device import count_on_device
from smoothing._voting.device_check import usable_way
from smoothing._voting.host import count_on_host
from smoothing._voting.noise import BLOCK
from smoothing._voting.places import Segments, batches, halves
from smoothing._voting.probing import NOT_FINITE, own_random_state, probe
from smoothing._voting.samplers import Noise
from smoothing._voting.sizing import BatchSize
from smoothing._voting.task import Task
from smoothing.arithmetic import arithmetic
from smoothing.forward import evaluating, run
from smoothing.identity import own_passes
from smoothing.machine import current, one_thread_each, out_of_memory

_Result = TypeVar("_Result")

#: Vote counters, and segments of samples, that a pass may hold; images and samples beyond that wait for the next one.
MOST_CELLS, MOST_SEGMENTS = 2**22, 2**14


@dataclass(frozen=True, eq=False)
class VoteCounter:
    """Counts votes under noise; every number depends on (seed, stage, image index, sample) alone.

    Attributes
    ----------
    models : mapping of noise level to module
        The base classifier of every level. One classifier for all levels sits under None.
    num_classes, seed, device, threads
        As in `SmoothedClassifier`.
    precision : {"float32", "tf32", "bfloat16"}
    channels_last : bool
    noise : Noise
        Sampler and stream.
    size : BatchSize
        Noisy images per pass.
    on_device : bool
        Make noise where the model runs.
    """

    models: Mapping[float | None, nn.Module]
    num_classes: int
    seed: int
    device: torch.device
    threads: int
    precision: str
    channels_last: bool
    noise: Noise
    size: BatchSize
    on_device: bool
    _seen: set[tuple[int, ...]] = field(default_factory=set)
    _contiguous: set[int] = field(default_factory=set)  # models that do not take channels-last memory
    _one_size: set[int] = field(default_factory=set)  # models that take batches of one size alone

    def model(self, sigma: float) -> nn.Module:
        """Return the base classifier for a noise level."""
        if None in self.models:
            return self.models[None]
        if sigma not in self.models:
            levels = ", ".join(f"{level:g}" for level in self.models if level is not None)
            raise ValueError(f"sigma = {sigma:g} has no base classifier of its own: there is one for {levels}")
        return self.models[sigma]

    def count(
        self,
        images: Float32[Tensor, "n c h w"],
        indices: Int64[np.ndarray, " n"],
        sigma: Float64[np.ndarray, "n k"],
        wanted: Bool[np.ndarray, "n k"],
        start: int,
        stop: int,
        stage: str,
    ) -> Int64[np.ndarray, "n k classes"]:
        """Count classes over samples start to stop - 1 of every image, at each of its wanted levels.

        The levels of an image share its random numbers. Rows that are not wanted stay 0.
        """
        n, k = sigma.shape
        if stop > MOST_VOTES:
            raise ValueError(f"{stop:,} samples of an image: bounds were checked for at most {MOST_VOTES:,}")
        votes = np.zeros((n, k, self.num_classes), dtype=np.int64)
        blocks = min(-(-stop // BLOCK) - start // BLOCK, max(1, MOST_SEGMENTS // k))
        together = max(1, min(MOST_CELLS // (k * self.num_classes), MOST_SEGMENTS // (k * blocks)))
        cuts = [start, *range(start // BLOCK * BLOCK + blocks * BLOCK, stop, blocks * BLOCK), stop]
        with self._ready(images, sigma[wanted]):
            for first in range(0, n, together):
                part = slice(first, first + together)
                task = self._task(images[part], indices[part], sigma[part], stage)
                for model, uses in self._by_model(sigma[part], wanted[part]):
                    for begin, end in itertools.pairwise(cuts):
                        found = self._count(model, task, Segments.of(uses, begin, end))
                        votes[part] += found.reshape(-1, k, self.num_classes)
        return votes

    def classes(self, images: Float32[Tensor, "n c h w"], sigma: Float64[np.ndarray, " k"]) -> Int64[np.ndarray, "n k"]:
        """Return what every level's base classifier says about the images without noise."""
        answers: dict[int, Int64[np.ndarray, " n"]] = {}
        with self._ready(images, sigma):
            for level in sigma.tolist():
                model = self.model(level)
                if id(model) not in answers:
                    with self._running():
                        answers[id(model)] = self._whole(model, images).argmax(dim=1).cpu().numpy()
        return np.stack([answers[id(self.model(level))] for level in sigma.tolist()], axis=1)

    def logits(self, images: Float32[Tensor, "n c h w"]) -> Float64[np.ndarray, "rows classes"]:
        """Return the logits of every base classifier for a few images, one classifier after the other."""
        levels = np.array([0.0 if level is None else level for level in self.models])
        with self._ready(images, levels), self._running():
            found = [self._whole(model, images) for model in self.models.values()]
        return np.concatenate([logits.cpu().double().numpy() for logits in found])

    def _whole(self, model: nn.Module, images: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n classes"]:
        """Return the logits of images, batch by batch."""

        def work(size: int) -> Float32[Tensor, "n classes"]:
            self._see(model, images, 0.0, size)
            parts = []
            for batch in batches(len(images), size, one_size=self._takes_one_size(model)):
                used = batch.end - batch.begin
                padded = _channels_last(images.new_zeros((batch.size, *images.shape[1:])))
                padded[:used] = images[batch.begin : batch.end]
                parts.append(_finite(self.forward(model, padded)[:used]))
            return torch.cat(parts)

        return self._within_memory(model, images, work)

    def _task(
        self,
        images: Float32[Tensor, "n c h w"],
        indices: Int64[np.ndarray, " n"],
        sigma: Float64[np.ndarray, "n k"],
        stage: str,
    ) -> Task:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        return Task(pixels, indices, sigma, stage, self.num_classes)

    def _by_model(
        self, sigma: Float64[np.ndarray, "n k"], wanted: Bool[np.ndarray, "n k"]
    ) -> Iterator[tuple[nn.Module, Bool[np.ndarray, "n k"]]]:
        """Give every base classifier in use, and what is wanted of it."""
        models = {id(model): model for model in map(self.model, np.unique(sigma[wanted]).tolist())}
        for model in models.values():
            levels = [level for level in np.unique(sigma[wanted]).tolist() if self.model(level) is model]
            yield model, wanted & np.isin(sigma, levels)

    def _count(self, model: nn.Module, task: Task, segments: Segments) -> Int64[np.ndarray, " cells"]:
        """Count the votes of one base classifier."""
        images = torch.from_numpy(task.images).permute(0, 3, 1, 2)

        def work(size: int) -> Int64[np.ndarray, " cells"]:
            self._see(model, images, float(task.sigma.max()), size)
            return self._pass(model, task, segments, size, self.threads, one_size=self._takes_one_size(model))

        return self._within_memory(model, images, work)

    def _pass(
        self, model: nn.Module, task: Task, segments: Segments, size: int, threads: int, *, one_size: bool
    ) -> Int64[np.ndarray, " cells"]:
        way = self._way()
        cut = batches(segments.total, size, one_size=one_size, workers=threads if way is None else 1)
        if way is not None:

            def logits(noisy: Float32[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
                return self.forward(model, noisy, own=True)

            with self._running():
                found = count_on_device(task, segments, self.noise, logits, cut, device=self.device, how=way)
            if found is not None:
                return found

        def vote(noisy: Float32[Tensor, "b c h w"], used: int) -> Int64[Tensor, " used"]:
            return _finite(self.forward(model, noisy)[:used]).argmax(dim=1)

        return count_on_host(
            task, segments, self.noise, vote, cut, threads=threads, device=self.device, context=self._running
        )

    def _way(self) -> str | None:
        """How noise is made where the model runs, in bits that are the CPU's; None where the CPU makes it."""
        if not self.on_device:
            return None
        way, wrong = usable_way(self.noise.name, self.device)
        if wrong:
            instead = f"{way} noise is made" if way else "noise is made on the CPU and copied"
            _warn(f"{instead}, which is slower and gives the same votes: {'; '.join(wrong)}")
        return way

    def _batch(self, model: nn.Module, images: Float32[Tensor, "n c h w"]) -> int:
        """Return the size of the batches for images like these."""

        def one_pass(size: int) -> None:
            task = self._task(images[:1], np.zeros(1, dtype=np.int64), np.full((1, 1), 0.25), "select")
            self._pass(model, task, Segments.of(np.ones((1, 1), bool), 0, size), size, 1, one_size=True)

        with own_random_state(self.device):
            return self.size.of(tuple(images.shape[1:]), one_pass)

    def _within_memory(
        self, model: nn.Module, images: Float32[Tensor, "n c h w"], work: Callable[[int], _Result]
    ) -> _Result:
        """Return work(size of batches), done again in smaller ones where memory turns out to be too small."""
        while True:
            size = self._batch(model, images)
            try:
                return work(size)
            except (RuntimeError, ValueError) as error:
                if not out_of_memory(error):
                    raise
                if not self.size.halve(tuple(images.shape[1:])):
                    remedy = "try device 'cpu'" if size == 1 else "take smaller batches"
                    raise ValueError(f"batch_size = {size}: out of memory; {remedy}") from error

    @contextmanager
    def _ready(self, images: Float32[Tensor, "n c h w"], sigmas: Float64[np.ndarray, " levels"]) -> Iterator[None]:
        """Set PyTorch up for forward passes, of models that were seen to be functions of each image alone."""
        models = {id(model): model for model in (self.model(float(sigma)) for sigma in np.unique(sigmas))}
        with ExitStack() as settings:
            settings.enter_context(torch.no_grad())  # not inference_mode: what a model caches must be fit for training
            settings.enter_context(arithmetic(self.precision))
            if self.threads > 1:
                settings.enter_context(one_thread_each())
            settings.enter_context(own_passes(*models.values(), *map(_base, models.values())))
            for model in models.values():
                evaluating(model)  # whoever trained it in the meantime
                if id(model) in self._contiguous:
                    _make_contiguous(_base(model))
                see = functools.partial(self._see, model, images, float(np.max(sigmas)))
                self._within_memory(model, images, see)
            yield

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Enter what each thread has of its own."""
        with current(self.device), torch.no_grad(), self._autocast():
            yield

    def forward(self, model: nn.Module, batch: Float32[Tensor, "b c h w"], *, own: bool = False) -> Tensor:
        """Return the logits of a batch, or say what is wrong with the model.

        The model gets a copy, unless the batch is the model's `own`.
        """
        if id(model) in self._contiguous or not self.channels_last:
            batch, own = batch.clone(memory_format=torch.contiguous_format), True
        try:
            logits = run(model, batch.to(self.device, non_blocking=True), own=own).to(self.device)
        except ValueError as error:
            if out_of_memory(error):
                raise ValueError(f"batch_size = {len(batch)}: out of memory; take smaller batches") from error.__cause__
            raise
        if logits.shape != (len(batch), self.num_classes):
            found, wanted = tuple(logits.shape), f"{len(batch)} images of {self.num_classes} classes"
            raise ValueError(f"the model returned {found} for {wanted}")
        return logits

    def _see(self, model: nn.Module, images: Float32[Tensor, "n c h w"], sigma: float, size: int) -> None:
        """See once that a model takes these images, `size` at a time, and is a function of each alone.

        Compilation and refusals come first.
        """
        if (id(model), *images.shape[1:], size) in self._seen:
            return
        precision = "bfloat16" if _low_precision(_base(model)) else self.precision

        def forward(batch: Float32[Tensor, "b c h w"]) -> Float64[np.ndarray, "b classes"]:
            def answer() -> Tensor:
                with self._running():
                    return self.forward(model, _channels_last(batch)).cpu().double()

            return np.asarray(self._where_votes_are_made(answer).numpy())

        if self.channels_last and id(model) not in self._contiguous:
            try:
                forward(images[:1].expand(size, -1, -1, -1))
            except ValueError as error:
                if out_of_memory(error):  # whatever the layout
                    raise
                self._contiguous.add(id(model))
                _make_contiguous(_base(model))
        compiled = model is not _base(model)
        sizes = () if compiled else (1, size // 2, size - 1, size + 1, *halves(size))
        if not probe(forward, images, sigma, size, precision, self.device, sizes=sizes):
            self._one_size.add(id(model))
        self._seen.add((id(model), *images.shape[1:], size))

    def _where_votes_are_made(self, call: Callable[[], _Result]) -> _Result:
        """Call in a thread like those that vote: what a thread has of its own could make a model another function."""
        if self.threads == 1 or self._way() is not None:
            return call()
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(copy_context().run, call).result()

    def forget(self) -> None:
        """See models again before they vote: somebody may have changed them."""
        self._seen.clear()

    def _takes_one_size(self, model: nn.Module) -> bool:
        """Whether a model takes batches of one size alone. A compiled one would be compiled again for every other."""
        return model is not _base(model) or id(model) in self._one_size

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def _channels_last(batch: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b c h w"]:
    """Return a copy whose bytes lie as those of noisy images do, with the same strides also for one channel."""
    b, c, h, w = batch.shape
    return torch.empty((b, h, w, c), dtype=batch.dtype, device=batch.device).permute(0, 3, 1, 2).copy_(batch)


@functools.cache
def _warn(text: str) -> None:
    """Warn once in a process."""
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _finite(logits: Tensor) -> Tensor:
    if not bool(torch.isfinite(logits.amax(dim=1)).all()):  # minus infinity may mark classes that are left out
        raise ValueError(NOT_FINITE)
    return logits


def _base(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` was given."""
    base = getattr(model, "_orig_mod", model)
    return base if isinstance(base, nn.Module) else model


def _make_contiguous(model: nn.Module) -> None:
    """Give weights of four dimensions the strides of contiguous memory, also where a side of 1 leaves them open.

    `contiguous` and `to` leave those alone, and convolutions take them for channels last.
    """
    for weight in itertools.chain(model.parameters(), model.buffers()):
        if weight.ndim == 4:
            _, c, h, w = weight.shape
            if weight.stride() != (c * h * w, h * w, w, 1):
                weight.data = weight.data.clone(memory_format=torch.contiguous_format)


def _low_precision(model: nn.Module) -> bool:
    """Whether a model computes with fewer bits than float32 somewhere, by the types of what it holds."""
    held = itertools.chain(model.parameters(), model.buffers())
    return any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in held)
