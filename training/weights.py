"""Which of a file's tensors are a network's weights.

Programs put names of their own around those of a network: `1.` behind a normaliser, `model.` in a training module,
`module.` of DataParallel, `_orig_mod.` of torch.compile. A file's tensors are read in every way in which one prefix
stands before the network's names, and a reading counts only where it accounts for every tensor there is.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Parts of names that wrappers add and that change nothing: DataParallel, torch.compile, FSDP, recomputation.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})

#: Tensors that count steps of training. A network in evaluation mode does not read them.
COUNTERS = frozenset({"num_batches_tracked", "n_averaged"})

#: What programs call the tensors of a normaliser.
MEANS = frozenset({"mean", "means", "_mean", "pixel_mean", "image_mean"})
DEVIATIONS = frozenset({"std", "stds", "sd", "sds", "_std", "pixel_std", "image_std"})

_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_WHOLE = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})

#: Prefixes that are tried, those first that stand before most of the network's names.
_MOST_PREFIXES = 4


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a file's tensors.

    Attributes
    ----------
    weights : mapping
        What stands under the network's own names, usually tensors.
    wrapped : bool
        Whether the network was a part of something, which may have had a normaliser without tensors.
    moments : pair of Tensor, or None
        Mean and standard deviation of a normaliser before the network.
    unknown : tuple of str
        Names of the file that belong to none of these.
    """

    weights: Mapping[Any, Any]
    wrapped: bool = False
    moments: tuple[Tensor, Tensor] | None = None
    unknown: tuple[str, ...] = field(default=())


def readings(content: Mapping[Any, Any], names: Collection[str]) -> Iterator[Reading]:
    """Yield the ways to read what a file holds as the weights of a network, in a fixed order.

    Parameters
    ----------
    content : mapping
        A state dict, or a dict with one or more of them.
    names : collection of str
        The names in the network's own state dict.
    """
    for state in state_dicts(content):
        for short in (str, _without_wrappers):
            theirs = {short(key): key for key in state}
            ours = {short(name): name for name in names}
            if len(theirs) == len(state) and len(ours) == len(names):  # no two names became one
                for prefix in _prefixes(theirs, ours):
                    yield _reading(state, theirs, ours, prefix)


def state_dicts(content: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    """Yield what may be a state dict: the tensors of the file itself, and entries that hold tensors by name."""
    alone = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    for state in (alone, *(value for value in content.values() if isinstance(value, Mapping))):
        values = {key: Tensor.detach(v) if isinstance(v, Tensor) else v for key, v in state.items()}
        if all(isinstance(key, str) for key in values) and any(isinstance(v, Tensor) for v in values.values()):
            yield values


def is_counter(name: str) -> bool:
    """Whether a tensor of this name counts steps of training."""
    return name.rpartition(".")[2] in COUNTERS


def misfit(value: Any, expected: Tensor) -> tuple[str, str] | None:
    """Say what keeps a value from being a weight of the expected shape and kind, and the remedy; None if nothing."""
    if not isinstance(value, Tensor):
        return f"is of type {type(value).__name__}, not a tensor", "save the state_dict of the model"
    if value.is_nested or value.layout != torch.strided:
        return "is sparse or nested", "save what its to_dense() returns"
    if value.is_quantized:
        return "is quantised", "save the model from before quantisation"
    if value.is_meta:
        return "has a shape but no numbers (meta device)", "save the model after its weights were loaded"
    if value.shape != expected.shape:
        return f"of shape {tuple(value.shape)} instead of {tuple(expected.shape)}", "name another arch"
    if value.dtype != expected.dtype and not any({value.dtype, expected.dtype} <= kind for kind in (_FLOATS, _WHOLE)):
        found, wanted = (str(kind).removeprefix("torch.") for kind in (value.dtype, expected.dtype))
        return f"is {found} instead of {wanted}", f"save it as {wanted}, if that is what the model computes with"
    return None


def same(left: Reading, right: Reading) -> bool:
    """Whether two readings, both of which fit, are the same function."""
    pairs = [(value, right.weights.get(name)) for name, value in left.weights.items() if not is_counter(name)]
    if left.moments is not None and right.moments is not None:
        pairs += zip(left.moments, right.moments, strict=True)
    elif left.moments is not right.moments:
        return False
    return left.wrapped == right.wrapped and all(
        a is b or (isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b))
        for a, b in pairs
    )


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _prefixes(theirs: Collection[str], ours: Collection[str]) -> list[str]:
    """Return what stands before the network's names in the file, most frequent first."""
    depth = 1 + max((name.count(".") for name in ours), default=0)
    found: Counter[str] = Counter()
    for key in theirs:
        parts = key.split(".")
        for k in range(max(0, len(parts) - depth), len(parts)):
            if ".".join(parts[k:]) in ours:
                found["".join(f"{part}." for part in parts[:k])] += 1
    ordered = sorted(found, key=lambda prefix: (-found[prefix], len(prefix), prefix))
    return ordered[:_MOST_PREFIXES] or [""]


def _reading(state: Mapping[str, Any], theirs: Mapping[str, str], ours: Mapping[str, str], prefix: str) -> Reading:
    weights = {name: state[theirs[prefix + key]] for key, name in ours.items() if prefix + key in theirs}
    tops = {key.partition(".")[0] for key in ours}
    rest = [
        key
        for key in theirs
        if not (key.startswith(prefix) and key.removeprefix(prefix) in ours) and not _counts(key, state[theirs[key]])
    ]
    before = [key for key in rest if _stands_before(key, prefix, tops)]
    mean, deviation = ([key for key in before if key.rpartition(".")[2] in kind] for kind in (MEANS, DEVIATIONS))
    moments = None
    if len(mean) == len(deviation) == 1 and mean[0].rpartition(".")[0] == deviation[0].rpartition(".")[0]:
        pair = state[theirs[mean[0]]], state[theirs[deviation[0]]]
        if all(_is_moment(value) for value in pair):
            moments = pair
            rest = [key for key in rest if key not in (mean[0], deviation[0])]
    return Reading(weights, bool(_without_wrappers(prefix[:-1])), moments, tuple(theirs[key] for key in rest))


def _counts(key: str, value: Any) -> bool:
    return is_counter(key) and isinstance(value, Tensor) and not value.is_nested and value.numel() == 1


def _stands_before(key: str, prefix: str, tops: Collection[str]) -> bool:
    """Whether a tensor can be a normaliser's before the network: beside its layers, and not numbered after them."""
    inside = key.startswith(prefix)
    layers = tops if inside else {prefix.partition(".")[0]}
    layer = (key.removeprefix(prefix) if inside else key).partition(".")[0]
    numbers = [int(name) for name in layers if name.isdecimal()]
    return layer not in layers and not (layer.isdecimal() and numbers and int(layer) > min(numbers))


def _is_moment(value: Any) -> bool:
    """Whether a tensor has one floating-point number, or one for each of three colours."""
    return (
        isinstance(value, Tensor)
        and not value.is_nested
        and value.layout == torch.strided
        and not value.is_meta
        and value.dtype in _FLOATS
        and value.numel() in (1, 3)
        and value.numel() == max(value.shape, default=1)
    )
