"""Exported programs, `export:FILE.pt2`. Reading one may run code: torch.export.load unpickles what it finds."""

import contextlib
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothing.forward import one_line
from training.checkpoint_files import check_regular
from training.libraries.fixed_batch import FixedBatch

#: Entries of the archives that torch.export.save writes, now and before.
_MARKS = frozenset({"archive_format", "serialized_exported_program.json"})


class ExportedClassifier(nn.Module):
    """An exported program as a module that can be a part of others: it stays in the mode it was exported in.

    Parameters
    ----------
    program : torch.nn.Module
        What `torch.export.ExportedProgram.module` returned.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, images: Float[Tensor, "b c h w"]) -> Any:
        """Return what the program does."""
        return self.program(images)

    def train(self, mode: bool = True) -> "ExportedClassifier":
        """Do nothing: a program refuses to be told. Dropout that is on shows when the model is asked twice."""
        return self


def load_exported(name: str, file: Path) -> nn.Module:
    """Return an exported program as a module.

    Only a file that the user names may come here, as with a module of the user's own: `torch.export.load` unpickles
    parts of an archive, so a file that somebody made for the purpose runs their code.

    Raises
    ------
    ValueError
        One line, where the file is no exported program, takes something else than one batch of float32 images, or
        returns something else than one tensor of floating-point numbers.
    OSError
        Where it cannot be opened.
    """
    check_regular(file, "an exported program")
    _check_archive(name, file)
    with one_line(f"{name} is damaged, or of another version of PyTorch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats and of what was fallen back on
        program = torch.export.load(file)
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    inputs = [values.get(str(each)) for each in signature.user_inputs]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise ValueError(f"{name} takes {len(inputs)} inputs: export a module that takes one batch of images")
    images = inputs[0]
    if images.ndim != 4 or images.dtype != torch.float32:
        raise ValueError(
            f"{name} takes {images.dtype} of {images.ndim} dimensions: export a module that takes float32 images of "
            "shape (b, c, h, w)"
        )
    outputs = [values.get(str(each)) for each in signature.user_outputs]
    if len(outputs) == 1 and isinstance(outputs[0], Tensor) and not outputs[0].is_floating_point():
        raise ValueError(f"{name} returns {outputs[0].dtype}, which are no logits: export the module that returns them")
    with one_line(f"{name} gives no module"):
        model = ExportedClassifier(program.module())
    size = images.shape[0]
    return FixedBatch(model, size) if isinstance(size, int) else model


def _check_archive(name: str, file: Path) -> None:
    """Refuse what torch.export.save did not write; that it did proves nothing about what is in it."""
    names: set[str] = set()
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        names = {entry.rpartition("/")[2] for entry in archive.namelist()}
    if not names & _MARKS:
        raise ValueError(
            f"{name} is no exported program: torch.export.save writes those; a file of weights goes to --checkpoint"
        )
