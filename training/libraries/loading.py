"""Models of other libraries and formats with their weights: what is read, and what is known of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from smoothing.forward import evaluating
from training.libraries.exported import load_exported
from training.libraries.hugging_face import load_hugging_face
from training.libraries.known import Known
from training.libraries.names import split
from training.libraries.onnx_files import load_onnx
from training.libraries.pretrained import load_timm, load_torchvision
from training.models import NORMALIZERS, Normalize

Moments = tuple[tuple[float, ...], tuple[float, ...]]

#: Published moments are rounded to three or four digits.
_ROUNDED = 1e-3

#: Labels that a line shows.
_SHOWN = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedModel:
    """A model with its weights, and what is known of it.

    Attributes
    ----------
    source : str
        Its name, `KIND:NAME`.
    module : torch.nn.Module
        From images in [0, 1] to logits, in evaluation mode, on the CPU; the normaliser is its first layer.
    moments : pair of tuple of float, or None
        Mean and standard deviation of that normaliser, one number for each channel; None where there is none, or where
        nothing says what the model does to its input.
    labels : tuple of str, or None
        Names of its classes, in order.
    libraries : mapping of str to str
        What read it, with versions.
    """

    source: str
    module: nn.Module
    moments: Moments | None
    labels: tuple[str, ...] | None
    libraries: Mapping[str, str]

    def about(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        return {
            "name": self.source,
            "normalizer": self.moments and {"mean": list(self.moments[0]), "sd": list(self.moments[1])},
            "labels": self.labels and list(self.labels),
            "libraries": dict(self.libraries),
        }

    def __str__(self) -> str:
        """Return a line that says what was recognised."""
        moments = "pixels as they are"
        if self.moments is not None:
            mean, sd = (" ".join(f"{value:.4g}" for value in each) for each in self.moments)
            moments = f"normalises by mean {mean} and standard deviation {sd}"
        labels = "its classes have no names"
        if self.labels is not None:
            first = ", ".join(label.partition(",")[0] for label in self.labels[:_SHOWN])
            labels = f"classes {first}{', ...' if len(self.labels) > _SHOWN else ''}"
        return f"{self.source}: {moments}; {labels}"


def load_model(name: str, *, normalizer: str | None = None, download: bool = False) -> LoadedModel:
    """Load a model of another library or format with its weights. Labels, and code that comes with a model, do nothing.

    Weights come from this machine: a folder, a file, or the cache of the hub or of PyTorch. Nothing is fetched unless
    `download` says so, weights are read from safetensors files (those of torchvision without unpickling objects), and a
    hash in a cache is checked. `export:FILE` alone runs what is in the file: name only files that you trust.

    Parameters
    ----------
    name : str
        `timm:NAME`, `torchvision:NAME`, `hf:FOLDER`, `hf:OWNER/NAME`, `hf:OWNER/NAME@REVISION`, `onnx:FILE` or
        `export:FILE`.
    normalizer : str, optional
        One of `training.NORMALIZERS`. Of timm and torchvision, and where a processor comes with a model of `hf`, it is
        known, and must agree; an ONNX file or an exported program has it put before it.
    download : bool, default=False
        Fetch weights that are not on this machine.

    Returns
    -------
    LoadedModel

    Raises
    ------
    ValueError
        One line with the remedy: unknown names, what is not installed or not there, pickles, code, damage.
    OSError
        Where a file cannot be opened.
    """
    kind, rest = split(name)
    if normalizer is not None and normalizer not in NORMALIZERS:
        raise ValueError(f"normalizer = {normalizer!r}: choose {', '.join(NORMALIZERS)}")
    if kind in _KNOWN:
        known = _KNOWN[kind](name, rest, download)
        if known.moments is None and normalizer is None:
            raise ValueError(
                f"{name} does not say how its pixels are normalised: give normalizer, one of {', '.join(NORMALIZERS)}"
            )
        if normalizer is not None:
            known = known._replace(moments=_agreed(name, normalizer, known.moments))
    else:
        module = (load_onnx if kind == "onnx" else load_exported)(name, Path(rest))
        known = Known(module, NORMALIZERS[normalizer or "none"] or (), None)
    moments = known.moments or None
    model = known.net if moments is None else nn.Sequential(Normalize(*moments), known.net)
    evaluating(model)
    used = {library: version(library) for library in _LIBRARIES[kind]}
    return LoadedModel(source=name, module=model, moments=moments, labels=known.labels, libraries=used)


#: Adapters of the kinds that say how pixels are normalised, and which distributions read each kind.
_KNOWN: Mapping[str, Callable[[str, str, bool], Known]] = {
    "timm": load_timm,
    "torchvision": load_torchvision,
    "hf": load_hugging_face,
}
_LIBRARIES = {
    "timm": ("timm",),
    "torchvision": ("torchvision",),
    "hf": ("transformers",),
    "onnx": ("onnx", "onnxruntime"),
    "export": ("torch",),
}


def _agreed(name: str, normalizer: str, known: Moments | tuple[()] | None) -> Moments | tuple[()]:
    """Return the moments of a name; raise `ValueError` where the model has others."""
    given = NORMALIZERS[normalizer] or ()
    if known is None:
        return given
    ours, theirs = list(chain(*given)), list(chain(*known))
    if len(ours) != len(theirs) or any(abs(a - b) > _ROUNDED for a, b in zip(ours, theirs, strict=True)):
        raise ValueError(f"normalizer = {normalizer!r}: {name} has its own, which differs; leave normalizer out")
    return given
