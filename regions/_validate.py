"""Validation of arguments, all in one place.

Every function returns C-contiguous arrays of known shape and dtype (for points, one of three dtypes), or raises
`ValueError` with one line that names the offending value and what is expected. No other code checks them again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float64, Int64, Real, Shaped
from numpy.typing import ArrayLike

from regions._arithmetic.rounding import LARGEST_DIVISOR

LARGEST = 1e150
"""Largest magnitude of a coordinate or radius. Squared distances of larger ones overflow float64."""

MOST_COORDINATES = 1 << 20
"""Largest dimension for which the bounds on rounding errors are proven."""

SEARCHES = ("auto", "faiss", "blocks", "tree")
"""The names of the searches for pairs of balls that may overlap."""

_INEXACT = re.compile(r"ivf|hnsw|nsg|lsh|pq|sq|scalarquantizer|fp16|float16|bf16", re.IGNORECASE)
"""Matches the names of FAISS indexes that skip vectors or compress them."""

_KEPT = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.uint8))
"""Dtypes of points that are not converted, so that a memory map is never copied as a whole."""


_P = ParamSpec("_P")
_T = TypeVar("_T")


def renamed(**names: str) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Let a function take arguments by the names of the previous version, with a warning: renamed(former="present")."""

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            for former in names.keys() & kwargs.keys():
                present = names[former]
                if present in kwargs:
                    raise TypeError(f"{former}= is the former name of {present}=: give {present}= alone")
                warnings.warn(f"{former}= is now {present}=: use that name", DeprecationWarning, stacklevel=2)
                kwargs[present] = kwargs.pop(former)
            return function(*args, **kwargs)

        return call

    return decorate


def as_points(points: ArrayLike, name: str = "points", divisor: int = 1) -> Real[np.ndarray, "n d"]:
    """Points of shape (n, d). Arrays of shape (n, ...) are flattened; an empty list becomes (0, 0).

    float64, float32 and uint8 keep their dtype; other dtypes become float64. A C-contiguous array or memory map of such
    a dtype is not copied. No coordinate times the divisor exceeds `LARGEST`.
    """
    array = _to_numpy(points, name)
    if array.dtype not in _KEPT:
        array = _as_float64(array, name)
    if array.ndim < 2 and array.size:
        raise ValueError(f"{name} has shape {array.shape}: expected (n, d), or (n, ...) to be flattened to it")
    n = array.shape[0] if array.ndim else 0
    array = array.reshape(n, int(np.prod(array.shape[1:])))
    if n and not array.shape[1]:
        raise ValueError(f"{name} has shape {array.shape}: every point needs at least one coordinate")
    if array.shape[1] > MOST_COORDINATES:
        raise ValueError(
            f"{name} has shape {array.shape}: at most {MOST_COORDINATES} coordinates; project or subsample"
        )
    largest = LARGEST / divisor
    read = array.dtype != np.uint8 and array.size  # bytes are known to be within bounds
    if read and not (float(array.min()) >= -largest and float(array.max()) <= largest):  # NaN fails both
        _complain(~np.isfinite(array), array, name, "coordinates must be finite")
        _complain(np.abs(array) > largest, array, name, f"coordinates must not exceed {largest:g}; rescale the points")
    return np.ascontiguousarray(array)


def as_frozen(array: Shaped[np.ndarray, ...]) -> Shaped[np.ndarray, ...]:
    """The array itself if its memory can be written to through no array, else a copy of the same dtype."""
    memory: Any = array
    while isinstance(memory, np.ndarray):
        if memory.flags.writeable:
            return array.copy()
        memory = memory.base
    try:
        return array if memory is None or memoryview(memory).readonly else array.copy()
    except TypeError:  # memory of a foreign library, which may change it
        return array.copy()


