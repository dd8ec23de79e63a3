"""Image classifiers of transformers, `hf:FOLDER` or `hf:OWNER/NAME`: weights in safetensors, no code beside them."""

import json
import math
import warnings
from collections.abc import Iterator
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothing.forward import one_line
from training.libraries.hub import hub_folder
from training.libraries.known import Known
from training.libraries.labels import named
from training.libraries.names import nearest

_CONFIG, _PROCESSOR, _ADAPTER = "config.json", "preprocessor_config.json", "adapter_config.json"

#: Weights in one file, or which files hold them.
_WEIGHTS, _PARTS = "model.safetensors", "model.safetensors.index.json"

#: Most bytes of a configuration that is read.
_MOST = 10**7

#: What a configuration may ask for that would load code or another model's weights, and what to do instead.
_REFUSED = {
    "auto_map": "asks for code of its own, which is never run",
    "quantization_config": "is quantised",
    "backbone": "builds on a model of another library",
    "backbone_config": "builds on another model",
    "use_timm_backbone": "builds on a model of another library",
    "use_pretrained_backbone": "builds on another model's weights",
}

#: Ways to compute attention that transformers itself has; others are fetched from the hub, as code.
_ATTENTION = (None, "eager", "sdpa")

#: What a byte is multiplied by before its mean is subtracted: other factors are another input.
_RESCALE = 1 / 255


class HuggingFaceClassifier(nn.Module):
    """A model of transformers as a module from images to logits.

    Parameters
    ----------
    model : torch.nn.Module
        Called with `pixel_values`; returns something that holds `logits`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return logits."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def load_hugging_face(name: str, rest: str, download: bool) -> Known:
    """Return an image classifier of transformers, with mean and standard deviation of its processor.

    Raises
    ------
    ValueError
        One line, where it is not on this machine, keeps its weights in pickles, asks for code or another model, or is
        no image classifier.
    """
    from transformers import PreTrainedModel

    folder = Path(rest)
    if not folder.is_dir():
        if rest.startswith((".", "/", "~")) or rest.count("/") > 1 or not rest.strip("/"):
            raise ValueError(f"{name}: there is no such folder; expected hf:FOLDER or hf:OWNER/NAME")
        repository, _, revision = rest.partition("@")
        folder = hub_folder(name, repository, revision or None, download=download)
    config = _read(name, folder / _CONFIG)
    _check_weights(name, folder)
    _check_config(name, folder, config)
    model = _build(name, folder, config)
    labels = model.config.id2label
    if sorted(labels) != list(range(len(labels))):
        raise ValueError(f"{name}: its id2label does not number {len(labels)} classes from 0: correct {_CONFIG}")
    order = [str(labels[k]) for k in range(len(labels))]
    for part in model.modules():  # where a folder lay is no part of a model
        if isinstance(part, PreTrainedModel):
            part.name_or_path = part.config._name_or_path = ""
    return Known(HuggingFaceClassifier(model), _moments(name, folder), named(order))


def _read(name: str, file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"{name} has no {file.name}: name a folder that save_pretrained wrote")
    with one_line(f"{name}: {file.name} is damaged"):
        if file.stat().st_size > _MOST:
            raise ValueError(f"it has more than {_MOST:,} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
    return content


def _check_weights(name: str, folder: Path) -> None:
    if (folder / _WEIGHTS).is_file():
        return
    if (folder / _PARTS).is_file():
        parts = _read(name, folder / _PARTS).get("weight_map")
        for part in set(map(str, parts.values())) if isinstance(parts, dict) else {""}:
            if Path(part).name != part or not part.endswith(".safetensors") or not (folder / part).is_file():
                raise ValueError(f"{name}: {_PARTS} names {part[:80]!r}, which is no file of weights beside it")
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    held = f"only {pickles[0]}, a pickle, which is never read" if pickles else f"no {_WEIGHTS}"
    raise ValueError(
        f"{name} has {held}: where you trust it, load it with transformers and write it anew with save_pretrained"
    )


def _check_config(name: str, folder: Path, config: dict[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    remedy = "load it in a module of your own and name that, --model package.module:factory"
    if (folder / _ADAPTER).exists():
        raise ValueError(f"{name} is an adapter of another model: merge both, and save_pretrained the result")
    for key, value in _settings(config):
        if key in _REFUSED and value:
            raise ValueError(f"{name} {_REFUSED[key]} ({key} in its {_CONFIG}): {remedy}")
        if key.endswith("_implementation") and value not in _ATTENTION:
            raise ValueError(f"{name} asks for {key} = {str(value)[:60]!r}, which is code from elsewhere: {remedy}")
    kind = str(config.get("model_type"))[:60]
    if kind == "timm_wrapper":
        raise ValueError(f"{name} is a model of timm: name it timm:NAME, or its weights with --checkpoint and --arch")
    if kind not in KNOWN:
        raise ValueError(f"{name}: transformers has no image classifier of type {kind}{nearest(kind, KNOWN)}")


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all settings of a configuration, also those inside others."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _settings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _settings(inner)


def _build(name: str, folder: Path, config: dict[str, Any]) -> Any:
    """Build the model and read its weights, all of them and no others."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.utils import logging

    said = {key: value for key, value in config.items() if not key.endswith("_implementation")}
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity(CRITICAL)
        logging.disable_progress_bar()
        with (
            one_line(f"{name} cannot be loaded"),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            built = CONFIG_MAPPING[said["model_type"]].from_dict(said)
            model, report = transformers.AutoModelForImageClassification.from_pretrained(
                str(folder),
                config=built,
                dtype=torch.float32,
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    for what, key in (("lacks", "missing_keys"), ("has unknown", "unexpected_keys"), ("has other", "mismatched_keys")):
        if found := sorted(map(str, report.get(key) or ())):
            raise ValueError(f"{name} {what} weights, {found[0][:80]} for one: they are not this classifier's")
    broken = next((key for key, value in model.state_dict().items() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise ValueError(f"{name}: {broken} holds NaN or infinity; training diverged, take an earlier model")
    return model


def _moments(name: str, folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[()] | None:
    """Return mean and standard deviation of the processor; () where it has none, None where there is no processor."""
    if not (folder / _PROCESSOR).is_file():
        return None
    said = _read(name, folder / _PROCESSOR)
    factor = said.get("rescale_factor", _RESCALE)
    scaled = isinstance(factor, (int, float)) and math.isclose(factor, _RESCALE, rel_tol=1e-6)
    if not said.get("do_rescale", True) or not scaled or said.get("rescale_offset"):
        raise ValueError(
            f"{name}: its processor does not bring pixels into [0, 1] first: load it in a module of your own that does "
            "the same to pixels in [0, 1], and name that, --model package.module:factory"
        )
    if not said.get("do_normalize", True):
        return ()
    pair = said.get("image_mean"), said.get("image_std")
    if pair == (None, None):
        return None
    mean, sd = (_numbers(value) for value in pair)
    if not mean or len(mean) != len(sd) or not all(value > 0 for value in sd):
        raise ValueError(f"{name}: image_mean and image_std in {_PROCESSOR} are none: correct them")
    return mean, sd


def _numbers(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    plain = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)
    return tuple(float(each) for each in values) if plain and all(map(math.isfinite, values)) else ()
