"""Images, levels, classes and indices as any array that has one meaning."""

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from smoothing import SmoothedClassifier

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 5)).astype(np.float32) / np.float32(
    256
)  # exact in float16

SAME = {
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "long double": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian float64": lambda x: x.astype(">f8"),
    "Fortran order": np.asfortranarray,
    "backwards": lambda x: x[::-1].copy()[::-1],
    "mirrored": lambda x: x[..., ::-1].copy()[..., ::-1],
    "every other": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "nested lists": lambda x: x.tolist(),
    "list of arrays": list,
    "list of tensors": lambda x: [torch.from_numpy(image) for image in x],
    "lists of lists of tensors": lambda x: [[torch.from_numpy(channel) for channel in image] for image in x],
    "tensor": torch.from_numpy,
    "tensor with gradients": lambda x: torch.from_numpy(x).requires_grad_(),
    "tensors with gradients": lambda x: [torch.from_numpy(image).requires_grad_() for image in x],
    "half tensor": lambda x: torch.from_numpy(x).half(),
    "bfloat16 tensor": lambda x: torch.from_numpy(x).bfloat16(),
    "transposed tensor": lambda x: torch.from_numpy(np.ascontiguousarray(x.T)).permute(3, 2, 1, 0),
    "parameter": lambda x: nn.Parameter(torch.from_numpy(x)),
}


class Keeps(nn.Module):
    """Keeps the last batch of images that it was given."""

    def forward(self, images):
        self.batch = images
        return torch.zeros(len(images), 3)


@pytest.mark.parametrize("same", SAME.values(), ids=SAME)
def test_images_come_as_any_array(same):
    given, model = same(PIXELS), Keeps()
    SmoothedClassifier(model, 3, threads=1, channels_last=False).base_predict(given, [0.25])
    found = model.batch[: len(PIXELS)]
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    expected = (
        torch.from_numpy(PIXELS).bfloat16().float() if same is SAME["bfloat16 tensor"] else torch.from_numpy(PIXELS)
    )
    assert torch.equal(found, expected)


REFUSED = {
    "masked": (np.ma.masked_array(PIXELS, mask=PIXELS > 0.5), "images: a masked array, whose mask would be lost"),
    "masked without a mask": (np.ma.masked_array(PIXELS), "images: a masked array"),
    "list of masked": ([np.ma.masked_array(image) for image in PIXELS], "images: a masked array"),
    "complex": (PIXELS * 1j, "images: type complex64, expected real numbers"),
    "complex tensor": (torch.from_numpy(PIXELS) * 1j, "images: type complex64"),
    "objects": (PIXELS.astype(object), "images: type object"),
    "dates": (np.zeros((1, 1, 2, 2), dtype="datetime64[s]"), r"images: type datetime64\[s\]"),
    "text": ([[[["0.5"]]]], "images: type <U3"),
    "bytes": ((PIXELS * 255).astype(np.uint8), "images have type uint8: divide 8-bit pixels by 255"),
    "bools": (PIXELS > 0.5, "images have type bool"),
    "ragged": ([[[[0.5, 0.5], [0.5]]]], "images: .*expected numbers"),
    "tensors of two shapes": ([torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)], "images: .*expected numbers"),
    "sparse": (torch.from_numpy(PIXELS).to_sparse(), "images: .*expected numbers"),
    "one image": (PIXELS[0], r"images have shape \(2, 4, 5\)"),
    "a number": (0.5, r"images have shape \(\)"),
    "nothing": (None, "images: type object"),
    "just above 1 as float64": (np.full((1, 1, 1, 1), 1 + 1e-12), r"images\[0, 0, 0, 0\] = 1: pixels"),
}


@pytest.mark.parametrize(("images", "message"), REFUSED.values(), ids=REFUSED)
def test_images_without_one_meaning_are_refused_in_one_line(monkeypatch, images, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as for those who do not test
    with pytest.raises(ValueError, match=message) as caught:
        SmoothedClassifier(Keeps(), 3).base_predict(images, [0.25])
    assert "\n" not in str(caught.value)


def test_numbers_beside_images_come_as_any_array():
    smoothed = SmoothedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(40, 3)), 3, threads=1)
    plain = smoothed.certify_classes(PIXELS, [0.25, 0.5, 0.75], [0, 1, 2], n=50, indices=[4, 5, 6])
    for sigma, classes, indices in (
        (np.array([0.25, 0.5, 0.75], dtype=">f8"), np.array([2, 1, 0], dtype=">i4")[::-1], torch.tensor([4, 5, 6])),
        (
            torch.tensor([0.25, 0.5, 0.75], dtype=torch.bfloat16),
            torch.tensor([0, 1, 2]),
            np.array([4, 5, 6], dtype=">u2"),
        ),
        ([torch.tensor(0.25), torch.tensor(0.5), torch.tensor(0.75)], np.array([0, 1, 2], dtype=np.uint8), [4, 5, 6]),
    ):
        found = smoothed.certify_classes(PIXELS, sigma, classes, n=50, indices=indices)
        np.testing.assert_array_equal(found.counts, plain.counts)
        np.testing.assert_array_equal(found.radius, plain.radius)


@pytest.mark.parametrize("name", ["sigma", "classes", "indices"])
def test_masks_beside_images_are_not_lost(name):
    smoothed = SmoothedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(40, 3)), 3, threads=1)
    arguments = {"sigma": np.full(3, 0.25), "classes": np.zeros(3, dtype=int), "indices": np.arange(3)}
    arguments[name] = np.ma.masked_array(arguments[name], mask=[False, True, False])
    with pytest.raises(ValueError, match=f"{name}: a masked array, whose mask would be lost"):
        smoothed.certify_classes(PIXELS, n=50, **arguments)