def as_divisor(value: Any) -> int:
    """An integer from 1 to `LARGEST_DIVISOR`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not 1 <= value <= LARGEST_DIVISOR:
        raise ValueError(f"divisor = {value!r}: expected an integer from 1 to {LARGEST_DIVISOR}; 255 for bytes")
    return int(value)


def as_point(point: ArrayLike, d: int) -> Float64[np.ndarray, " d"]:
    """One point or image as float64 of shape (d,), copied."""
    array = _to_numpy(point, "point")
    x = as_points(array[None], "point").astype(np.float64).reshape(-1)
    if x.size != d:
        raise ValueError(f"point has shape {array.shape}: expected {d} coordinates")
    return x


def as_radii(radii: ArrayLike, n: int, name: str = "R", divisor: int = 1) -> Float64[np.ndarray, " n"]:
    """Radii as float64 of shape (n,): finite and >= 0. None times the divisor exceeds `LARGEST`."""
    array = _as_vector(_as_float64(radii, name), n, name)
    largest = LARGEST / divisor
    _complain(~np.isfinite(array) | (array < 0), array, name, "radii must be finite and >= 0")
    _complain(array > largest, array, name, f"radii must not exceed {largest:g}; rescale points and radii")
    return np.ascontiguousarray(array) + 0.0  # -0.0 becomes 0.0


def as_weights(weights: ArrayLike | None, n: int) -> Float64[np.ndarray, " n"] | None:
    """Weights as float64 of shape (n,): finite and >= 0; None stays None (all ones)."""
    if weights is None:
        return None
    array = _as_vector(_as_float64(weights, "weights"), n, "weights")
    _complain(~np.isfinite(array) | (array < 0), array, "weights", "weights must be finite and >= 0")
    _complain(array > LARGEST, array, "weights", f"weights must not exceed {LARGEST:g}; rescale them")
    return np.ascontiguousarray(array)


def as_groups(groups: Any, n: int) -> tuple[Int64[np.ndarray, " n"], ...]:
    """Labels as a tuple of int64 arrays of shape (n,), one for every array of labels.

    `groups` is one array of n labels (numbers or strings), or a list or tuple of several such arrays.
    """
    arrays = []
    for name, labels in _label_arrays(groups):
        array = _to_numpy(labels, name)
        if array.ndim == 2:
            raise ValueError(
                f"{name} has shape {array.shape}: expected ({n},); several arrays of labels go into a list"
            )
        arrays.append(_as_labels(labels, n, name))
    return tuple(arrays)


def _label_arrays(groups: Any) -> list[tuple[str, Any]]:
    """Every array of labels with its name. A list or tuple of arrays holds several; anything else is one array."""
    if groups is None:
        return []
    if isinstance(groups, (tuple, list)) and any(np.ndim(g) > 0 for g in groups):
        return [(f"groups[{k}]", labels) for k, labels in enumerate(groups)]
    return [("groups", groups)]


def as_levels(sigma: ArrayLike, radii: Float64[np.ndarray, " n"], name: str) -> Float64[np.ndarray, " n"]:
    """Noise levels as float64 of shape (n,): finite and > 0 wherever the radius is positive."""
    array = _as_vector(_as_float64(sigma, name), radii.size, name)
    wrong = (radii > 0) & ~(np.isfinite(array) & (array > 0))
    _complain(wrong, array, name, "the noise level of a non-empty region must be finite and > 0")
    return np.array(array, order="C")


def as_noise_levels(sigmas: ArrayLike) -> Float64[np.ndarray, " K"]:
    """Noise levels to choose from, as float64 of shape (K,): at least one, finite, > 0 and increasing."""
    array = _as_float64(sigmas, "sigmas")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"sigmas has shape {array.shape}: expected (K,), at least one noise level")
    _complain(~np.isfinite(array) | (array <= 0), array, "sigmas", "a noise level must be finite and > 0")
    falls = np.append(False, array[1:] <= array[:-1])
    _complain(falls, array, "sigmas", "noise levels must increase; sort them, and the columns of R")
    return np.array(array, order="C")


def as_level_radii(radii: ArrayLike, n: int, K: int) -> Float64[np.ndarray, "n K"]:
    """Radii as float64 of shape (n, K): finite and >= 0. An empty list is (0, K)."""
    array = _as_float64(radii, "R")
    if not n and not array.size:
        return np.zeros((0, K))
    if array.shape != (n, K):
        raise ValueError(f"R has shape {array.shape}: expected ({n}, {K}), {n} points at {K} levels")
    _complain(~np.isfinite(array) | (array < 0), array, "R", "radii must be finite and >= 0")
    _complain(array > LARGEST, array, "R", f"radii must not exceed {LARGEST:g}; rescale points and radii")
    return np.ascontiguousarray(array) + 0.0


def as_level_groups(groups: Any, n: int, K: int) -> Int64[np.ndarray, "n K c"]:
    """Labels as int64 of shape (n, K, c), for c arrays of shape (n,), or (n, K) if labels depend on the level."""
    arrays = _label_arrays(groups)
    labels = np.empty((n, K, len(arrays)), dtype=np.int64)
    for c, (name, values) in enumerate(arrays):
        array = _to_numpy(values, name)
        if array.shape not in ((n,), (n, K)):
            raise ValueError(f"{name} has shape {array.shape}: expected ({n},) or ({n}, {K})")
        flat = _as_labels(array.reshape(-1), array.size, name).reshape(array.shape)
        labels[:, :, c] = flat if array.ndim == 2 else flat[:, None]
    return labels


def as_parallel(value: Any) -> int | str | None:
    """A number of jobs other than 0, the name of a joblib backend, or None."""
    if value is None or (isinstance(value, str) and value):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value == 0:
        raise ValueError(
            f"parallel = {value!r}: expected a number of jobs (-1: all), the name of a joblib backend, or None"
        )
    return int(value)


def as_search(value: Any) -> str:
    """The name of a search that misses no pair. The name of an approximate index is refused, with the reason."""
    shown = repr(value) if isinstance(value, str) else f"<{type(value).__name__}>"
    if _INEXACT.search(shown):
        raise ValueError(
            f"search = {shown}: an index that skips or compresses points (IVF, HNSW, PQ, float16) may miss a pair of "
            "balls that overlap; choose 'faiss', which compares all pairs, 'auto', 'blocks' or 'tree'"
        )
    return as_choice(value, SEARCHES, "search")


def as_count(value: Any, name: str) -> int:
    """An integer >= 0."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{name} = {value!r}: expected an integer >= 0")
    return int(value)


