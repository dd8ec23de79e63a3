"""What `srs-allocate` can be told. Imports nothing heavy: the help is printed from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Order = Literal["ascending", "descending", "arrival"]


@dataclass(frozen=True)
class AllocateSettings:
    """What `srs-allocate` can be told."""

    points: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[POINTS]")] = None
    """Points x_j: an array (n, d), or images (n, ...) to be flattened; or a table, .csv, .tsv or .parquet. With --logs:
    the whole test set, image idx in row idx, pixels in [0, 1] or 8-bit."""
    radii: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[R]")] = None
    """Upper bounds R_j: an array (n,), finite and >= 0, or a column of the table. Default: the array or column R or
    radii beside the points."""
    columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Columns of the table that hold the coordinates. Default: x, y, z, as far as there are such, or x0, x1, ..."""
    out: Path | None = None
    """File for the result: .npz, or a table (.csv, .tsv, .parquet) of all columns and the radii. With --logs a folder.
    Default: allocation.npz, allocation.csv where POINTS is .csv, and so on; or the folder allocation."""
    radius_column: str = "radius"
    """Column of the radii in a table that is written."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also draw the balls, in two dimensions: .svg, .png or .pdf. One array of --groups gives them colours."""
    overwrite: bool = False
    """Replace what --out and --plot name."""
    method: Literal["lp", "matching", "greedy", "max-min", "auto"] = "lp"
    """lp: the optimum of Eq. 10, with a proven bound. matching: the same for equal weights, much faster.
    greedy: Eq. 11, one ball after the other. max-min: the fairest radii, smallest first. auto: matching or lp, and the
    status says why."""
    order: Order | None = None
    """Order of greedy: by degree in the overlap graph, or as the points arrive. Default: ascending."""
    groups: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Files of labels (n,), or columns of the table: points that share a label in any of them may overlap. Default:
    every pair conflicts."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File of weights (n,) of the radii in the objective, or a column of the table. Default: all 1."""
    r_min: Annotated[float | None, tyro.conf.arg(metavar="RADIUS")] = None
    """Least radius of every ball. Where no radii are that large, two points that forbid it are named."""
    reserve: bool = False
    """greedy leaves every later ball half of what it could have: at least half of the optimum, in any order."""
    solver: Literal["highs", "cvxpy"] | None = None
    """Solver of lp. Default: highs."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds for the solver; when they are over, the best radii at hand are used, with a warning."""
    search: Literal["auto", "faiss", "blocks", "tree"] = "auto"
    """How pairs that overlap are found; the result is the same. faiss: FAISS's range search of a flat index. blocks:
    matrix products. tree: k-d trees, slow in many dimensions. auto: what is likely to be fastest. Indexes that may miss
    a pair (IVF, HNSW, PQ, float16) are not offered."""
    parallel: int | str | None = None
    """Share the work out among so many processes (-1: all), or name a backend of joblib that is set up."""
    compare: bool = False
    """Also print a table of lp, the greedy orders, and the sum of R that ignores overlaps."""
    verify: bool = False
    """Check the result pair by pair with code that shares nothing with the solver."""
    logs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Certification logs, one for each noise level, of the same images."""
    sigmas: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SIGMA ...")] = ()
    """Noise level sigma of each log, in order. Default: read off the names, as in NOISE_0.25.tsv."""
    dataset: str | None = None
    """Whose test images the logs are about, as srs-certify's --dataset: mnist, cifar10, imagefolder:PATH, hf:PATH and
    so on."""
    data_dir: Path = Path("data")
    """Folder that holds MNIST/raw, FashionMNIST/raw, cifar-10-batches-py, cifar-100-python or test_32x32.mat."""
    image_size: int | None = None
    """Side in pixels that pictures of a folder or of a factory are scaled and cropped to."""
    image_order: Literal["sorted", "class"] = "sorted"
    """What idx means in a folder. sorted: the place in the list of all files, by class, then name. class: the k-th
    image of a class in the logs is the k-th file of its class."""
    indices: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Only the images of the logs with these idx: whole numbers, one a line, or an array in a .npy file."""
    rule: Literal["max-radius", "anchor"] = "anchor"
    """What chooses each image's level from its certificates. max-radius: the largest radius (Eq. 7). anchor: the same,
    among levels that agree in class with the smallest that certifies one, which is better where each level has a
    network of its own. --overlap joint chooses among these too."""
    rounding: Literal["half", "unit", "none"] = "half"
    """What is taken off printed radii, in units of their last digit: they were rounded, half of them up."""
    n: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Estimation samples per image behind the logs, or behind each, in order. With --alpha, votes are recovered from
    the radii, and the level's choice and class groups get the confidence they need. Only for one-sided certificates,
    sigma Phi^-1(p_A), which nearly all programs make; ours with --bound top-class."""
    alpha: Annotated[tuple[float, ...], tyro.conf.arg(metavar="ALPHA ...")] = ()
    """Failure probability per image behind the logs, or behind each, in order: the smallest is certified."""
    overlap: Literal["paper", "sigma", "joint", "class"] | None = None
    """Which regions must not overlap. paper: any two. sigma: two of different sigma. joint: the same, sigma chosen
    together with the radii. class: two of different sigma and class (needs --n and --alpha). Default: paper."""
