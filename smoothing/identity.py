"""Which function a base classifier is: a hash of everything in the module that decides it.

Hashed are, for every module of the tree, its class, parameters, buffers (also those that no state dict holds), hooks
and plain attributes: tensors, arrays, numbers, strings, functions by name with the values they enclose, containers and
simple objects of those. What can still escape: code, global variables, files that are read while the model runs. The
logits of fixed images (the probe (`smoothing._voting.probing`)) are a check on those, within rounding.

What a forward pass writes into a module, caches and counters, is not another model: `own_passes` remembers what was
there before.
"""

import argparse
import enum
import functools
import hashlib
import numbers
import os
import re
import struct
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothing.forward import one_line, refuse_lazy

#: Of the identity: 1, of earlier versions, hashed the state dict alone.
SCHEME = 2

#: Attributes that PyTorch's modules keep for themselves, and a mark that Accelerate leaves; hooks are hashed apart.
_OWN = frozenset(vars(nn.Module())) | {"_compiled_call_impl", "_is_full_backward_hook", "device", "_device"}
_OWN |= {"_is_accelerate_prepared"}

#: Where hooks that take part in a forward pass are kept.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")

#: Attributes of modules that torch.fx and torch.export make; their code is hashed in place of them.
_GRAPH = frozenset({"_graph", "_code", "_lineno_map", "_prologue_start", "_tracer_cls", "_tracer_extras", "_in_spec"})
_GRAPH |= {"_out_spec", "_replace_hooks", "_create_node_hooks", "_erase_node_hooks", "_deepcopy_hooks", "meta"}
_GRAPH |= {"shape_env", "range_constraints", "validate_inputs", "train", "eval"}

Footprint = dict[str, bytes]


@dataclass
class _Passes:
    """What a module's attributes were before our forward passes, and what they were after the last of them."""

    before: Footprint
    after: Footprint


_PASSES: "weakref.WeakKeyDictionary[nn.Module, _Passes]" = weakref.WeakKeyDictionary()


def hash_bank(bank: Mapping[float | None, nn.Module]) -> str:
    """Return the SHA-256 of base classifiers and their levels.

    Raises
    ------
    ValueError
        One line, where something in a module cannot be hashed.
    """
    total = hashlib.sha256(f"identity {SCHEME}".encode())
    for level, base in bank.items():
        refuse_lazy(base)
        with one_line("the model cannot be told from others, so it cannot be certified"):
            total.update(f"{level}".encode())
            for part in (_parameters(base), _settled(base)):
                for name in sorted(part):
                    total.update(_framed(name.encode()) + _framed(part[name]))
    return total.hexdigest()


@contextmanager
def own_passes(*models: nn.Module) -> Iterator[None]:
    """Run models in this context so that what their forward passes write into them does not change their identity."""
    with one_line("the model's attributes cannot be read"):
        before = {model: _settled(model) for model in models}
    try:
        yield
    finally:
        with one_line("the model's attributes cannot be read"):
            for model, footprint in before.items():
                _PASSES[model] = _Passes(footprint, _footprint(model))


def _settled(base: nn.Module) -> Footprint:
    """Return the footprint as it was before forward passes of ours, but for what somebody changed since."""
    now, known = _footprint(base), _PASSES.get(base)
    if known is None:
        return now
    settled = {}
    for name in {**now, **known.before}:
        value = known.before.get(name) if now.get(name) == known.after.get(name) else now.get(name)
        if value is not None:
            settled[name] = value
    return settled


def _parameters(base: nn.Module, writer: "_Writer | None" = None) -> Footprint:
    """Return parameters, and what else the state dict holds: extra state, the packed weights of quantised modules."""
    writer = writer or _Writer()
    found = {f"parameter {name}": writer.of(value) for name, value in _named(base, "_parameters")}
    known = {name for kind in ("_parameters", "_buffers") for name, _ in _named(base, kind)}
    for name, value in base.state_dict().items():
        if name not in known:
            found[f"state {name}"] = writer.of(value)
    return found


