"""Points that provably lie inside an open ball, as the float32 pixels that they are."""

import numpy as np
from jaxtyping import Float32, Float64


def distance_above(x: Float64[np.ndarray, "m d"], z: Float32[np.ndarray, "m d"]) -> Float64[np.ndarray, " m"]:
    """Return l2 distances of pairs of points, rounded up: never below the exact distance.

    A difference, its square and the root are each off by a unit roundoff u = 2^-53, relatively, and a sum of d numbers
    >= 0 by (d - 1) u: together less than (d + 4) u. What is added is more than twice that.
    """
    found = np.sqrt(np.sum((x - z.astype(np.float64)) ** 2, axis=1))
    return np.asarray(found * (1 + (x.shape[1] + 8) * 2.0**-52))


def settled(
    x: Float64[np.ndarray, "m d"], z: Float64[np.ndarray, "m d"], radius: Float64[np.ndarray, " m"], grid: int | None
) -> Float32[np.ndarray, "m d"]:
    """Return points near z that G accepts: pixels in [0, 1], as float32, and inside the balls if those hold any.

    Parameters
    ----------
    x : array of shape (m, d)
        Centres, in [0, 1] and float32 numbers.
    z : array of shape (m, d)
    radius : array of shape (m,)
        Of the balls. Which points lie inside is for `distance_above` to say.
    grid : int, optional
        Pixels have to be whole multiples of 1 / grid. Centres are, as float32.
    """
    delta = np.clip(z, 0, 1) - x
    length = np.sqrt(np.sum(delta**2, axis=1))
    # rounding to float32 moves a pixel by at most 2^-25, and on a grid what is cut off brings it nearer to the centre
    room = np.maximum(radius * (1 - 1e-9) - 2.0**-23 * np.sqrt(x.shape[1]), 0.0)
    scale = np.minimum(1.0, room / np.maximum(length, 1e-300))
    moved = x + delta * scale[:, None]
    if grid is None:
        return np.asarray(np.clip(moved, 0, 1), dtype=np.float32)
    centre = np.rint(x * grid)
    steps = np.trunc((moved - x) * grid + np.copysign(1e-6, moved - x))
    return np.asarray(np.clip(centre + steps, 0, grid).astype(np.float32) / np.float32(grid))
