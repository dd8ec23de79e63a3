"""What a run's folder holds, read as that of somebody who may lie, and what its settings say of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from regions.files import read_arrays
from smoothing.limits import MOST_LEVELS
from smoothing.reading import read_json
from srs.run.folder import CONFIG, MANIFEST, REGIONS, SUMMARY, read_description
from srs.run.run_settings import Experts, Listed, RunSettings
from srs.verify.geometry import in_bytes
from srs.verify.proofs import Chosen, Climb, Proof, Rule, choose, proof_of, votes_of_one
from srs.verify.rows import Cell, Table, cells_of

_SELECTION = ("idx", "label", "sigma", "clean", "n", "votes", "time")
_ESTIMATION = ("idx", "sigma", "n", "votes", "time")
_ROUTE = ("idx", "n", "votes", "time")
_OLD_SELECTION = ("idx", "label", "sigma", "clean", "class", "radius", "samples", "time")
_OLD_ESTIMATION = ("idx", "sigma", "class", "count", "n", "time")

#: The votes of a router: selection samples, and fresh ones.
ROUTES = ("router_selection.tsv", "router_estimation.tsv")

_MAP_FORMAT, _BYTES_FORMAT = "srs-region-map-1", "srs-region-map-2"

#: Rows of an array, or images, that are looked at together.
_ROWS = 256


@dataclass(frozen=True, eq=False)
class Described:
    """What a run says about itself; `summary` is what it said at its end."""

    folder: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    settings: RunSettings

    @property
    def old(self) -> bool:
        """Whether the run is of format 1, which kept votes for one class."""
        return bool(self.manifest["format"] == 1)

    @property
    def alpha(self) -> Fraction:
        """Failure probability, as the settings have it."""
        return Fraction(self.settings.alpha)

    @property
    def sigmas(self) -> list[float]:
        """The grid that the settings name."""
        levels = self.settings.levels
        if isinstance(levels, Experts):
            return list(levels.files)
        if isinstance(levels, Listed):
            return list(levels.sigmas)
        ends = (levels.sigma_min, levels.sigma_max, levels.sigma_step)
        if ends[0] == ends[1]:
            return [ends[0]]
        low, high, step = (Fraction(repr(float(value))) for value in ends)
        first, last = max(1, -(-low // step)), high // step
        if not first <= last < first + MOST_LEVELS:
            raise ValueError(f"config.yaml: names no noise levels, or more than {MOST_LEVELS:,}")
        return [float(t * step) for t in range(first, last + 1)]

    @property
    def routed(self) -> bool:
        """Whether a router names levels."""
        return self.settings.router is not None

    @property
    def has_regions(self) -> bool:
        """Whether images get regions."""
        return self.settings.classifier != "router"

    @property
    def mode(self) -> str:
        """What files call the run's overlap mode and method, whatever decides outside regions."""
        settings = self.settings
        if not self.has_regions:
            return "router-agreeing"
        how = settings.method if settings.method != "greedy" else settings.order or "ascending"
        return f"{settings.overlap}-{how}"

    @property
    def rungs(self) -> tuple[int, ...]:
        """After how many estimation samples their votes are kept."""
        return (*self.settings.rungs, self.settings.n)

    @property
    def lost(self) -> float:
        """What looking up the region of a float32 image may be off, and that image from a centre in bytes."""
        return (2.0**-24 * self._root if self.settings.sampler == "discrete" else 0.0) + self.off_centre

    @property
    def off_centre(self) -> float:
        """How far a float32 image may be from the centre of its region."""
        return 2.0**-25 * self._root if "centres" in self.manifest["data"] else 0.0

    @property
    def _root(self) -> float:
        return float(np.sqrt(np.prod(self.manifest["data"]["shape"])))


def read_described(folder: Path) -> Described:
    """Read what a run says about itself; `ValueError` where a file is damaged."""
    described = read_description(folder)
    summary = read_json(folder / SUMMARY, "restore it")
    return Described(folder, described.config, described.manifest, summary, described.settings)


