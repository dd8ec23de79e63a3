"""Certification logs of several constant noise levels, side by side: read, checked against each other, never trusted.

A log has the header `idx label predict radius correct time` and one row per image, at one sigma. What does not
belong together is refused: other images, other labels, two logs of one sigma.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import ABSTAIN
from smoothing.tables import CertificateTable, read_certificates

#: Endings of a file's name that are not part of a number: in `sigma_0.25` the ending is not `.25`.
_SUFFIXES = frozenset({".tsv", ".txt", ".csv", ".log"})

_NAMED = re.compile(r"(?:sigma|noise|std)[_=-]?(\d+\.?\d*|\.\d+)", re.IGNORECASE)
_DECIMAL = re.compile(r"(?<![\d.])\d*\.\d+(?![\d.])")


@dataclass(frozen=True, eq=False)
class Logs:
    """What K logs say about the same n images.

    Attributes
    ----------
    files : tuple of K paths
        In the order of `sigmas`.
    sigmas : array of shape (K,)
        Noise levels, increasing.
    idx, labels : int arrays of shape (n,)
        Each image's index in its test set, increasing, and its true class.
    predict : int array of shape (n, K)
        Certified class, -1 where it abstained.
    printed : array of shape (n, K)
        Radius as printed, 0 where it abstained.
    seconds : array of shape (n,)
        Time spent on the image in all logs.
    lines : int array of shape (n, K)
        Where the row stands in its file, for messages.
    """

    files: tuple[Path, ...]
    sigmas: Float64[np.ndarray, " K"]
    idx: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    predict: Int64[np.ndarray, "n K"]
    printed: Float64[np.ndarray, "n K"]
    seconds: Float64[np.ndarray, " n"]
    lines: Int64[np.ndarray, "n K"]

    def only(self, rows: Int64[np.ndarray, " m"]) -> "Logs":
        """Return what the logs say about some of the images."""
        names = ("idx", "labels", "predict", "printed", "seconds", "lines")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def read_logs(files: Sequence[Path], sigmas: Sequence[float] = ()) -> Logs:
    """Read logs of one classifier, or of one for each sigma, on the same images.

    Parameters
    ----------
    files : sequence of paths
        One log for each noise level.
    sigmas : sequence of float, optional
        Noise level of each file; read off the files' names unless given.

    Raises
    ------
    ValueError
        Naming file, line and remedy: a row that is none, images that occur twice, logs of different images or labels,
        a noise level that is not known or occurs twice.
    OSError
        Where a file cannot be opened.
    """
    if sigmas and len(sigmas) != len(files):
        raise ValueError(f"--sigmas names {len(sigmas)} levels for {len(files)} logs: give one for each, in order")
    levels = np.array([*sigmas] if sigmas else [sigma_of(file) for file in files], dtype=np.float64)
    order = np.argsort(levels, kind="stable")
    paths, levels = [files[k] for k in order], levels[order]
    for k, level in enumerate(levels):
        if not 0 < level < np.inf:
            raise ValueError(f"{paths[k]}: sigma = {level:g}: noise levels must be finite and > 0; give --sigmas")
        if k and level == levels[k - 1]:
            raise ValueError(f"{paths[k]} and {paths[k - 1]} are both for sigma = {level:g}: leave one out")
    tables = [_read(path) for path in paths]
    orders = [np.argsort(table.idx, kind="stable") for table in tables]
    for path, table, rows in zip(paths, tables, orders, strict=True):
        _check_once(path, table, rows)
        _check_same(paths[0], tables[0], orders[0], path, table, rows)
    first, rows = tables[0], orders[0]
    predict = np.stack([table.predict[rows] for table, rows in zip(tables, orders, strict=True)], axis=1)
    radius = np.stack([table.radius[rows] for table, rows in zip(tables, orders, strict=True)], axis=1)
    return Logs(
        tuple(paths),
        levels,
        first.idx[rows],
        first.label[rows],
        predict,
        np.where(predict == ABSTAIN, 0.0, radius),
        np.sum([table.seconds[rows] for table, rows in zip(tables, orders, strict=True)], axis=0),
        np.stack(orders, axis=1) + 2,
    )


def sigma_of(file: Path) -> float:
    """Read the noise level off a log's name: `NOISE_0.25.tsv`, `sigma_0.25`, `cifar10_salman_0.5.tsv`.

    Raises
    ------
    ValueError
        Where the name holds no such number, or several that differ.
    """
    name = file.name[: -len(file.suffix)] if file.suffix.lower() in _SUFFIXES else file.name
    found = {float(text) for text in _NAMED.findall(name) or _DECIMAL.findall(name)}
    if len(found) != 1:
        held = "holds no noise level" if not found else f"could mean {' or '.join(f'{s:g}' for s in sorted(found))}"
        raise ValueError(f"{file}: the name {held}; give the noise level of every log, in order, with --sigmas")
    return found.pop()


def _read(path: Path) -> CertificateTable:
    try:
        table = read_certificates(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; name a certification log") from None
    except (UnicodeDecodeError, csv.Error, OverflowError) as error:
        raise ValueError(f"{path} is not a certification log ({error}); give tab-separated text") from error
    if not len(table.idx):
        raise ValueError(f"{path} holds no image below its header: was it cut off? Copy it again")
    correct = (table.predict == table.label).astype(np.int64)
    wrong = ~(np.isfinite(table.radius) & (table.radius >= 0))
    _refuse(path, wrong, "radius", table.radius, "radii are finite and >= 0; is this row whole?")
    _refuse(path, table.idx < 0, "idx", table.idx, "images are numbered from 0")
    _refuse(path, table.label < 0, "label", table.label, "classes are numbered from 0")
    _refuse(path, table.predict < ABSTAIN, "predict", table.predict, "a class, or -1 where it abstained")
    wrong = table.correct != correct
    _refuse(path, wrong, "correct", table.correct, "contradicts label and predict; are the columns in their order?")
    return table


def _refuse(path: Path, wrong: Bool[np.ndarray, " n"], name: str, values: np.ndarray, remedy: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{path}, line {row + 2}: {name} = {values[row]}: {remedy}")


def _check_once(path: Path, table: CertificateTable, rows: Int64[np.ndarray, " n"]) -> None:
    idx = table.idx[rows]
    twice = np.flatnonzero(idx[1:] == idx[:-1])
    if twice.size:
        first, second = rows[twice[0]] + 2, rows[twice[0] + 1] + 2
        raise ValueError(f"{path}, line {second}: idx {idx[twice[0]]} stands in line {first} already; remove one")


def _check_same(
    path: Path,
    table: CertificateTable,
    rows: Int64[np.ndarray, " n"],
    other_path: Path,
    other: CertificateTable,
    other_rows: Int64[np.ndarray, " m"],
) -> None:
    """Raise where two logs are not about the same images."""
    remedy = "give logs of the same images of one data set"
    if len(table.idx) != len(other.idx):
        raise ValueError(f"{other_path} has {len(other.idx)} images, {path} has {len(table.idx)}: {remedy}")
    idx, other_idx = table.idx[rows], other.idx[other_rows]
    if (idx != other_idx).any():
        lacking = np.setdiff1d(other_idx, idx)[0]
        line = other_rows[np.searchsorted(other_idx, lacking)] + 2
        raise ValueError(f"{other_path}, line {line}: idx {lacking} is not in {path}: {remedy}")
    differs = table.label[rows] != other.label[other_rows]
    if differs.any():
        k = int(differs.argmax())
        raise ValueError(
            f"{other_path}, line {other_rows[k] + 2}: image {idx[k]} has label {other.label[other_rows[k]]}, in {path} "
            f"it has {table.label[rows[k]]}: {remedy}"
        )
