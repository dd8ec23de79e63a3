"""What a base classifier does without noise."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from smoothing._validate import check_array, check_labels
from smoothing.forward import evaluating, one_line, refuse_lazy, run
from smoothing.identity import own_passes
from smoothing.machine import usable_device
from training.byte_images import ByteImages
from training.data import ImageData, Images, StreamedImages


@torch.no_grad()
def accuracy(
    model: nn.Module,
    images: Images,
    labels: Int64[np.ndarray, " n"],
    *,
    device: str | torch.device = "cpu",
) -> float:
    """Return the fraction of images, without noise, that the model classifies correctly; in [0, 1].

    The model gets copies of the images, and may return its logits as `run` takes them.
    """
    if not isinstance(images, ByteImages | StreamedImages):
        images = check_array("images", images)
    labels = check_labels(labels)
    device = usable_device(device)
    with one_line(f"the model cannot be moved to {device}"):
        model.to(device)
    evaluating(model)
    right = 0
    with own_passes(model):
        for start in range(0, len(labels), 1024):
            part = slice(start, start + 1024)
            x = torch.from_numpy(np.ascontiguousarray(images[part], dtype=np.float32)).to(device)
            predicted = run(model, x).argmax(dim=1).cpu().numpy()
            right += int((predicted == labels[part]).sum())
    return right / len(labels)


@torch.no_grad()
def check_fit(model: nn.Module, data: ImageData, name: str) -> None:
    """Raise where the model does not take a data set's images, or does not return a logit for each of its classes.

    Parameters
    ----------
    model : torch.nn.Module
        On the CPU; left in evaluation mode.
    data : ImageData
    name : str
        What the message calls the model.

    Raises
    ------
    ValueError
        One line: the model's name, and the images or classes that it does not fit.
    """
    image = torch.from_numpy(data.test_images[:1])
    size = "x".join(map(str, image.shape[1:]))
    try:
        refuse_lazy(model)
        evaluating(model)
        with own_passes(model):
            logits = run(model, image)
    except ValueError as error:
        raise ValueError(f"{name} does not take {data.name}'s images of {size}: {error}") from error
    shape = tuple(logits.shape)
    if shape != (1, data.num_classes):
        raise ValueError(
            f"{name} returns {shape} for one image of {data.name}, which has {data.num_classes} classes: they do not "
            "belong together"
        )
