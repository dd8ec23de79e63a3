"""New networks of timm and torchvision, with initial weights: nothing is read and nothing downloaded."""

from torch import nn

from smoothing.forward import one_line
from training.libraries.names import ARCHITECTURE_KINDS, nearest, split


def architecture(name: str, num_classes: int) -> nn.Module:
    """Return a network with initial weights from PyTorch's global random state, without a normaliser.

    Parameters
    ----------
    name : str
        `timm:NAME` or `torchvision:NAME`.
    num_classes : int

    Raises
    ------
    ValueError
        For a name that the library does not know, and a kind that comes with its weights.
    """
    kind, rest = split(name)
    if kind not in ARCHITECTURE_KINDS:
        raise ValueError(f"{name}: comes with its weights: it is no architecture; certify it with --model {name}")
    known = timm_name(name, rest) if kind == "timm" else torchvision_name(name, rest)
    with one_line(f"{name}: cannot be built for {num_classes} classes"):
        return (_timm if kind == "timm" else _torchvision)(known, num_classes)


def timm_name(name: str, rest: str) -> str:
    """Return the name of a model of timm, perhaps with the tag of its weights; raise `ValueError` for another."""
    import timm

    if ":" in rest:  # a place of weights, such as hf-hub:OWNER/NAME
        raise ValueError(
            f"{name}: only names of timm's own list are taken: fetch model.safetensors yourself, and give --checkpoint "
            "FILE --arch timm:NAME --normalizer NAME"
        )
    base, dot, tag = rest.partition(".")
    if not base or not timm.is_model(base):
        raise ValueError(f"{name}: timm has no {base}{nearest(base, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(base)]
    if dot and tag not in tags:
        choice = f": choose {', '.join(tags)}" if tags else ", nor any other"
        raise ValueError(f"{name}: timm has no weights {tag!r} of {base}{choice}")
    return rest


def torchvision_name(name: str, rest: str) -> str:
    """Return the name of a classifier of torchvision; raise `ValueError` for another."""
    from torchvision import models

    known = models.list_models(module=models)
    if rest not in known:
        raise ValueError(f"{name}: torchvision has no classifier {rest}{nearest(rest, known)}")
    return rest


def _timm(name: str, num_classes: int) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return net


def _torchvision(name: str, num_classes: int) -> nn.Module:
    from torchvision import models

    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    net: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return net