def _footprint(base: nn.Module, writer: "_Writer | None" = None) -> Footprint:
    """Return the bytes of everything else that decides a module's function, by name."""
    writer = writer or _Writer()
    writer.begin(base)
    found: Footprint = {f"buffer {name}": writer.of(value) for name, value in _named(base, "_buffers")}
    for path, module in base.named_modules(remove_duplicate=False):
        for name, value in writer.attributes(module):
            found[f"module {path} {name}"] = value
    return found


def _named(base: nn.Module, kind: str) -> Iterator[tuple[str, Any]]:
    """Yield all parameters or buffers, also those that are None or that no state dict holds."""
    for path, module in base.named_modules(remove_duplicate=False):
        for name, value in getattr(module, kind).items():
            yield f"{path}.{name}" if path else name, value


class _Writer:
    """Values as bytes that are the same in every process, and differ where values do."""

    def __init__(self) -> None:
        self._open: set[int] = set()  # what is being written: an object may hold itself
        self._tensors: dict[int, tuple[Tensor, bytes]] = {}
        self._modules: dict[int, bytes] = {}

    def begin(self, base: nn.Module) -> None:
        """Name the modules of a tree, so that whatever refers to one of them, a bound method say, gives its name."""
        for path, module in base.named_modules():
            self._modules.setdefault(id(module), f"module {len(self._modules)} {path}".encode())

    def attributes(self, module: nn.Module) -> Iterator[tuple[str, bytes]]:
        """Yield what a module itself holds, but for parameters and buffers."""
        kind = type(module)
        yield "class", _name(kind).encode()
        children = {name: child is not None for name, child in module._modules.items()}
        yield "children", self.of(children)
        for hooks in _HOOKS:
            if held := list(getattr(module, hooks, {}).values()):
                yield hooks, self.of(held)
        if isinstance(module, torch.jit.ScriptModule):
            yield "script", self.of(_script(module))
            return
        if "OptimizedModule" in kind.__name__ and hasattr(module, "_orig_mod"):
            return  # what torch.compile adds is of this process
        skipped = _OWN
        if isinstance(module, torch.fx.GraphModule):
            yield "code", module.code.encode()
            skipped = _OWN | _GRAPH
        for name, value in sorted(_class_values(kind).items()):
            yield f"class {name}", self.of(value)
        for name, value in sorted(vars(module).items()):
            if name not in skipped:
                yield f"attribute {name}", self.of(value)

    def of(self, value: Any) -> bytes:
        """Return a value's bytes; objects that cannot be looked into give their class."""
        if value is None or isinstance(value, (bool, int, str, bytes, complex)):
            return f"{type(value).__name__} {value!r}".encode()
        if isinstance(value, float):
            return b"float " + struct.pack("<d", value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(np.asarray(value))
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format, numbers.Number, os.PathLike)):
            return f"{_name(type(value))} {value}".encode()
        if isinstance(value, enum.Enum):
            return f"{_name(type(value))} {value.name}".encode()
        if isinstance(value, type):
            return f"class {_name(value)}".encode()
        if id(value) in self._modules:
            return self._modules[id(value)]
        if id(value) in self._open:
            return b"itself"
        self._open.add(id(value))
        try:
            return hashlib.sha256(self._composed(value)).digest()
        finally:
            self._open.discard(id(value))

    def _composed(self, value: Any) -> bytes:
        name = _framed(_name(type(value)).encode())
        if isinstance(value, (list, tuple, deque)):
            return name + b"".join(_framed(self.of(item)) for item in value)
        if isinstance(value, Mapping):
            items = (_framed(self.of(key)) + _framed(self.of(item)) for key, item in value.items())
            return name + b"".join(sorted(items))
        if isinstance(value, (set, frozenset)):
            return name + b"".join(sorted(_framed(self.of(item)) for item in value))
        if isinstance(value, (range, slice)):
            return name + repr(value).encode()
        if isinstance(value, functools.partial):
            return name + self.of([value.func, value.args, value.keywords])
        if isinstance(value, types.FunctionType):
            enclosed = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
            return name + self.of([_name(value), value.__defaults__, value.__kwdefaults__, enclosed])
        if isinstance(value, types.MethodType):
            return name + self.of([_name(value.__func__), value.__self__])
        if isinstance(value, nn.Module):  # one that its owner keeps out of the tree, in a list say
            return name + self.of({**_parameters(value, self), **_footprint(value, self)})
        if callable(value) and hasattr(value, "__qualname__"):
            return name + _name(value).encode()
        if _looked_into(type(value)):
            slots = [key for kind in type(value).__mro__ for key in _slots(kind) if hasattr(value, key)]
            held = {**getattr(value, "__dict__", {}), **{key: getattr(value, key) for key in slots}}
            return name + self.of(held)
        return name

    def _tensor(self, value: Tensor) -> bytes:
        if id(value) not in self._tensors:
            digest = hashlib.sha256()
            for part in self._tensor_parts(value.detach()):  # not put together: that copies every weight
                digest.update(part)
            self._tensors[id(value)] = value, digest.digest()
        return self._tensors[id(value)][1]

    def _tensor_parts(self, value: Tensor) -> tuple[bytes, bytes | memoryview]:
        head = f"tensor {tuple(value.shape)} {value.dtype}".encode()
        if value.is_meta:
            raise ValueError("a tensor on the device 'meta' has no values")
        if value.layout == torch.sparse_coo:
            value = value.coalesce()
            return head, self.of([value.indices(), value.values()])
        if value.layout != torch.strided:
            return head, self.of(value.to_dense())
        if value.is_quantized:
            return head, self.of([value.int_repr(), value.dequantize()])
        if hasattr(value, "__tensor_flatten__"):
            names, about = value.__tensor_flatten__()
            return head, self.of([{name: getattr(value, name) for name in names}, about])
        value = value.cpu().resolve_conj().resolve_neg().contiguous()
        return head, value.reshape(-1).view(torch.uint8).numpy().data

    def _array(self, value: np.ndarray) -> bytes:
        head = f"array {value.shape} {value.dtype.str}".encode()
        if value.dtype.hasobject:
            return hashlib.sha256(head + self.of(value.ravel().tolist())).digest()
        return hashlib.sha256(head + value.tobytes()).digest()


