"""The engine: noisy images of many images, levels and samples through one fixed-shape forward batch."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor, nn

from smoothing._voting.noise import BLOCK, stream
from smoothing._voting.samplers import Sampler
from smoothing.devices import current
from smoothing.threads import one_thread_each

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
    precision : {"float32", "bfloat16"}
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
        with torch.inference_mode(), one_thread_each() if self.threads > 1 else nullcontext():
            self._try(tuple(images.shape[1:]), sigma[wanted])
            for first in range(0, n, size):
                part = slice(first, first + size)
                votes[part] = self._pass(
                    images[part], indices[part], sigma[part], wanted[part], start, stop, stage
                ).reshape(-1, k, self.num_classes)
        return votes

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
            with tasks.closing_on_error(), current(self.device), torch.inference_mode(), self._autocast():
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

    def forward(self, model: nn.Module, batch: Float32[Tensor, "b c h w"]) -> Tensor:
        """Return the logits of a batch, or say what is wrong with the model."""
        try:
            logits = model(batch)
        except torch.OutOfMemoryError as error:
            raise ValueError(f"batch_size = {len(batch)}: out of memory; take smaller batches") from error
        except (RuntimeError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            hint = "; pass channels_last=False" if "view" in reason and self.channels_last else ""
            raise ValueError(f"the model refused a batch of shape {tuple(batch.shape)}: {reason}{hint}") from error
        if not isinstance(logits, Tensor) or logits.shape != (len(batch), self.num_classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model returned {found} for {len(batch)} images of {self.num_classes} classes")
        return logits

    def _try(self, shape: tuple[int, ...], sigmas: Float64[np.ndarray, " levels"]) -> None:
        """Send a grey batch through each model that will be used: errors and compilation come before the work."""
        models = [self.model(float(sigma)) for sigma in np.unique(sigmas)]
        for model in {id(model): model for model in models}.values():
            model.eval()  # whoever trained it in the meantime
            if (id(model), *shape) not in self._tried:
                batch = torch.full((self.batch_size, shape[1], shape[2], shape[0]), 0.5).permute(0, 3, 1, 2)
                with self._autocast():
                    self.forward(model, self._on_device(batch))
                self._tried.add((id(model), *shape))

    def _on_device(self, batch: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b c h w"]:
        return (batch if self.channels_last else batch.contiguous()).to(self.device)

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
        logits = self.engine.forward(self.model, self.engine._on_device(self.tensor))[: self.filled]
        if bool(torch.isnan(logits).any()):
            raise ValueError("the model returned NaN: check its weights (did training diverge?) and its normalisation")
        cells = self.cells[: self.filled].to(self.engine.device) + logits.argmax(dim=1)
        self.votes.scatter_add_(0, cells, self.ones[: self.filled])
        self.filled = 0
