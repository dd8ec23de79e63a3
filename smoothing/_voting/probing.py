"""Whether a model is a function of each image alone, asked before any vote is counted.

The theorem is about one function of one image. A model whose answer depends on the rest of the batch, on its place in
it or on hidden randomness is none, and its votes prove nothing.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

#: By how much of their spread, from the mean of an image's logits, logits may differ through rounding alone: what is
#: asked of the same image in another batch, and of the same classifier on another machine. Measured differences in
#: float32 are below 1e-5; a model that moves them more is refused.
TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2}

#: A unit in the last place: logits that share a large offset are as exact as that offset.
_UNIT = {"float32": 2.0**-23, "tf32": 2.0**-10, "bfloat16": 2.0**-8}

#: Images that are watched while their company changes.
_WATCHED = 8

#: How often the first batch is asked again.
_REPEATS = 3

#: Fixed images, and logits of each, that a record keeps as a check.
KEPT_IMAGES, KEPT_CLASSES = 4, 16

Forward = Callable[[Float32[Tensor, "b c h w"]], Float64[np.ndarray, "b classes"]]


def probe(
    forward: Forward,
    images: Float32[Tensor, "n c h w"],
    sigma: float,
    batch_size: int,
    precision: str,
    device: torch.device,
    *,
    sizes: Sequence[int],
) -> bool:
    """Return whether a model takes batches of other sizes; see that it is a function of each image alone.

    Raise `ValueError`, with the reason, where a model is no function of each image alone.

    A dozen passes or so. They draw from a stream of their own; PyTorch's, NumPy's and Python's global states are put
    back. What a pass of a few batches cannot show stays hidden: a model that misbehaves once in thousands of calls.

    Parameters
    ----------
    forward : callable
        Returns the logits of a batch on the CPU.
    images : tensor of shape (n, C, H, W)
        Images that will be voted on.
    sigma : float
        The largest noise level.
    batch_size : int
        Images per pass.
    precision : str
        Key of `TOLERANCE`.
    device : torch.device
        Whose random state is watched too.
    sizes : sequence of int
        Other sizes that batches may have; a model that takes one size alone may refuse them.

    Returns
    -------
    bool
        Whether batches of all sizes that were asked were answered.
    """
    noise = np.random.Generator(np.random.SFC64(np.random.SeedSequence(0, spawn_key=(2**32 - 1,))))
    shape = (batch_size, *images.shape[1:])
    first = noise.random(shape, dtype=np.float32)
    seen = images[: max(1, batch_size // 2)][: _WATCHED // 2].numpy()
    first[: len(seen)] = seen
    first += np.float32(sigma) * noise.standard_normal(shape, dtype=np.float32)
    strange = 3 * noise.standard_normal(shape, dtype=np.float32) + 2

    def ask(batch: Float32[np.ndarray, "b c h w"]) -> Float64[np.ndarray, "b classes"]:
        return forward(torch.from_numpy(batch))

    def refuse_unless_same(found: np.ndarray, expected: np.ndarray, why: str) -> None:
        if not same_logits(found, expected, precision):
            raise ValueError(f"{why}; such votes certify nothing")

    with own_random_state(device):
        logits = ask(first)  # the first pass may compile
        if not np.isfinite(logits.max(axis=1)).all():
            raise ValueError(NOT_FINITE)
        befores, afters = [], []
        for seed in range(_REPEATS):
            _seed(seed)
            befores.append(_random_states(device))
            refuse_unless_same(ask(first), logits, _AGAIN)
            afters.append(_random_states(device))
        for before, after in zip(zip(*befores, strict=True), zip(*afters, strict=True), strict=True):
            drew = all(one != other for one, other in zip(before, after, strict=True))
            if drew and len(set(after)) > 1:  # a forward that seeds for itself leaves the same state after any
                raise ValueError(f"{_DRAWS}; such votes certify nothing")
        for step in {1, max(1, batch_size // 3)}:
            refuse_unless_same(np.roll(ask(np.roll(first, step, axis=0)), -step, axis=0), logits, _COMPANY)
        watched = min(_WATCHED, max(1, batch_size // 2))
        place = np.roll(np.arange(batch_size), max(1, batch_size // 3))[:watched]
        for company in (np.zeros_like(first), strange.copy(), np.repeat(first[:1], batch_size, axis=0)):
            company[place] = first[:watched]
            refuse_unless_same(ask(company)[place], logits[:watched], _COMPANY)
        both = np.concatenate([first, strange])
        refused = False
        for size in sorted(set(sizes) - {0, batch_size}):
            try:
                answers = ask(both[:size])
            except ValueError:  # a model that takes batches of one size alone, as exported programs may
                refused = True
                continue
            refuse_unless_same(answers[:batch_size], logits[:size], _SIZE)
            if size < batch_size:
                company = strange[:size].copy()
                company[size // 2] = first[0]
                refuse_unless_same(ask(company)[size // 2 : size // 2 + 1], logits[:1], _COMPANY)
        refuse_unless_same(ask(first), logits, _AGAIN)
    return not refused


NOT_FINITE = "the model returned NaN or infinity: check its weights (did training diverge?) and its normalisation"
_AGAIN = (
    "the model answers the same images differently when asked again: hidden randomness (dropout that ignores eval(), "
    "say), or a state that its forward changes"
)
_DRAWS = "the model draws random numbers in evaluation mode: make it deterministic"
_COMPANY = (
    "the model's answer for an image depends on the rest of its batch, or on its place there: BatchNorm without "
    "running statistics, or a scale taken from the whole batch, say"
)
_SIZE = "the model's answer for an image depends on how many images its batch has"


def same_logits(found: Float64[np.ndarray, "..."], expected: Float64[np.ndarray, "b classes"], precision: str) -> bool:
    """Tell whether logits are equal within rounding: `TOLERANCE` of their mean spread."""
    if found.shape != expected.shape:
        return False
    equal = found == expected  # infinities too
    if equal.all():
        return True
    finite = np.where(np.isfinite(expected), expected, 0.0)
    spread = np.abs(finite - finite.mean(axis=1, keepdims=True)).max(axis=1).mean()
    allowed = TOLERANCE[precision] * spread + 16 * _UNIT[precision] * np.abs(finite).max()
    with np.errstate(invalid="ignore"):
        return bool((equal | (np.abs(found - expected) <= allowed)).all())


def fixed_images(shape: Sequence[int]) -> Float32[Tensor, "k c h w"]:
    """Return the images whose logits a record keeps: the same in every process."""
    noise = np.random.Generator(np.random.SFC64(np.random.SeedSequence(1, spawn_key=(2**32 - 1,))))
    return torch.from_numpy(noise.random((KEPT_IMAGES, *shape), dtype=np.float32))


def logits_text(logits: Float64[np.ndarray, "b classes"]) -> list[str]:
    """Return logits as a record keeps them: a line an image, of its first `KEPT_CLASSES` classes."""
    return [" ".join(f"{value:.9g}" for value in row[:KEPT_CLASSES]) for row in logits]


def same_text(found: Sequence[str], stored: object, precision: str) -> bool:
    """Tell whether kept logits are those of the same classifier, within rounding; False where they are no numbers."""
    try:
        here, there = (np.array([row.split() for row in rows], dtype=np.float64) for rows in (found, stored))  # type: ignore[attr-defined]
    except (TypeError, ValueError, AttributeError):
        return False
    return same_logits(there, here, precision)


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Put the global random states back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what a model may draw from
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def _random_states(device: torch.device) -> list[bytes]:
    """Return the global random states that only numbers for a model are drawn from: PyTorch's and NumPy's.

    Python's is drawn from by type checkers and the like as well, so a change of it means nothing.
    """
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    kind, key, *place = np.random.get_state()  # noqa: NPY002
    numpy = repr((kind, np.asarray(key).tolist(), place))
    return [state.numpy().tobytes() for state in states] + [numpy.encode()]
