"""The one place where arguments are coerced and complained about."""

import functools
import inspect
import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float64, Int64

#: Smallest failure probability. Below it SciPy's Clopper-Pearson bounds were found wrong, and NaN.
SMALLEST_ALPHA = 1e-100

#: Most votes of one image: up to here the bounds were compared with exact ones.
MOST_VOTES = 10**9

MAX_SEED = 2**128  # numpy.random.SeedSequence keeps the seed apart from the stream's name up to here
MAX_INDEX = 2**32  # and each part of the name up to here


_P = ParamSpec("_P")
_T = TypeVar("_T")


def once_by_position(count: int) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Let a function take so many arguments by position, as the previous version did, with a warning.

    Those beyond its own positional parameters are its keyword-only parameters, in their order.
    """

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        parameters = list(inspect.signature(function).parameters.values())
        names = [parameter.name for parameter in parameters]
        own = sum(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
        method = names[0] == "self"

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if own < len(args) <= count + method:
                late = dict(zip(names[own:], args[own:], strict=False))
                if late.keys() & kwargs.keys():
                    raise TypeError(f"{function.__name__}: {', '.join(late.keys() & kwargs.keys())} given twice")
                text = ", ".join(f"{name}=" for name in late)
                warnings.warn(
                    f"{function.__name__}: give {text} by name; by position it will be an error",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return function(*args[:own], **late, **kwargs)  # type: ignore[arg-type]
            return function(*args, **kwargs)

        return call

    return decorate


def check_array(name: str, values: Any, kinds: str = "iuf") -> np.ndarray:
    """Return numbers as a NumPy array in the machine's byte order, or say why these have no one meaning.

    Lists, NumPy arrays of any layout, pandas columns and tensors of any device, also lists of tensors and those that
    require gradients. A masked array is refused, since its mask would be lost.

    Parameters
    ----------
    name : str
        What messages call the values.
    values : array-like or tensor
    kinds : str, default="iuf"
        NumPy's letters for the kinds of numbers that are allowed: whole, unsigned, floating; "b" for bool.
    """
    try:
        array = np.asarray(_plain(values))
    except _MaskedError:
        raise ValueError(
            f"{name}: a masked array, whose mask would be lost; fill it, or leave masked rows out"
        ) from None
    except Exception as error:  # whatever a foreign __array__ raises: ragged lists, sparse tensors
        raise ValueError(f"{name}: {' '.join(str(error).split())}; expected numbers") from error
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name}: type {array.dtype}, expected real numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_tensor(value: Any) -> bool:
    """Whether a value is PyTorch's: where nobody has imported that, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class _MaskedError(Exception):
    """A masked array was found."""


