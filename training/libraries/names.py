"""How models of other libraries and formats are named, `KIND:NAME`, and what has to be installed for each kind."""

import difflib
import importlib.util
from collections.abc import Iterable

#: Kinds: what comes after the colon, which module is imported, and which extra of the distribution brings it.
KINDS = {
    "timm": ("an architecture of timm", "timm", "timm"),
    "torchvision": ("a classifier of torchvision", "torchvision", "certify"),
    "hf": ("a folder, or a model of the Hugging Face hub", "transformers", "hf"),
    "onnx": ("an ONNX file", "onnxruntime", "onnx"),
    "export": ("a file of torch.export", "torch", "certify"),
}

#: Kinds of which a new model can be made, with initial weights.
ARCHITECTURE_KINDS = ("timm", "torchvision")

#: How files end that are named behind a kind.
_SUFFIXES = {".onnx": "onnx", ".pt2": "export"}


def kind_of(name: object) -> str | None:
    """Return the kind of a name `KIND:NAME`; None where it is another one, such as a factory's."""
    kind, colon, _ = name.partition(":") if isinstance(name, str) else ("", "", "")
    return kind if colon and kind in KINDS else None


def split(name: str) -> tuple[str, str]:
    """Return kind and name of a name `KIND:NAME`.

    Raises
    ------
    ValueError
        Where nothing follows the colon, and where what the kind needs is not installed.
    """
    kind, _, rest = name.partition(":")
    what, module, extra = KINDS[kind]
    if not rest:
        raise ValueError(f"{name}: expected {kind}:NAME, {what}")
    for wanted in ("onnx", module) if kind == "onnx" else (module,):
        if importlib.util.find_spec(wanted) is None:
            raise ValueError(f"{name} needs {wanted}, which is not installed: pip install 'srs-certify[{extra}]'")
    return kind, rest


def meant(name: str) -> str:
    """Return a remedy for a file that was named without its kind; empty where it is none."""
    kind = next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)
    return "" if kind is None else f"; did you mean {kind}:{name}?"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the known names that are nearest; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