def check_run(folder: Path) -> None:
    """Raise `ValueError` where there is no finished run."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name one that srs-certify wrote")
    if not (folder / CONFIG).is_file() or not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder}: holds no run; name a folder that srs-certify wrote")
    if not (folder / SUMMARY).is_file():
        raise ValueError(f"{folder}: the run has not come to its end; go on with srs-certify --resume")


@dataclass(frozen=True, eq=False)
class Routes:
    """How often a router named which level, for each of n images; classes of the cells are numbers of levels.

    Attributes
    ----------
    selection, estimation : list of Cell
    """

    selection: list[Cell]
    estimation: list[Cell]


@dataclass(frozen=True, eq=False)
class Rows:
    """The votes of a run: one entry for each of n images, with one for each of k levels where there are two.

    Attributes
    ----------
    idx, label : list of int
    clean : list of lists of int
        Class without noise at each level.
    selection : list of lists of Cell
    estimation : list of lists of Cell or None
        None where an image was not certified.
    level : list of int
        Where the run certifies each image.
    chosen : list of Chosen
        What follows from `selection`; of format 1 what its rows say.
    microseconds : list of int
        Time of each image, of choosing its level and certifying it there.
    stages : dict of str to int
        Microseconds of "select" and "certify", of all images, and of "route" where a router voted.
    routes : Routes or None
        None where no network votes for levels.
    """

    idx: list[int]
    label: list[int]
    clean: list[list[int]]
    selection: list[list[Cell]]
    estimation: list[list[Cell | None]]
    level: list[int]
    chosen: list[Chosen]
    microseconds: list[int]
    stages: dict[str, int]
    routes: Routes | None = None

    @property
    def everywhere(self) -> list[int]:
        """The levels that every image was certified at."""
        k = len(self.clean[0])
        return [at for at in range(k) if all(cells[at] is not None for cells in self.estimation)]

    def proof(self, image: int, at: int, alpha: Fraction, rungs: int, *, two_sided: bool = True) -> Proof:
        """Return what an image's estimation votes prove at a level where it was certified."""
        cell, chosen = self.estimation[image][at], self.chosen[image]
        if cell is None:
            raise ValueError(f"image {self.idx[image]} was not certified at that level")
        return proof_of(cell, chosen.classes[at], alpha, chosen.shares[at] if two_sided else 0.0, rungs)


def rule_of(run: Described) -> Rule:
    """Return how the settings say that levels are chosen."""
    settings, images = run.settings, run.manifest["data"]["images"]
    return Rule(
        settings.rule,
        settings.n0,
        settings.n,
        run.alpha / images if settings.overlap == "class" else run.alpha,
        run.manifest["data"]["num_classes"],
        settings.racing,
        settings.bound == "runner-up",
        settings.overlap == "joint",
    )


