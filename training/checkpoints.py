"""Checkpoints: ours, and those of earlier work on certified models. Nothing from disk is unpickled.

Three layouts are read: a dict {arch, state_dict, ...} whose model was Sequential(normalize, net), so that keys begin
with `1.` and the normaliser, which had no entries, must be named; {net, epoch} with the bare keys of a network without
a normaliser; and a state dict alone. `module.`, which DataParallel adds, is ignored wherever it stands.
"""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothing.files import replacing
from training.models import ARCHITECTURES, NORMALIZERS, is_factory, network, normalized

#: What torch.load raises on files that are truncated, altered, foreign or hold objects.
_DAMAGE = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError)


def load_checkpoint(
    path: str | os.PathLike[str], *, arch: str | None = None, normalizer: str | None = None
) -> nn.Module:
    """Read a checkpoint as a model that maps images in [0, 1] to logits, in evaluation mode, on the CPU.

    Parameters
    ----------
    path : path
        A file written by torch.save, or `.safetensors`.
    arch : str, optional
        One of `training.ARCHITECTURES`, or `package.module:factory`; needed where the file does not say, and must agree
        with it where it does. A factory's module is imported, so a file alone never makes that happen.
    normalizer : str, optional
        One of `training.NORMALIZERS`; needed where the file belongs to a model with a normaliser that it does not name.

    Raises
    ------
    ValueError
        One line that names the file and the remedy: where it is damaged or holds objects, where architecture or
        normaliser are not known, and where the weights are not exactly those of the architecture, or not finite.
    OSError
        Where it cannot be opened.
    """
    file = Path(path)
    content = _read(file)
    state, wrapped = _network_state(file, content)
    arch = _arch(file, arch, content.get("arch"))
    stored = content.get("normalizer", None if wrapped else "none")
    normalizer = _named(file, "normalizer", normalizer, stored, NORMALIZERS)
    with torch.random.fork_rng(devices=[]):
        net = network(arch, content.get("num_classes") or _num_classes(file, arch, state))
    _check_weights(file, arch, state, net.state_dict())
    net.load_state_dict(state)
    return normalized(net, normalizer).eval()


def save_checkpoint(
    path: str | os.PathLike[str], net: nn.Module, *, arch: str, normalizer: str = "none", **extra: Any
) -> None:
    """Write a network's weights with the names that `load_checkpoint` needs; whole or not at all.

    Parameters
    ----------
    path : path
    net : torch.nn.Module
        The network without its normaliser.
    arch, normalizer : str
        As in `training.build`.
    **extra
        Further entries: tensors, numbers, strings, and lists and dicts of them.
    """
    if arch not in ARCHITECTURES and not is_factory(arch):
        raise ValueError(f"arch = {arch!r}: choose {', '.join(ARCHITECTURES)}, or package.module:factory")
    if normalizer not in NORMALIZERS:
        raise ValueError(f"normalizer = {normalizer!r}: choose {', '.join(NORMALIZERS)}")
    with replacing(Path(path)) as stream:
        torch.save({"arch": arch, "normalizer": normalizer, "state_dict": net.state_dict(), **extra}, stream)


def read_state(path: str | os.PathLike[str], net: nn.Module) -> dict[str, Any]:
    """Load a training run's weights into its network and return the other entries, `extra` of `save_checkpoint`.

    Raises
    ------
    ValueError
        Where the file is damaged or belongs to another network.
    OSError
        Where it cannot be opened.
    """
    file = Path(path)
    content = dict(_read(file))
    state, _ = _network_state(file, content)
    _check_weights(file, content.get("arch", "network"), state, net.state_dict())
    net.load_state_dict(state)
    return content


def training_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings that `srs-train` wrote into a checkpoint; empty where another program wrote it.

    Raises
    ------
    ValueError
        Where the file is damaged.
    OSError
        Where it cannot be opened.
    """
    config = _read(Path(path)).get("config", {})
    return dict(config) if isinstance(config, Mapping) else {}


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; name a checkpoint")
    try:
        if file.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return {"state_dict": load_file(file)}
            except SafetensorError as error:
                raise ValueError(str(error)) from error
        content = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise ValueError(
            f"{file} is damaged, or holds more than tensors and plain values, which is never unpickled; save its "
            "state_dict anew with torch.save"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} holds a {type(content).__name__}: expected a state_dict, or a dict that holds one")
    return content


def _network_state(file: Path, content: Mapping[str, Any]) -> tuple[dict[str, Tensor], bool]:
    """Return the network's own weights, and whether a normaliser stood before it."""
    state = content.get("state_dict", content.get("net", content))
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} holds no weights: expected a state_dict, under 'state_dict' or 'net' or alone")
    if "normalizer" in content:  # ours: the names are the network's own, whatever they look like
        return dict(state), False
    plain = {".".join(part for part in key.split(".") if part != "module"): value for key, value in state.items()}
    wrapped = all(key.startswith("1.") for key in plain)
    return {key.removeprefix("1.") if wrapped else key: value for key, value in plain.items()}, wrapped


def _named(file: Path, what: str, given: str | None, stored: Any, known: Mapping[str, Any]) -> str:
    if given is not None and stored is not None and given != stored:
        raise ValueError(f"{what} = {given!r}, but {file} is for {stored!r}: leave {what} out")
    name = stored if given is None else given
    if name is None:
        raise ValueError(f"{file} does not name its {what}: pass {what}= one of {', '.join(known)}")
    if name not in known:
        raise ValueError(f"{what} = {name!r}: choose {', '.join(known)}")
    return str(name)


def _arch(file: Path, given: str | None, stored: Any) -> str:
    """Return the architecture's name; a factory only where the caller names it, since naming it runs its module."""
    if isinstance(stored, str) and is_factory(stored):
        if given != stored:
            raise ValueError(f"{file} is for a model of your own: pass arch={stored!r} if you trust that module")
        return stored
    if given is not None and is_factory(given) and stored is None:
        return given
    return _named(file, "arch", given, stored, ARCHITECTURES)


def _num_classes(file: Path, arch: str, state: Mapping[str, Tensor]) -> int:
    """Read the number of classes off the bias of the last layer; where there is none, `_check_weights` will say so."""
    if is_factory(arch):
        raise ValueError(f"{file} does not say how many classes {arch} is for: write num_classes into it")
    last = list(ARCHITECTURES[arch](2).state_dict())[-1]
    return max(1, state[last].numel()) if last in state else 2


def _check_weights(file: Path, arch: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise unless names and shapes are exactly the architecture's and all numbers are finite."""
    wrong = [
        *(f"no {key}" for key in expected if key not in found),
        *(f"unknown {key}" for key in found if key not in expected),
        *(
            f"{key} of shape {tuple(found[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in found and found[key].shape != value.shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{file} is no {arch}: {', '.join(wrong[:3])}{more}; name another arch")
    for key, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{file}: {key} holds NaN or infinity; training diverged, take an earlier checkpoint")