def _framed(content: bytes) -> bytes:
    """Return bytes with their length, so that no two sequences of them look alike."""
    return struct.pack("<q", len(content)) + content


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell  # raises where there are none
    except ValueError:
        return False


def _library(kind: type) -> bool:
    """Whether a class is of Python or of PyTorch, whose versions a manifest holds."""
    return kind.__module__.partition(".")[0] in {"torch", *sys.stdlib_module_names}


def _looked_into(kind: type) -> bool:
    """Whether an object's attributes are data; those of Python's own objects, locks and loggers say, are not."""
    return issubclass(kind, (types.SimpleNamespace, argparse.Namespace)) or not _library(kind)


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _class_values(kind: type) -> dict[str, Any]:
    """Return the plain values that a user's class holds for all its objects."""
    plain = (bool, int, float, complex, str, tuple, list, dict, Tensor, np.ndarray, np.generic)
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if not _library(base):
            found |= {
                name: value
                for name, value in vars(base).items()
                if isinstance(value, plain) and not name.startswith(("__", "_abc_"))
            }
    return found


def _script(module: torch.jit.ScriptModule) -> dict[str, Any]:
    """Return code, constants and attributes of a compiled script; names that its making numbered lose their number."""
    found: dict[str, Any] = {"type": re.sub(r"___torch_mangle_\d+\.?", "", str(module._c._type()))}
    for method in sorted(module._c._method_names()):
        code, constants = module._c._get_method(method).code_with_constants
        found[f"code {method}"] = re.sub(r"___torch_mangle_\d+\.?", "", code)
        found[f"constants {method}"] = dict(getattr(constants, "const_mapping", constants))
        for name in re.findall(r"\w+", code):
            if module._c.hasattr(name):
                value = module._c.getattr(name)
                if isinstance(value, (Tensor, bool, int, float, str, list, tuple, dict)) or value is None:
                    found[f"attribute {name}"] = value
    return found