def as_number(value: Any, name: str, *, positive: bool = False) -> float:
    """A number >= 0, or > 0 if `positive`, whose square does not overflow."""
    number = float(value) if isinstance(value, (int, float, np.integer, np.floating)) else np.nan
    if isinstance(value, bool) or not 0 <= number <= LARGEST or (positive and not number):
        raise ValueError(f"{name} = {value!r}: expected a number {'>' if positive else '>='} 0, at most {LARGEST:g}")
    return number


def as_classes(classes: ArrayLike, n: int, name: str) -> Int64[np.ndarray, " n"]:
    """Classes as int64 of shape (n,)."""
    array = _as_vector(_to_numpy(classes, name), n, name)
    if array.dtype.kind not in "iu" and n:
        raise ValueError(f"{name} has dtype {array.dtype}: expected integers")
    _complain(array > np.iinfo(np.int64).max, array, name, "too large for int64")
    return array.astype(np.int64)


def as_order(order: Any, n: int) -> str | Int64[np.ndarray, " n"]:
    """The name of an order, or a permutation of 0 .. n-1 as int64."""
    if isinstance(order, str):
        return as_choice(order, ("ascending", "descending", "arrival"), "order", "a permutation of 0 .. n-1")
    array = _to_numpy(order, "order")
    if array.dtype.kind not in "iu" and array.size:
        raise ValueError(f"order has dtype {array.dtype}: expected a permutation of 0 .. {n - 1} in integers")
    array = _as_vector(array, n, "order").astype(np.int64)
    if not np.array_equal(np.sort(array), np.arange(n)):
        raise ValueError(f"order is not a permutation of 0 .. {n - 1}: every index must occur exactly once")
    return array


def as_choice(value: Any, choices: Sequence[str], name: str, otherwise: str = "") -> str:
    """One of the names in `choices`."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices) + (f", or {otherwise}" if otherwise else "")
        raise ValueError(f"{name} = {value!r}: choose {listed}")
    return value


def as_seconds(value: Any, name: str) -> float | None:
    """A positive number of seconds, or None for no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value > 0:
        raise ValueError(f"{name} = {value!r}: expected a positive number of seconds, or None for no limit")
    return float(value)


def _to_numpy(values: Any, name: str) -> Shaped[np.ndarray, ...]:
    if _masked(values):
        raise ValueError(f"{name} is a masked array, whose mask would be lost: fill it, or leave masked rows out")
    try:
        return np.asarray(values)
    except Exception as error:  # NumPy or a foreign __array__ may raise anything: ragged lists, CUDA tensors, gradients
        raise ValueError(f"{name} cannot be read as an array: {' '.join(str(error).split())}") from error


def _masked(values: Any) -> bool:
    """Whether the values are a masked array, or a list that contains one."""
    if isinstance(values, (list, tuple)):
        return any(_masked(value) for value in values if isinstance(value, (np.ma.MaskedArray, list, tuple)))
    return isinstance(values, np.ma.MaskedArray)


def _as_float64(values: Any, name: str) -> Float64[np.ndarray, ...]:
    array = _to_numpy(values, name)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} has dtype {array.dtype}: expected real numbers")
    result = array.astype(np.float64, copy=False)
    if array.dtype.itemsize >= 8 and array.dtype != np.float64:  # 64-bit integers and long doubles may not fit
        _complain(result.astype(array.dtype) != array, array, name, "not representable as float64", finite_only=True)
    return result


def _as_vector(array: Shaped[np.ndarray, ...], n: int, name: str) -> Shaped[np.ndarray, " n"]:
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}: expected ({n},), one value for each of {n} points")
    return array


def _as_labels(labels: Any, n: int, name: str) -> Int64[np.ndarray, " n"]:
    array = _as_vector(_to_numpy(labels, name), n, name)
    if array.dtype.kind not in "buifUS" and n:
        raise ValueError(f"{name} has dtype {array.dtype}: expected numbers or strings")
    if isinstance(labels, (list, tuple)):  # NumPy gives mixed labels one type: different ones may become equal
        for k, (given, kept) in enumerate(zip(labels, array.tolist(), strict=True)):
            if given == given and given != kept:  # NaN is refused below
                raise ValueError(f"{name}[{k}] = {given!r}: cannot be told from other labels; give labels of one type")
    if array.dtype.kind == "f":
        _complain(np.isnan(array), array, name, "a label must not be NaN; give a point without a label a unique one")
    return np.unique(array, return_inverse=True)[1].reshape(n).astype(np.int64)


def _complain(bad: Any, array: Any, name: str, why: str, finite_only: bool = False) -> None:
    if finite_only and array.dtype.kind == "f":
        bad = bad & np.isfinite(array)
    if not bad.any():
        return
    where = tuple(int(k) for k in np.argwhere(bad)[0])
    raise ValueError(f"{name}[{', '.join(map(str, where))}] = {array[where]}: {why}")