def read_rows(run: Described) -> Rows:
    """Read the tables of votes; `ValueError` where they are not of these settings."""
    sigmas, classes, folder = run.sigmas, run.manifest["data"]["num_classes"], run.folder
    n, k, rule = run.manifest["data"]["images"], len(sigmas), rule_of(run)
    levels = Table(folder / "levels.tsv", ("idx", "sigma"))
    idx, sigma = levels.wholes("idx"), levels.numbers("sigma")
    if len(idx) != n or len(set(idx)) != n or min(idx) < 0:
        raise ValueError(f"levels.tsv: holds {len(idx)} rows of {len(set(idx))} images, and the manifest says {n}")
    if not set(sigma) <= set(sigmas):
        raise ValueError("levels.tsv: has noise levels that the settings do not name")
    level = [sigmas.index(value) for value in sigma]

    table = Table(folder / "selection.tsv", _OLD_SELECTION if run.old else _SELECTION)
    _check_count(table, n * k)
    every = [(image, at) for image in range(n) for at in range(k)]
    _check_places(table, idx, sigmas, every)
    label = _in_rows(table.wholes("label"), k)
    clean = _in_rows(_ranged(table, "clean", classes), k)
    if any(len(set(row)) > 1 or not 0 <= row[0] < classes for row in label):
        raise ValueError("selection.tsv: an image has several labels, or one that is no class")
    if run.old:
        named, radius = (_in_rows(list(column), k) for column in (_ranged(table, "class", classes),
                                                                  table.numbers("radius")))  # fmt: skip
        drawn = _ranged(table, "samples", rule.n0 + 1)
        selection = _in_rows([votes_of_one(count, count, 0) for count in drawn], k)
        chosen = [Chosen(one, [0.0] * k, list(map(float, row)), list(map(float, row)))
                  for one, row in zip(named, radius, strict=True)]  # fmt: skip
    else:
        selection = _in_rows(cells_of(table, rule.rungs, classes), k)
        chosen = [choose(cells, sigmas, rule) for cells in selection]
    seconds = _in_rows(_known(table), k)

    where = [(image, level[image]) for image in range(n)] if run.settings.chosen_only else every
    table = Table(folder / "estimation.tsv", _OLD_ESTIMATION if run.old else _ESTIMATION)
    _check_places(table, idx, sigmas, where)
    cells = _old_cells(table, where, chosen, run.settings.n) if run.old else cells_of(table, run.rungs, classes)
    estimation: list[list[Cell | None]] = [[None] * k for _ in range(n)]
    times = [[0] * k for _ in range(n)]
    for (image, at), cell, time in zip(where, cells, _known(table), strict=True):
        estimation[image][at], times[image][at] = cell, time
    stages = {"select": sum(map(sum, seconds)), "certify": sum(map(sum, times))}
    routes = None
    if (run.manifest.get("router") or {}).get("sigma") is not None:
        routes, stages["route"] = _routes(run, idx)
    return Rows(
        idx,
        [row[0] for row in label],
        clean,
        selection,
        estimation,
        level,
        chosen,
        [sum(mine) + times[image][level[image]] for image, mine in enumerate(seconds)],
        stages,
        routes,
    )


def _routes(run: Described, idx: list[int]) -> tuple[Routes, int]:
    """Read the votes of a router, and their time."""
    cells, time = [], 0
    for name, n in zip(ROUTES, (run.settings.n0, run.settings.n), strict=True):
        table = Table(run.folder / name, _ROUTE)
        if table.wholes("idx") != idx:
            raise ValueError(f"{name}: holds rows of other images, or in another order")
        cells.append(cells_of(table, (n,), len(run.sigmas)))
        time += sum(_known(table))
    return Routes(*cells), time


def _in_rows(values: list[Any], k: int) -> list[list[Any]]:
    return [values[start : start + k] for start in range(0, len(values), k)]


def _ranged(table: Table, name: str, end: int) -> list[int]:
    values = table.wholes(name)
    for row, value in enumerate(values):
        if not 0 <= value < end:
            raise table.error(row, f"{name} = {value}: must be from 0 to {end - 1}")
    return values


def _known(table: Table) -> list[int]:
    """Return the times of a table of votes, which are all known."""
    found = []
    for row, value in enumerate(table.microseconds("time")):
        if value is None:
            raise table.error(row, "time is not known")
        found.append(value)
    return found


def _check_count(table: Table, count: int) -> None:
    if table.rows != count:
        raise ValueError(f"{table.name}: holds {table.rows:,} rows where there must be {count:,}")


def _check_places(table: Table, idx: list[int], sigmas: list[float], where: list[tuple[int, int]]) -> None:
    """Raise unless the rows are those of these images at these levels, in this order."""
    found = list(zip(table.wholes("idx"), table.numbers("sigma"), strict=True))
    if found != [(idx[image], sigmas[at]) for image, at in where]:
        raise ValueError(f"{table.name}: holds rows of other images or noise levels, or in another order")


