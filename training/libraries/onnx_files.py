"""ONNX files, `onnx:FILE`: checked, held whole in memory, run by ONNX Runtime on the CPU. They bring no code."""

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from smoothing.forward import one_line
from training.checkpoint_files import check_regular
from training.libraries.fixed_batch import FixedBatch

#: Domains of ONNX's own operators. What others do is up to a library that would have to be loaded.
_DOMAINS = frozenset({"", "ai.onnx"})

#: Operators that draw random numbers.
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

#: Most bytes of a model: a message of protobuf cannot be longer.
_MOST = 2**31 - 1

#: Sessions of ONNX Runtime, which no copy, file or hash can hold: made of a module's content where one is missing.
_SESSIONS: "weakref.WeakKeyDictionary[OnnxClassifier, Any]" = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


class OnnxClassifier(nn.Module):
    """A model in ONNX as a module: float32, on the CPU, one thread for each caller. It has no gradient.

    Parameters
    ----------
    content : bytes
        The model, with all its weights.
    output : str
        Which of its outputs holds the logits.
    """

    content: Tensor

    def __init__(self, content: bytes, output: str) -> None:
        super().__init__()
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.output = output

    def forward(self, images: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b classes"]:
        """Return logits."""
        if images.device.type != "cpu":
            raise ValueError(f"an ONNX model runs on the CPU, not on {str(images.device)!r}: give --device cpu")
        if torch.is_autocast_enabled("cpu"):
            raise ValueError("an ONNX model computes in what its file says: give --precision float32")
        session = self._session()
        name = session.get_inputs()[0].name
        (logits,) = session.run([self.output], {name: np.ascontiguousarray(images.detach().numpy())})
        return torch.from_numpy(logits).float()

    def _session(self) -> Any:
        with _MAKING:
            if self not in _SESSIONS:
                _SESSIONS[self] = _session_of(self.content.cpu().numpy().tobytes())
            return _SESSIONS[self]


def load_onnx(name: str, file: Path) -> nn.Module:
    """Return the model of an ONNX file as a module.

    Raises
    ------
    ValueError
        One line, where the file is no ONNX model or damaged, has weights outside its folder, operators that are not
        ONNX's own or draw random numbers, another input than one batch of float32 images, or no output of
        floating-point logits.
    OSError
        Where it cannot be opened.
    """
    import onnx
    from onnx import inliner

    check_regular(file, "an ONNX model")
    if file.stat().st_size > _MOST:
        raise ValueError(f"{name} has more than 2 GB: keep its weights in a file beside it")
    with one_line(f"{name} is no ONNX model, or damaged: export it anew"):
        model = onnx.load_model(file, load_external_data=False)
        if not model.graph.node or not model.graph.output:
            raise ValueError("it has no nodes")
        model = inliner.inline_local_functions(model)
    for graph in _graphs(model.graph):
        _check_nodes(name, graph)
        _bring_in(name, file.parent, graph)
    size = _check_input(name, model.graph)
    output = _check_output(name, model.graph)
    with one_line(f"{name} is more than ONNX's format holds in one piece (2 GB)"):
        content = model.SerializeToString()
    wrapped = OnnxClassifier(content, output)
    with one_line(f"{name} cannot be run by ONNX Runtime"):
        wrapped._session()
    return wrapped if size is None else FixedBatch(wrapped, size)


def _session_of(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # callers bring threads of their own
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph, and those in the attributes of its nodes: branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _graphs(inner)


def _check_nodes(name: str, graph: Any) -> None:
    for node in graph.node:
        if node.domain not in _DOMAINS:
            raise ValueError(
                f"{name} uses {node.domain}.{node.op_type}, which is no operator of ONNX's own: export it with "
                "standard operators alone"
            )
        if node.op_type in _RANDOM:
            raise ValueError(f"{name} draws random numbers ({node.op_type}): export it in evaluation mode")


def _tensors(graph: Any) -> Iterator[Any]:
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            yield from (attribute.t, *attribute.tensors)


def _bring_in(name: str, folder: Path, graph: Any) -> None:
    """Read weights that stand in files beside the model's; others are not opened."""
    from onnx import external_data_helper

    inside = folder.resolve()
    for tensor in _tensors(graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        file = inside / said
        if not said or not file.resolve().is_relative_to(inside) or file.resolve() == inside:
            raise ValueError(
                f"{name} keeps weights in {said!r}, outside its folder, which is never opened: put both into one folder"
            )
        if not file.is_file():
            raise ValueError(f"{name} keeps weights in {said!r}, which is not beside it: put both into one folder")
        with one_line(f"{name}: the weights in {said!r} cannot be read"):
            external_data_helper.load_external_data_for_tensor(tensor, str(inside))


def _check_input(name: str, graph: Any) -> int | None:
    """Return how many images the model takes at a time; None where any number."""
    from onnx import TensorProto

    weights = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    if len(inputs) != 1:
        raise ValueError(f"{name} takes {len(inputs)} inputs: export a model that takes one batch of images")
    kind = inputs[0].type.tensor_type
    dims = kind.shape.dim
    if kind.elem_type != TensorProto.FLOAT or len(dims) != 4:
        found = TensorProto.DataType.Name(kind.elem_type).lower()
        raise ValueError(
            f"{name} takes {found} of {len(dims)} dimensions: export a model that takes float32 images of shape "
            "(b, c, h, w)"
        )
    return int(dims[0].dim_value) or None


def _check_output(name: str, graph: Any) -> str:
    """Return the name of the output that holds logits."""
    from onnx import TensorProto

    outputs = {each.name: each.type.tensor_type.elem_type for each in graph.output}
    chosen = next(iter(outputs)) if len(outputs) == 1 else "logits"
    if chosen not in outputs:
        raise ValueError(f"{name} returns {', '.join(outputs)[:80]}: export one output, or call one of them logits")
    if outputs[chosen] not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        found = TensorProto.DataType.Name(outputs[chosen]).lower()
        raise ValueError(f"{name} returns {found}, which are no logits: export the model that returns them")
    return chosen