def _plain(values: Any) -> Any:
    """Return what NumPy reads without losing anything: tensors in CPU memory, of a type that NumPy has."""
    if isinstance(values, np.ma.MaskedArray):
        raise _MaskedError
    if _is_tensor(values):
        import torch

        tensor = values.detach().cpu()
        narrow = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
        return (tensor.float() if narrow else tensor).resolve_conj().resolve_neg().numpy()
    if isinstance(values, (list, tuple)) and any(
        isinstance(v, (np.ndarray, list, tuple)) or _is_tensor(v) for v in values
    ):
        return [_plain(value) for value in values]
    return values


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> str:
    """Return one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: choose {' or '.join(map(repr, choices))}")
    return str(value)


def check_levels(sigma: Any, n: int) -> Float64[np.ndarray, " n"]:
    """Return one finite noise level > 0 per image; a single number serves all images."""
    levels = _float_array("sigma", sigma)
    if levels.ndim > 1 or levels.size not in (1, n):
        raise ValueError(f"sigma has shape {levels.shape}: expected one number or {n} of them, one per image")
    levels = np.array(np.broadcast_to(levels, (n,)))
    refuse_first("sigma", levels, np.isfinite(levels) & (levels > 0), "noise levels must be finite and > 0")
    return levels


def check_radii(radius: Any, n: int) -> Float64[np.ndarray, " n"]:
    """Return one finite radius >= 0 per image; a single number serves all images."""
    radii = _float_array("radius", radius)
    if radii.ndim > 1 or radii.size not in (1, n):
        raise ValueError(f"radius has shape {radii.shape}: expected one number or {n} of them, one per image")
    radii = np.array(np.broadcast_to(radii, (n,)))
    refuse_first("radius", radii, np.isfinite(radii) & (radii >= 0), "radii must be finite and >= 0")
    return radii


def check_grid(sigmas: Any) -> Float64[np.ndarray, " k"]:
    """Return a grid of noise levels: at least one, finite, > 0, strictly increasing."""
    levels = np.atleast_1d(_float_array("sigmas", sigmas))
    if levels.ndim != 1 or levels.size == 0:
        raise ValueError(f"sigmas has shape {levels.shape}: expected a list of at least one noise level")
    refuse_first("sigmas", levels, np.isfinite(levels) & (levels > 0), "noise levels must be finite and > 0")
    if not np.all(np.diff(levels) > 0):
        raise ValueError(f"sigmas = {levels.tolist()}: noise levels must increase; sort them and drop repeats")
    return levels


def check_classes(name: str, classes: Any, shape: tuple[int, ...], num_classes: int) -> Int64[np.ndarray, "*shape"]:
    """Return one class in [0, num_classes) for each entry."""
    labels = check_array(name, classes, "iufb")
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name} have shape {labels.shape} and type {labels.dtype}: expected whole numbers of shape {shape}"
        )
    refuse_first(name, labels, (labels >= 0) & (labels < num_classes), f"classes are 0 to {num_classes - 1}")
    return labels.astype(np.int64)


def check_shares(name: str, shares: Any, shape: tuple[int, ...]) -> Float64[np.ndarray, "*shape"]:
    """Return shares of alpha in [0, 1), one number for all or one for each entry."""
    parts = _float_array(name, shares)
    if parts.shape not in ((), (1,), shape):
        raise ValueError(f"{name} has shape {parts.shape}: expected one number or an array of shape {shape}")
    refuse_first(name, parts, (parts >= 0) & (parts < 1), "a share of alpha lies in [0, 1)")
    return np.array(np.broadcast_to(parts, shape))


def check_labels(labels: Any) -> Int64[np.ndarray, " n"]:
    """Return one whole number for each image."""
    array = check_array("labels", labels, "iu")
    if array.ndim != 1:
        raise ValueError(f"labels have shape {array.shape}: expected one whole number for each image")
    return array.astype(np.int64)


def check_indices(indices: Any, n: int) -> Int64[np.ndarray, " n"]:
    """Return the index that names each image's noise stream; 0, 1, ... unless given."""
    names = np.arange(n) if indices is None else check_array("indices", indices, "iufb")
    if names.shape != (n,) or names.dtype.kind not in "iu":
        raise ValueError(f"indices have shape {names.shape} and type {names.dtype}: expected {n} whole numbers")
    refuse_first("indices", names, (names >= 0) & (names < MAX_INDEX), "image indices must be in [0, 2**32)")
    return names.astype(np.int64)


def check_alpha(alpha: Any) -> float:
    """Return a failure probability in [1e-100, 1)."""
    value = check_real("alpha", alpha)
    if not 0 < value < 1:
        raise ValueError(f"alpha = {value}: must lie strictly between 0 and 1, such as 0.001")
    if value < SMALLEST_ALPHA:
        raise ValueError(f"alpha = {value}: bounds are not computed below {SMALLEST_ALPHA:g}; take a larger alpha")
    return value


def check_votes(name: str, votes: Any) -> Int64[np.ndarray, "*shape"]:
    """Return numbers of votes: whole numbers from 0 to 10**9, of any shape and numeric type."""
    array = check_array(name, votes)
    with np.errstate(invalid="ignore"):
        fits = (array >= 0) & (array <= MOST_VOTES) & (array == np.floor(array))
    refuse_first(name, array, fits, f"votes are whole numbers from 0 to {MOST_VOTES:,}")
    return array.astype(np.int64)


def check_real(name: str, value: Any) -> float:
    """Return one real number as a float; text, truth values and arrays of several are refused."""
    array = check_array(name, value)
    if array.size != 1:
        raise ValueError(f"{name}: {array.size} values, expected one number")
    return float(array.reshape(()))


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number that is at least `least`."""
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise ValueError(f"{name} = {value!r}: expected a whole number")
    if count < least:
        raise ValueError(f"{name} = {count}: must be at least {least}")
    return count


def check_seed(seed: Any) -> int:
    """Return a seed that numpy keeps apart from the rest of a stream's name."""
    value = check_count("seed", seed, least=0)
    if value >= MAX_SEED:
        raise ValueError(f"seed = {value}: must be below 2**128")
    return value


def check_number(name: str, value: Any, low: float, *, strict: bool) -> float:
    """Return a finite number >= low, or > low where strict."""
    number = check_real(name, value)
    if not math.isfinite(number) or number < low or (strict and number == low):
        raise ValueError(f"{name} = {number}: must be finite and {'>' if strict else '>='} {low:g}")
    return number


def _float_array(name: str, values: Any) -> Float64[np.ndarray, "..."]:
    return check_array(name, values).astype(np.float64)


def refuse_first(name: str, values: np.ndarray, ok: np.ndarray | np.bool_, rule: str) -> None:
    """Raise with the first value that breaks the rule."""
    if not ok.all():
        where = np.unravel_index(int(np.argmin(ok)), ok.shape)
        place = f"[{', '.join(map(str, where))}]" if where else ""
        raise ValueError(f"{name}{place} = {values[where]}: {rule}")
