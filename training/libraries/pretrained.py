"""Published weights of timm and torchvision, from the caches that these libraries use."""

from pathlib import Path

import torch

from smoothing.forward import FAILURES, reason
from training.checkpoints import load_checkpoint
from training.libraries.architectures import timm_name, torchvision_name
from training.libraries.hub import hub_file, sha256_of
from training.libraries.known import Known
from training.libraries.labels import named

#: What timm calls a model's weights on the hub.
_WEIGHTS = "model.safetensors"


def load_timm(name: str, rest: str, download: bool) -> Known:
    """Return a model of timm with the weights of its tag, or of its default one, from the hub's cache."""
    import timm

    config = timm.get_pretrained_cfg(timm_name(name, rest))
    if config is None or not config.hf_hub_id or config.custom_load or config.label_offset or config.hf_hub_filename:
        raise ValueError(
            f"{name} has no weights in a safetensors file on the hub: name a file of yours, --checkpoint FILE --arch "
            f"timm:{rest.partition('.')[0]}"
        )
    file = hub_file(name, config.hf_hub_id, _WEIGHTS, download=download)
    net = load_checkpoint(file, arch=f"timm:{config.architecture}", normalizer="none", num_classes=config.num_classes)
    labels = named(config.label_names) if config.label_names else _synsets(config.num_classes)
    return Known(net, (tuple(config.mean), tuple(config.std)), labels)


def _synsets(num_classes: int) -> tuple[str, ...] | None:
    """Return the names of ImageNet's classes where there are as many: timm's weights keep WordNet's order."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    count = info.num_classes()
    return tuple(info.index_to_description(k) for k in range(count)) if count == num_classes else None


def load_torchvision(name: str, rest: str, download: bool) -> Known:
    """Return a classifier of torchvision with its default weights, or with those named behind an @."""
    from torchvision import models

    arch, at, wanted = rest.partition("@")
    known = models.get_model_weights(torchvision_name(name, arch))
    if at and wanted not in known.__members__:
        raise ValueError(
            f"{name}: torchvision has no weights {wanted!r} of {arch}: choose {', '.join(known.__members__)}"
        )
    weights = known[wanted] if at else known.DEFAULT
    processing = weights.transforms()
    file = _torchvision_file(name, weights.url, download)
    labels = tuple(weights.meta["categories"])
    net = load_checkpoint(file, arch=f"torchvision:{arch}", normalizer="none", num_classes=len(labels))
    return Known(net, (tuple(processing.mean), tuple(processing.std)), named(labels))


def _torchvision_file(name: str, url: str, download: bool) -> Path:
    """Return the file of weights in PyTorch's cache, where the name of each holds the beginning of its hash."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    prefix = file.stem.rpartition("-")[2]
    if not file.is_file():
        if not download:
            raise ValueError(
                f"{name}: {file} is not there, and nothing is fetched unasked: add --download, or put {url} there"
            )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=prefix, progress=False)
        except MemoryError:
            raise
        except FAILURES as error:
            raise ValueError(f"{name} cannot be fetched ({reason(error)}): see to the network") from error
    if not sha256_of(file).startswith(prefix):
        raise ValueError(f"{file} is damaged: its hash does not begin with {prefix}; remove it, and fetch it anew")
    return file
