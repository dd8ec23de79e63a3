"""A pass with noise made on the CPU: workers fill batches, each its own, and send them through the model."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from smoothing._voting.noise import BLOCK
from smoothing._voting.places import Batch, Piece, Segments
from smoothing._voting.samplers import Noise
from smoothing._voting.task import Task

_T = TypeVar("_T")


@runtime_checkable
class Vote(Protocol):
    """What a model says of a batch: its class for every noisy image, refused where it is no number."""

    def __call__(self, noisy: Float32[Tensor, "b c h w"], used: int) -> Int64[Tensor, " used"]:
        """Return the classes of the first `used` images, on the model's device; the batch is not changed."""
        ...


def count_on_host(
    task: Task,
    segments: Segments,
    noise: Noise,
    vote: Vote,
    cut: Sequence[Batch],
    *,
    threads: int,
    device: torch.device,
    context: Callable[[], AbstractContextManager[object]],
) -> Int64[np.ndarray, " cells"]:
    """Return the votes for all classes of all images and levels, in one row.

    Parameters
    ----------
    task, segments
        What is asked for, and in which order.
    noise : Noise
    vote : callable
    cut : sequence of Batch
        How the places of the pass are cut into batches.
    threads : int
        Workers. One works in the caller's thread.
    device : torch.device
        Where the model is.
    context : callable
        Gives what a thread has to enter to run the model.
    """
    queue, size = _Queue(cut), max((batch.size for batch in cut), default=0)

    def work() -> Int64[np.ndarray, " cells"]:
        with queue.closing_on_error(), context():
            worker = _Worker(task, segments, noise, size, device)
            for batch in queue:
                worker.count(batch, vote)
            return worker.votes.cpu().numpy()

    if threads == 1:
        return work()
    with ThreadPoolExecutor(threads) as pool:
        try:
            workers = [pool.submit(copy_context().run, work) for _ in range(threads)]
            return np.asarray(sum(worker.result() for worker in workers))
        finally:
            queue.close()  # after Ctrl-C, which only this thread hears of, the workers stop too


class _Queue(Generic[_T]):
    """Items that several threads take one after the other."""

    def __init__(self, items: Sequence[_T]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __iter__(self) -> "_Queue[_T]":
        return self

    def __next__(self) -> _T:
        with self._lock:
            return next(self._items)

    def close(self) -> None:
        """Leave nothing for those who still take."""
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


class _Worker:
    """One worker's batch, its random numbers and its votes."""

    def __init__(self, task: Task, segments: Segments, noise: Noise, size: int, device: torch.device) -> None:
        self.task, self.segments, self.noise = task, segments, noise
        shape = task.images.shape[1:]
        storage = torch.zeros((size, *shape), dtype=torch.float32, device="cpu", pin_memory=device.type == "cuda")
        self.noisy = storage.numpy()
        self.batch = storage.permute(0, 3, 1, 2)  # channels last: the bytes lie as the noise wrote them
        self.raw = np.empty((BLOCK, *shape), dtype=noise.raw)
        self.held: tuple[int, range] | None = None  # whose raw numbers those are: row and samples
        self.cells = torch.zeros(size, dtype=torch.int64, device="cpu")
        self.ones = torch.ones(size, dtype=torch.int64, device=device)
        self.votes = torch.zeros(task.sigma.size * task.num_classes, dtype=torch.int64, device=device)

    def count(self, batch: Batch, vote: Vote) -> None:
        """Fill a batch and count its votes."""
        for piece in self.segments.pieces(batch):
            part = slice(piece.at, piece.at + piece.count)
            image, sigma = self.task.images[piece.row], float(self.task.sigma[piece.row, piece.level])
            self.noise.add(self._raw(piece), image, sigma, self.noisy[part])
            self.cells[part] = self.task.cell(piece.row, piece.level)
        used = batch.end - batch.begin
        classes = vote(self.batch[: batch.size], used)
        cells = self.cells[:used].to(classes.device) + classes
        self.votes.scatter_add_(0, cells, self.ones[:used])

    def _raw(self, piece: Piece) -> np.ndarray:
        """Return the raw numbers of a piece, drawn now or still held."""
        if self.held != (piece.row, piece.drawn):
            index, count = int(self.task.indices[piece.row]), len(piece.drawn)
            self.noise.draw(self.task.stage, index, piece.drawn.start, self.raw[:count])
            self.held = (piece.row, piece.drawn)
        begin = piece.first - piece.drawn.start
        return self.raw[begin : begin + piece.count]
