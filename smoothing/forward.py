"""One call of somebody's model: a copy of the images goes in, logits come out, and what goes wrong is one line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

#: What somebody's code may raise that is no defect of ours; a module that calls `sys.exit` is one of them.
FAILURES = (Exception, SystemExit)


def reason(error: BaseException) -> str:
    """Return an error's type and the first line of its message, which may be empty."""
    try:
        lines = str(error).strip().splitlines()
    except FAILURES:  # also what it says of itself is somebody's code
        lines = []
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn whatever somebody's code raises into a `ValueError` of one line, `what` and the reason.

    An interrupt and a lack of memory stay what they are.
    """
    try:
        yield
    except MemoryError:
        raise
    except torch.OutOfMemoryError as error:
        raise ValueError(f"{what}: out of memory on the device; take smaller batches") from error
    except FAILURES as error:
        raise ValueError(f"{what}: {reason(error)}") from error


def logits_of(output: Any) -> Tensor:
    """Return the logits in what a model returned: a tensor, or what its `logits` holds, as with Hugging Face's models.

    Raises
    ------
    ValueError
        Where there are none; the message says what was returned.
    """
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif not isinstance(output, Tensor) and isinstance(getattr(output, "logits", None), Tensor):
        output = output.logits
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the model returned {type(output).__name__}: it should return logits, or something that holds them as "
            "`logits`; wrap it in a module that picks them out"
        )
    if output.is_quantized:
        output = output.dequantize()
    if output.layout != torch.strided:
        output = output.to_dense()
    if output.is_complex() or output.dtype == torch.bool:
        raise ValueError(f"the model returned numbers of type {output.dtype}: logits are real")
    logits: Tensor = output
    return logits


def run(model: nn.Module, batch: Float[Tensor, "b c h w"], *, own: bool = False) -> Tensor:
    """Return the logits of a batch that the caller keeps: the model gets a copy, and may write into it.

    A batch that is the model's `own` is not copied.

    Raises
    ------
    ValueError
        One line: the batch's shape, and what the model raised or returned.
    """
    with one_line(f"the model refused a batch of shape {tuple(batch.shape)}"):
        output = model(batch if own else batch.clone())
    return logits_of(output)


def evaluating(model: nn.Module) -> None:
    """Put a model into evaluation mode.

    An exported program cannot be told: it stays in the mode that it was exported in, and a dropout that is on there is
    found out by the probe (`smoothing._voting.probing`).
    """
    try:
        with one_line("the model's eval() failed"):
            model.eval()
    except ValueError as error:
        exported = isinstance(error.__cause__, NotImplementedError) and isinstance(model, torch.fx.GraphModule)
        if not exported:
            raise


def refuse_lazy(model: nn.Module) -> None:
    """Raise `ValueError` where parameters have no values yet: the first batch would draw them at random."""
    with one_line("the model's parameters cannot be listed"):
        named = [*model.named_parameters(), *model.named_buffers()]
    for name, value in named:
        if torch.nn.parameter.is_lazy(value):
            raise ValueError(
                f"the model's {name} has no values yet (a lazy module): send a batch through it where it is made, and "
                "load its weights"
            )
