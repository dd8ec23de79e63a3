"""Numbers for every image, computed in chunks by all processes, and kept through kills."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from smoothing.machine import processes
from smoothing.progress import Counter, Progress

if TYPE_CHECKING:
    from accelerate import PartialState

#: Images between two writes. No number depends on it.
CHUNK_IMAGES = 256

#: Added to training images' indices, so that their noise is not that of the test images of the same index.
FIRST_INDEX = 2**31


def in_chunks(
    compute: Callable[[Int64[np.ndarray, " b"]], Float64[np.ndarray, "b width"]],
    n: int,
    width: int,
    *,
    title: str,
    partial: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> Float64[np.ndarray, "n width"]:
    """Return `width` numbers for each of n images; the processes share the images, and all get all numbers.

    Parameters
    ----------
    compute : callable
        Returns the numbers of the images with these row numbers.
    n, width : int
    title : str
        What the bar calls it.
    partial : path, optional
        A file that grows with the numbers; called again after an interruption, the work goes on where it was. Under
        several processes each has one, with its rank added to the name.
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.
    """
    group = processes()
    mine = np.array_split(np.arange(n), group.num_processes)[group.process_index]
    file = None if partial is None else Path(f"{partial}.{group.process_index}-of-{group.num_processes}")
    found = _resumed(file, len(mine), width)
    with Counter(group.is_main_process and progress, title, len(mine), len(found)) as counter:
        for start in range(len(found), len(mine), CHUNK_IMAGES):
            rows = mine[start : start + CHUNK_IMAGES]
            fresh = compute(rows)
            found = np.concatenate([found, fresh])
            if file is not None:
                with file.open("ab") as stream:
                    stream.write(fresh.astype("<f8").tobytes())
            counter.advance(len(rows))
    return _gathered(found, group)


def _resumed(file: Path | None, n: int, width: int) -> Float64[np.ndarray, "done width"]:
    """Return the whole chunks that an earlier attempt wrote, and cut off a torn one."""
    if file is None or not file.exists():
        return np.empty((0, width))
    size = 8 * width
    done = np.frombuffer(file.read_bytes()[: file.stat().st_size // size * size], dtype="<f8").reshape(-1, width)
    whole = n if len(done) >= n else len(done) // CHUNK_IMAGES * CHUNK_IMAGES
    os.truncate(file, size * whole)
    return done[:whole].astype(np.float64)


def _gathered(found: Float64[np.ndarray, "mine width"], group: "PartialState") -> Float64[np.ndarray, "n width"]:
    if group.num_processes == 1:
        return found
    from accelerate.utils import gather_object

    return np.concatenate([np.asarray(part) for part in gather_object([found])])