def _old_cells(table: Table, where: list[tuple[int, int]], chosen: list[Chosen], n: int) -> list[Cell]:
    classes, counts, drawn = table.wholes("class"), table.wholes("count"), table.wholes("n")
    for row, (image, at) in enumerate(where):
        if classes[row] != chosen[image].classes[at] or drawn[row] != n or not 0 <= counts[row] <= n:
            raise table.error(row, "is not of the class of selection.tsv, or has other numbers than the settings say")
    return [votes_of_one(count, n, one) for one, count in zip(classes, counts, strict=True)]


def climb_of(run: Described) -> Climb:
    """Return how the settings say when to stop drawing."""
    settings = run.settings
    gain = 0.05 if settings.min_gain is None else settings.min_gain
    return Climb(run.rungs, gain, settings.target_loss)


@dataclass(frozen=True, eq=False)
class Map:
    """What `regions.npz` holds; classes are -1 where nothing is certified."""

    centres: Float64[np.ndarray, "n d"] | UInt8[np.ndarray, "n d"]
    radii: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    classes: np.ndarray
    stored_hash: str

    @property
    def content_hash(self) -> str:
        """SHA-256 of format, shapes and numbers."""
        name = _BYTES_FORMAT + "255 bytes" if in_bytes(self.centres) else _MAP_FORMAT
        digest = hashlib.sha256(name.encode())
        for array in (self.centres, self.radii, self.sigma, self.classes):
            digest.update(str(array.shape).encode())
            for start in range(0, len(array), _ROWS):
                part = array[start : start + _ROWS]
                digest.update(part.astype(part.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def read_map(run: Described) -> Map:
    """Read `regions.npz`; `ValueError` where it is damaged, or not about so many images of this shape."""
    file, data = run.folder / REGIONS, run.manifest["data"]
    if not file.exists():
        raise ValueError(f"{REGIONS}: no such file")
    as_bytes = "centres" in data  # which the manifest's reader saw to be "uint8"
    arrays = read_arrays(file, mapped=("centres",) if as_bytes else ())
    n, d = data["images"], int(np.prod(data["shape"]))
    names = {"centres": (n, d), "radii": (n,), "sigma": (n,), "classes": (n,), "format": (), "content_hash": ()}
    names |= {"divisor": ()} if as_bytes else {}
    for name, shape in names.items():
        if name not in arrays or arrays[name].shape != shape:
            raise ValueError(f"{REGIONS}: has no array {name} of shape {shape}")
    if as_bytes and (arrays["centres"].dtype != np.uint8 or arrays["divisor"].tolist() != 255):
        raise ValueError(f"{REGIONS}: centres are no bytes, to be divided by 255")
    for name in ("radii", "sigma") if as_bytes else ("centres", "radii", "sigma"):
        if arrays[name].dtype != np.float64 or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{REGIONS}: {name} are no finite float64 numbers")
    if (arrays["radii"] < 0).any() or arrays["classes"].dtype != np.int64:
        raise ValueError(f"{REGIONS}: has radii below 0, or classes that are no whole numbers")
    wanted = _BYTES_FORMAT if as_bytes else _MAP_FORMAT
    if str(arrays["format"]) != wanted or arrays.keys() != names.keys():
        raise ValueError(f"{REGIONS}: is not of format {wanted}, or holds {', '.join(arrays.keys() - names.keys())}")
    return Map(
        arrays["centres"], arrays["radii"], arrays["sigma"], arrays["classes"], stored_hash=str(arrays["content_hash"])
    )


def hash_of_images(run: Described, rows: Rows, found: Map) -> str | None:
    """Return the hash of images, indices and labels, as the manifest has it; None where images are not float32."""
    digest = hashlib.sha256(f"{(len(found.centres), *run.manifest['data']['shape'])} float32".encode())
    for start in range(0, len(found.centres), _ROWS):
        part = found.centres[start : start + _ROWS]
        images = part.astype(np.float32)
        if in_bytes(part):
            images = images / np.float32(255)
        elif not np.array_equal(images.astype(np.float64), part):
            return None
        digest.update(images.tobytes())
    for array in (np.array(rows.idx, dtype=np.int64), np.array(rows.label, dtype=np.int64)):
        digest.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()
