"""A pass with noise made where the model runs: only images go there, and nothing comes back before the end."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from smoothing._voting.device_noise import DeviceNoise
from smoothing._voting.places import Batch, Segments
from smoothing._voting.probing import NOT_FINITE
from smoothing._voting.samplers import Noise
from smoothing._voting.task import Task


def count_on_device(
    task: Task,
    segments: Segments,
    noise: Noise,
    logits: Callable[[Float32[Tensor, "b c h w"]], Float[Tensor, "b classes"]],
    cut: Sequence[Batch],
    *,
    device: torch.device,
    how: str,
) -> Int64[np.ndarray, " cells"] | None:
    """Return the votes for all classes of all images and levels, in one row.

    None where 64 random bits did not decide a pixel of the discrete noise: then the pass is made on the host, where
    further bits do. That happens with a probability of about s 2**-60 per pixel, s = 255 sigma.

    Parameters
    ----------
    task, segments
        What is asked for, and in which order.
    noise : Noise
    logits : callable
        Returns the logits of noisy images, which it may change.
    cut : sequence of Batch
        How the places of the pass are cut into batches.
    device : torch.device
    how : str
        The way of making noise, one of `device_noise.WAYS`.

    Raises
    ------
    ValueError
        Where logits are no numbers; known at the end of the pass.
    """
    grid, places = np.unique(task.sigma, return_inverse=True)
    images = torch.from_numpy(task.images).permute(0, 3, 1, 2)
    source = DeviceNoise(noise, images, task.indices, grid, task.stage, device, how)

    def there(values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    row, first, offset = there(segments.row), there(segments.first), there(segments.offset)
    level = there(places.reshape(task.sigma.shape)[segments.row, segments.level])
    cell = there(task.cell(segments.row, segments.level))
    cells = task.sigma.size * task.num_classes
    found = torch.zeros(cells + 3, dtype=torch.int64, device=device)  # votes; not counted; no numbers; ties
    ones = torch.ones(max((batch.size for batch in cut), default=0), dtype=torch.int64, device=device)
    for batch in cut:
        place = torch.arange(batch.begin, batch.begin + batch.size, device=device)
        counted = place < batch.end
        segment = torch.searchsorted(offset, place.clamp(max=batch.end - 1), right=True) - 1
        sample = first[segment] + place.clamp(max=batch.end - 1) - offset[segment]
        answer = logits(source.fill(row[segment], sample, level[segment]))
        found[cells + 1] += (counted & ~torch.isfinite(answer.amax(dim=1))).sum()
        votes = torch.where(counted, cell[segment] + answer.argmax(dim=1), cells)
        found.scatter_add_(0, votes, ones[: batch.size])
    found[cells + 2] = source.undecided
    answers: Int64[np.ndarray, " cells+3"] = found.cpu().numpy()
    if answers[cells + 1]:
        raise ValueError(NOT_FINITE)
    return None if answers[cells + 2] else answers[:cells]
