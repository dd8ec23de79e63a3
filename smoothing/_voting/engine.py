"""The engine: noisy images of many images, levels and samples through one fixed-shape forward batch."""

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor, nn

from smoothing._voting.noise import BLOCK, stream
from smoothing._voting.probing import NOT_FINITE, probe
from smoothing._voting.samplers import Sampler
from smoothing.arithmetic import arithmetic
from smoothing.forward import evaluating, run
from smoothing.identity import own_passes
from smoothing.machine import current, one_thread_each

#: Vote counters that one pass may hold on the device; images beyond that wait for the next pass.
MOST_CELLS = 2**22


@dataclass(frozen=True, eq=False)
class VoteCounter:
    """Counts votes under noise; every number depends on (seed, stage, image index, sample) alone.

    Attributes
    ----------
    models : mapping of noise level to module
        The base classifier of every level. One classifier for all levels sits under None.
    num_classes, batch_size, seed, device, threads
        As in `SmoothedClassifier`.
    precision : {"float32", "tf32", "bfloat16"}
    channels_last : bool
    sampler : Sampler
    """

    models: Mapping[float | None, nn.Module]
    num_classes: int
    batch_size: int
    seed: int
    device: torch.device
    threads: int
    precision: str
    channels_last: bool
    sampler: Sampler
    _tried: set[tuple[int, ...]] = field(default_factory=set)
    _contiguous: set[int] = field(default_factory=set)  # models that do not take channels-last memory

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

        The levels of an image share its random numbers, drawn once. Rows that are not wanted stay 0.
        """
        n, k = sigma.shape
        votes = np.zeros((n, k, self.num_classes), dtype=np.int64)
        size = max(1, MOST_CELLS // (k * self.num_classes))
        with self._ready(images, sigma[wanted]):
            for first in range(0, n, size):
                part = slice(first, first + size)
                votes[part] = self._pass(
                    images[part], indices[part], sigma[part], wanted[part], start, stop, stage
                ).reshape(-1, k, self.num_classes)
        return votes

    def classes(self, images: Float32[Tensor, "n c h w"], sigma: Float64[np.ndarray, " k"]) -> Int64[np.ndarray, "n k"]:
        """Return what every level's base classifier says about the images without noise."""
        answers: dict[int, Int64[np.ndarray, " n"]] = {}
        with self._ready(images, sigma):
            for level in sigma.tolist():
                model = self.model(level)
                if id(model) not in answers:
                    with self._autocast():
                        answers[id(model)] = self._padded(model, images).argmax(dim=1).cpu().numpy()
        return np.stack([answers[id(self.model(level))] for level in sigma.tolist()], axis=1)

    def logits(self, images: Float32[Tensor, "n c h w"]) -> Float64[np.ndarray, "rows classes"]:
        """Return the logits of every base classifier for a few images, one classifier after the other."""
        levels = np.array([0.0 if level is None else level for level in self.models])
        with self._ready(images, levels), self._autocast():
            found = [self._padded(model, images) for model in self.models.values()]
        return np.concatenate([logits.cpu().double().numpy() for logits in found])

    def _padded(self, model: nn.Module, images: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n classes"]:
        """Return the logits of images, in whole batches."""
        parts = []
        for part in _parts(images, self.batch_size):
            batch = torch.zeros((self.batch_size, *part.shape[1:])).to(memory_format=torch.channels_last)
            batch[: len(part)] = part
            parts.append(self._checked(self.forward(model, batch)[: len(part)]))
        return torch.cat(parts)

    def _pass(
        self,
        images: Float32[Tensor, "n c h w"],
        indices: Int64[np.ndarray, " n"],
        sigma: Float64[np.ndarray, "n k"],
        wanted: Bool[np.ndarray, "n k"],
        start: int,
        stop: int,
        stage: str,
    ) -> Int64[np.ndarray, " cells"]:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        rows = np.flatnonzero(wanted.any(axis=1)).tolist()
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        tasks = _Shared((row, block) for row in rows for block in blocks)

        def work() -> Int64[np.ndarray, " cells"]:
            with tasks.closing_on_error(), current(self.device), torch.no_grad(), self._autocast():
                scratch = np.empty((BLOCK, *pixels.shape[1:]), dtype=self.sampler.raw)
                queues = _Queues(self, pixels.shape[1:], sigma.size * self.num_classes)
                for row, block in tasks:
                    begin, end = max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK)
                    self.sampler.draw(stream(self.seed, stage, int(indices[row]), block), scratch[:end])
                    for level in np.flatnonzero(wanted[row]).tolist():
                        cell = (row * sigma.shape[1] + level) * self.num_classes
                        queues.put(scratch[begin:end], pixels[row], float(sigma[row, level]), cell)
                return queues.finish()

        if self.threads == 1:
            return work()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                workers = [pool.submit(work) for _ in range(self.threads)]
                return np.asarray(sum(worker.result() for worker in workers))
            finally:
                tasks.close()  # after Ctrl-C, which only this thread hears of, the workers stop too

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
                if (id(model), *images.shape[1:]) not in self._tried:
                    self._try(model, images, float(np.max(sigmas)))
                    self._tried.add((id(model), *images.shape[1:]))
            yield

    def forward(self, model: nn.Module, batch: Float32[Tensor, "b c h w"]) -> Tensor:
        """Return the logits of a batch, which the model gets a copy of, or say what is wrong with the model."""
        if id(model) in self._contiguous or not self.channels_last:
            batch = batch.clone(memory_format=torch.contiguous_format)
        try:
            logits = run(model, batch.to(self.device)).to(self.device)
        except ValueError as error:
            if isinstance(error.__cause__, torch.OutOfMemoryError):
                raise ValueError(f"batch_size = {len(batch)}: out of memory; take smaller batches") from error
            raise
        if logits.shape != (len(batch), self.num_classes):
            found, wanted = tuple(logits.shape), f"{len(batch)} images of {self.num_classes} classes"
            raise ValueError(f"the model returned {found} for {wanted}")
        return logits

    def _checked(self, logits: Tensor) -> Tensor:
        if not bool(torch.isfinite(logits.amax(dim=1)).all()):  # minus infinity may mark classes that are left out
            raise ValueError(NOT_FINITE)
        return logits

    def _try(self, model: nn.Module, images: Float32[Tensor, "n c h w"], sigma: float) -> None:
        """See that a model takes these images and is a function of each alone: compilation and refusals come first."""
        precision = "bfloat16" if _low_precision(_base(model)) else self.precision

        def forward(batch: Float32[Tensor, "b c h w"]) -> Float64[np.ndarray, "b classes"]:
            with self._autocast():
                logits = self.forward(model, batch.contiguous(memory_format=torch.channels_last))
            return np.asarray(logits.cpu().double().numpy())

        if self.channels_last and id(model) not in self._contiguous:
            try:
                forward(images[:1].expand(self.batch_size, -1, -1, -1))
            except ValueError as error:
                if isinstance(error.__cause__, ValueError):  # out of memory, whatever the layout
                    raise
                self._contiguous.add(id(model))
                _make_contiguous(_base(model))
        any_size = model is _base(model)
        probe(forward, images, sigma, self.batch_size, precision, self.device, any_size=any_size)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


