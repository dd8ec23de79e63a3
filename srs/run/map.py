"""The region map of a finished run: that it is the run's own, and that its regions keep apart."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from regions import RegionMap
from smoothing.drawing.stages import Table
from smoothing.reading import read_json
from smoothing.storage import whole_lines
from smoothing.tables import COLUMNS, floor_text
from srs.geometry import DIVISOR, is_bytes
from srs.modes import GROUPS
from srs.run.description import BYTES
from srs.run.folder import CERTIFICATES, EXTRA, OLD_EXTRA, REGIONS, SUMMARY
from srs.run.votes import Record

_ANEW = f"restore it, or delete {SUMMARY} and make both anew with srs-certify --resume"


def read_summary(folder: Path) -> dict[str, Any]:
    """Return what `summary.json` of a finished run holds; `ValueError` where the run is not finished."""
    if not (folder / SUMMARY).exists():
        raise ValueError(f"{folder}: the run has not come to its end; go on with srs-certify --resume")
    return read_json(folder / SUMMARY, f"restore it, or delete it and go on with srs-certify --out {folder} --resume")


def run_map(folder: Path, manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> RegionMap:
    """Read `regions.npz` of a finished run.

    `summary.json` knows its content hash. Where an earlier version wrote the run, which kept no hash, radii, levels and
    classes are compared with those of `certificates.tsv`.

    Parameters
    ----------
    folder : Path
    manifest, summary : mapping
        As `folder.read_description` and `read_summary` return them.

    Raises
    ------
    ValueError
        Where the file is missing, damaged, or another run's.
    """
    file = folder / REGIONS
    if not file.exists():
        raise ValueError(f"{file}: no such file; {_ANEW}")
    in_bytes = manifest["data"].get("centres") == BYTES
    table = RegionMap.load(file, mmap_mode="r" if in_bytes else None)
    if (is_bytes(table.centres), table.divisor) != (in_bytes, DIVISOR if in_bytes else 1):
        raise ValueError(f"{file} is another run's: its centres are in another unit; {_ANEW}")
    data, sigmas = manifest["data"], np.array(manifest["sigmas"], dtype=np.float64)
    if table.centres.shape != (data["images"], math.prod(data["shape"])):
        n, d = table.centres.shape
        raise ValueError(f"{file} is another run's: it holds {n} images of {d} numbers; {_ANEW}")
    filled = table.radii > 0
    classes = np.full(len(table), -1) if table.classes is None else table.classes
    # with a level outside, regions are made before certificates are, and one may turn out to have none
    certain = filled if summary.get("outside") is None else np.zeros_like(filled)
    if not np.isin(table.sigma, sigmas).all() or (classes < np.where(certain, 0, -1)).any():
        raise ValueError(f"{file} is another run's: it has other noise levels, or regions without a class; {_ANEW}")
    if (classes >= data["num_classes"]).any():
        raise ValueError(f"{file} is another run's: it has classes from {data['num_classes']} on; {_ANEW}")
    stored = summary.get("regions")
    if stored is None:
        _check_origin(folder, table, classes)
    elif stored != table.content_hash:
        there = str(stored)[:12]
        raise ValueError(
            f"{file} is another run's: its content hash is {table.content_hash[:12]}..., {SUMMARY} says {there}...; "
            f"{_ANEW}"
        )
    return table


def check_apart(source: Path, table: RegionMap, overlap: str | None) -> None:
    """Raise `ValueError` where two regions overlap that must not: one exact search, which takes seconds at 10,000.

    Parameters
    ----------
    source : Path
        The file, for the message.
    table : RegionMap
    overlap : str or None
        The run's overlap mode. None, where nothing says it: regions of one sigma or of one class may overlap, which is
        what the most lenient mode allows.
    """
    # nothing is certified for class -1, so regions have it in common with nobody
    classes = np.arange(-len(table), 0)
    if table.classes is not None:
        classes = np.where(table.classes >= 0, table.classes, classes)
    sigma = np.where(table.radii > 0, table.sigma, 0.0)  # an empty region may have none
    found = table.first_overlap(GROUPS[overlap or "class"](sigma, classes))
    if found is not None:
        i, j = found
        raise ValueError(
            f"{source} is damaged: regions {i} and {j} overlap, of sigma {sigma[i]:g} and {sigma[j]:g}, which must "
            "not; restore it, or make it anew with srs-certify"
        )


def check_certificates(folder: Path, record: Record, level: Int64[np.ndarray, " n"]) -> None:
    """Raise `ValueError` where `certificates.tsv` is damaged, or not of these rows at these levels."""
    file = folder / CERTIFICATES
    rows = _certificates(file)
    at = np.arange(len(record.idx)), level
    for name, ours in (("idx", record.idx), ("label", record.label), ("counts", record.counts.last[at])):
        if not np.array_equal(ours, rows.integers(name)):
            raise ValueError(f"{file} does not belong to the run's rows: {name} differs; {_ANEW}")


def _check_origin(folder: Path, table: RegionMap, classes: Int64[np.ndarray, " n"]) -> None:
    file = folder / CERTIFICATES
    rows = _certificates(file)
    r, written = table.radii, rows.floats("r")
    if not np.array_equal(r, written):  # an earlier version wrote six decimals
        r = np.array([float(floor_text(radius)) for radius in r.tolist()])
    for name, ours, theirs in (
        ("sigma", table.sigma, rows.floats("sigma")),
        ("r", r, written),
        ("predict", classes, rows.integers("predict")),
    ):
        if not np.array_equal(ours, theirs):
            raise ValueError(f"{folder / REGIONS} and {file} do not belong together: {name} differs; {_ANEW}")


def _certificates(file: Path) -> Table:
    """Read `certificates.tsv`, of this version or of format 1."""
    lines, old = whole_lines(file), (*COLUMNS, *OLD_EXTRA)
    return Table(file, old if lines and lines[0] == "\t".join(old) else (*COLUMNS, *EXTRA), lines)
