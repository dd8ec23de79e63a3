"""What a run belongs to: hashes of arrays, and configurations that must be the same."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from smoothing._voting.probing import same_text


def hash_arrays(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of arrays, their shapes and types, in hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(described(array.shape, array.dtype) + array.tobytes())
    return digest.hexdigest()


def described(shape: tuple[int, ...], kind: np.dtype[Any]) -> bytes:
    """Return what `hash_arrays` takes up before an array's content: its shape and type."""
    return f"{shape} {kind}".encode()


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the first setting in which two nested configurations differ, our value and theirs in short, or None."""
    here, there = _flat(ours), _flat(theirs)
    for key in {**here, **there}:
        if here.get(key) != there.get(key):
            return key, _short(here.get(key)), _short(there.get(key))
    return None


def classifier_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Say in what two records' classifiers differ, theirs and ours; None where they are the same.

    Parameters
    ----------
    ours, theirs : mapping
        With `classifier`, a `smoothing.Identity` as a dict, and `check`, of `SmoothedClassifier.check_logits`. The
        identities must be equal, the logits within rounding (`smoothing._voting.probing.TOLERANCE`).
    """
    here, there = ours["classifier"], theirs.get("classifier")
    scheme = there.get("scheme", 1) if isinstance(there, Mapping) else None
    if scheme == 1:
        return (
            "identity (an earlier version's, which left out attributes of the model and the arithmetic: it cannot be "
            "compared, so certify anew)"
        )
    if isinstance(there, Mapping):
        there = {"stream": "sfc64", **there}  # the only one there was while records did not name it
    if (found := difference({"classifier": here}, {"classifier": there})) is not None:
        key, mine, stored = found
        return f"{key} ({stored}, here {mine})"
    if not same_text(ours["check"], theirs.get("check"), here["precision"]):
        return "model (its logits for fixed images are others: its code, or what it reads, was changed)"
    return None


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration with one name for each setting."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    return {
        key: value for name, part in config.items() for key, value in _flat(part, f"{prefix} {name}".strip()).items()
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else text[:12] + "..."
