"""What float32 means while votes are counted: PyTorch's settings are global, and their defaults differ by operation.

On CUDA, convolutions run in TF32 unless told otherwise, which keeps 10 of float32's 23 bits; a program may have allowed
the same for matrix products, or bfloat16 on CPUs.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: What a base classifier may compute in.
PRECISIONS = ("float32", "tf32", "bfloat16")

#: Settings of torch.backends since PyTorch 2.9, the general ones before those that they are passed on to.
_SETTINGS = (
    "fp32_precision",
    "cuda.matmul.fp32_precision",
    "cudnn.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "mkldnn.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.rnn.fp32_precision",
)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `ValueError` where a device cannot compute in a precision."""
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"precision = 'tf32': only CUDA devices compute in it, and the device is {str(device)!r}; take 'float32'"
        )


class _Arithmetic:
    """PyTorch's settings for the precision in force, and who relies on them."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._users = 0
        self._precision = ""
        self._before: dict[str, Any] = {}
        self._during: dict[str, Any] = {}

    @contextmanager
    def of(self, precision: str) -> Iterator[None]:
        """Set the arithmetic, and put back what was set before when the last that asked for it has left.

        Threads that want another precision wait. Settings that were changed in the meantime raise `ValueError`: the
        votes were not counted in what they are said to be.
        """
        with self._free:
            self._free.wait_for(lambda: not self._users or self._precision == precision)
            if not self._users:
                self._before = _read()
                try:
                    _write(precision)
                    self._during, self._precision = _read(), precision
                except BaseException:
                    _restore(self._before)
                    raise
            self._users += 1
        changed = False
        try:
            yield
        finally:
            with self._free:
                self._users -= 1
                changed = _read() != self._during
                if not self._users:
                    _restore(self._before)
                    self._free.notify_all()
        if changed:
            raise ValueError(
                "PyTorch's float32 precision was changed while the model ran (set_float32_matmul_precision, "
                "allow_tf32, fp32_precision): set it before, outside of the model's forward"
            )


_ARITHMETIC = _Arithmetic()


def arithmetic(precision: str) -> Any:
    """Return a context in which PyTorch computes in IEEE float32, or with "tf32" in TF32 where the hardware has it.

    With "bfloat16", what autocast leaves in float32 is IEEE float32.
    """
    return _ARITHMETIC.of(precision)


def _holder(name: str) -> tuple[Any, str]:
    """Return the object of torch.backends that has a setting, None where this PyTorch lacks it, and its attribute."""
    *path, last = name.split(".")
    found: Any = torch.backends
    for part in path:
        found = getattr(found, part, None)
    return (found if hasattr(found, last) else None), last


def _read() -> dict[str, Any]:
    """Return all settings; None for an old one whose state PyTorch refuses to tell, since new ones overrule it."""
    values: dict[str, Any] = {}
    for name in _SETTINGS:
        holder, last = _holder(name)
        if holder is not None:
            values[name] = getattr(holder, last)
    try:
        values["matmul"] = torch.get_float32_matmul_precision()
    except RuntimeError:
        values["matmul"] = None
    try:
        values["cudnn"] = torch.backends.cudnn.allow_tf32
    except RuntimeError:
        values["cudnn"] = None
    return values


def _write(precision: str) -> None:
    tf32 = precision == "tf32"
    values: dict[str, Any] = {"matmul": "high" if tf32 else "highest", "cudnn": tf32}
    for name in _SETTINGS:
        values[name] = "tf32" if tf32 and name.startswith("cud") else "ieee"
    _restore(values)


def _restore(values: dict[str, Any]) -> None:
    """Set all: the old settings first, because they change the new ones."""
    if values["matmul"] is not None:
        torch.set_float32_matmul_precision(values["matmul"])
    if values["cudnn"] is not None:
        torch.backends.cudnn.allow_tf32 = values["cudnn"]
    for name in _SETTINGS:
        holder, last = _holder(name)
        if holder is not None and name in values:
            setattr(holder, last, values[name])
