import numpy as np
import torch

from training import AUGMENTATIONS


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_none_is_the_identity():
    images = torch.rand(3, 1, 4, 4)
    assert AUGMENTATIONS["none"](images, generator()) is images


def test_every_result_is_a_window_of_the_padded_image_or_its_mirror_image():
    images = torch.rand((200, 3, 32, 32), generator=generator(1)) + 0.5
    found = AUGMENTATIONS["crop-flip"](images, generator())
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    places = []
    for k in range(len(images)):
        windows = padded[k].unfold(1, 32, 1).unfold(2, 32, 1)  # (3, 9, 9, 32, 32)
        for mirrored, target in ((False, found[k]), (True, found[k].flip(2))):
            same = (windows == target[:, None, None]).all(dim=(0, 3, 4)).nonzero()
            places += [(int(a), int(b), mirrored) for a, b in same.tolist()]
    assert len(places) == len(images)  # exactly one place each
    down, right, mirrored = np.array(places).T
    assert set(down) == set(right) == set(range(9))  # missing one of nine in 200 draws: 5e-10
    assert 70 < mirrored.sum() < 130  # four standard deviations around 100


def test_the_generator_decides():
    images = torch.rand(20, 1, 8, 8)
    first, second, other = (AUGMENTATIONS["crop-flip"](images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