class _Shared:
    """An iterator that several threads may draw from."""

    def __init__(self, items: Iterator[tuple[int, int]]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __iter__(self) -> "_Shared":
        return self

    def __next__(self) -> tuple[int, int]:
        with self._lock:
            return next(self._items)

    def close(self) -> None:
        """Leave nothing for those who still draw."""
        with self._lock:
            self._items = iter(())

    @contextmanager
    def closing_on_error(self) -> Iterator[None]:
        """Where one worker fails, the others stop."""
        try:
            yield
        except BaseException:
            self.close()
            raise


class _Queues:
    """One worker's batches, one for every base classifier in use, and its votes."""

    def __init__(self, engine: VoteCounter, shape: Sequence[int], cells: int) -> None:
        self.engine, self.shape = engine, tuple(shape)
        self.votes = torch.zeros(cells, dtype=torch.int64, device=engine.device)
        self.batches: dict[int, _Batch] = {}

    def put(self, raw: np.ndarray, image: Float32[np.ndarray, "h w c"], sigma: float, cell: int) -> None:
        """Add an image's noisy copies; `cell` is where the votes for class 0 are counted."""
        model = self.engine.model(sigma)
        if id(model) not in self.batches:
            self.batches[id(model)] = _Batch(self.engine, model, self.shape, self.votes)
        self.batches[id(model)].put(raw, image, sigma, cell)

    def finish(self) -> Int64[np.ndarray, " cells"]:
        """Send what waits through the models and return all votes."""
        for batch in self.batches.values():
            batch.flush()
        return self.votes.cpu().numpy()


class _Batch:
    """A buffer of fixed shape: filled with noisy images whoever they belong to, sent through the model when full."""

    def __init__(self, engine: VoteCounter, model: nn.Module, shape: tuple[int, ...], votes: Tensor) -> None:
        storage = torch.zeros((engine.batch_size, *shape))
        self.engine, self.model, self.votes = engine, model, votes
        self.noisy = storage.numpy()
        self.tensor = storage.permute(0, 3, 1, 2)  # channels last: the bytes lie as the samplers wrote them
        self.cells = torch.zeros(engine.batch_size, dtype=torch.int64)
        self.ones = torch.ones(engine.batch_size, dtype=torch.int64, device=engine.device)
        self.filled = 0

    def put(self, raw: np.ndarray, image: Float32[np.ndarray, "h w c"], sigma: float, cell: int) -> None:
        while len(raw):
            end = min(self.filled + len(raw), len(self.cells))
            part, raw = raw[: end - self.filled], raw[end - self.filled :]
            self.engine.sampler.add(part, image, sigma, self.noisy[self.filled : end])
            self.cells[self.filled : end] = cell
            self.filled = end
            if end == len(self.cells):
                self.flush()

    def flush(self) -> None:
        """Vote. A batch that is not full goes through whole, so that its shape is the same; its tail is not counted."""
        if not self.filled:
            return
        logits = self.engine._checked(self.engine.forward(self.model, self.tensor)[: self.filled])
        cells = self.cells[: self.filled].to(self.engine.device) + logits.argmax(dim=1)
        self.votes.scatter_add_(0, cells, self.ones[: self.filled])
        self.filled = 0


def _base(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` was given."""
    base = getattr(model, "_orig_mod", model)
    return base if isinstance(base, nn.Module) else model


def _parts(images: Float32[Tensor, "n c h w"], size: int) -> Iterator[Float32[Tensor, "b c h w"]]:
    return (images[start : start + size] for start in range(0, len(images), size))


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
