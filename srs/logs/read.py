"""Certification logs of several constant noise levels, side by side: read, checked against each other, never trusted.

A log has the header `idx label predict radius correct time` and one row per image, at one sigma. What does not
belong together is refused: other images, other labels, two logs of one sigma.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import ABSTAIN
from smoothing.tables import CertificateTable, read_certificates

#: The largest noise level that a name is taken to mean: pixels lie in [0, 1], and `sigma_25` is not 25.
MOST_NAMED = 2.0

#: Radii above so many sigma are refused: one of 6 sigma takes 7e9 unanimous votes at alpha = 0.001.
MOST_SIGMAS = 6.0

#: Larger radii are refused: pixels lie in [0, 1], and no classifier sees an image under the noise that they take.
MOST_RADIUS = 100.0

#: `sigma_0.25`, `NOISE-0.5`, `noise_sd0.25`: the word, what parts it from the number, and all that is joined to that.
_NAMED = re.compile(
    r"(?<![a-z])(?:sigma|noise|std|sd)(?:[_ -]?(?:level|std|sd|sigma))?[_ =([-]?"
    r"([+-]?(?:\d[\d.,p]*|\.\d+)(?:e[+-]?\d+)?[a-z0-9.,%+]*)([_-]?[\d.]*)",
    re.IGNORECASE,
)

#: A decimal that stands alone, and the word before it.
_ALONE = re.compile(
    r"(?:([a-z]+)[_ =([-]*)?(?<![a-z0-9.,%+])((?:\d*\.|\d+p)\d+(?:e[+-]?\d+)?)(?![a-z0-9.,%+])", re.IGNORECASE
)

_NUMBER = re.compile(r"(?:(?:0|[1-9]\d*)(?:[.p]\d+)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)

#: Words whose numbers are no noise levels.
_OTHERS = frozenset(
    {"acc", "acr", "alpha", "beta", "delta", "drop", "dropout", "eps", "epsilon", "factor", "gamma", "lam", "lambda"}
    | {"lbd", "lr", "momentum", "p", "percent", "r", "radius", "rate", "scale", "seed", "t", "tau", "temp", "v"}
    | {"temperature", "ver", "version", "warmup", "wd", "weight"}
)


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
        Time spent on the image in all logs; NaN where one of them does not say.
    lines : int array of shape (n, K)
        Where the row stands in its file, for messages.
    two_sided : tuple of paths
        Those of the files that say of their radii that they bound the runner-up as well.
    """

    files: tuple[Path, ...]
    sigmas: Float64[np.ndarray, " K"]
    idx: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    predict: Int64[np.ndarray, "n K"]
    printed: Float64[np.ndarray, "n K"]
    seconds: Float64[np.ndarray, " n"]
    lines: Int64[np.ndarray, "n K"]
    two_sided: tuple[Path, ...] = ()

    def only(self, rows: Int64[np.ndarray, " m"]) -> "Logs":
        """Return what the logs say about some of the images."""
        names = ("idx", "labels", "predict", "printed", "seconds", "lines")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def read_logs(files: Sequence[str | PathLike[str]], sigmas: Sequence[float] = ()) -> Logs:
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
        a noise level that is not known, that occurs twice or that cannot certify a radius of its log.
    OSError
        Where a file cannot be opened.
    """
    given = [Path(file) for file in files]
    if not given:
        raise ValueError("no logs: name at least one certification log")
    if len(sigmas) and len(sigmas) != len(given):
        raise ValueError(f"--sigmas names {len(sigmas)} levels for {len(given)} logs: give one for each, in order")
    levels = np.array([*sigmas] if len(sigmas) else [sigma_of(file) for file in given], dtype=np.float64)
    order = np.argsort(levels, kind="stable")
    paths, levels = [given[k] for k in order], levels[order]
    for k, level in enumerate(levels):
        if not 0 < level < np.inf:
            raise ValueError(f"{paths[k]}: sigma = {level:g}: noise levels must be finite and > 0; give --sigmas")
        if k and level == levels[k - 1]:
            raise ValueError(f"{paths[k]} and {paths[k - 1]} are both for sigma = {level:g}: leave one out")
        if paths[k].absolute() in [path.absolute() for path in paths[:k]]:
            raise ValueError(f"{paths[k]} is named for two noise levels: name one log for each")
    tables = [read_log(path) for path in paths]
    orders = [np.argsort(table.idx, kind="stable") for table in tables]
    for path, table, rows, level in zip(paths, tables, orders, levels.tolist(), strict=True):
        _check_sigma(path, table, level)
        check_same(paths[0], tables[0], orders[0], path, table, rows)
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
        np.stack([_lines(table)[rows] for table, rows in zip(tables, orders, strict=True)], axis=1),
        two_sided=tuple(path for path, table in zip(paths, tables, strict=True) if is_two_sided(table)),
    )


def sigma_of(file: str | PathLike[str]) -> float:
    """Read the noise level off a log's name: `NOISE_0.25.tsv`, `sigma_2.5e-1`, `noise0p5`, `cifar10_salman_0.5.tsv`.

    Raises
    ------
    ValueError
        Where the name holds no such number, several that differ, or one that may mean something else: `sigma_25`,
        `noise_025`, `sigma_0_25`, `noise_25%`.
    """
    name = Path(file).name
    while (ending := Path(name).suffix[1:]) and ending.isalpha():  # in `sigma_0.25` the ending is not `.25`
        name = name.removesuffix(f".{ending}")
    named = _NAMED.findall(name)
    found = [_level(text, rest) for text, rest in named]
    texts = [text + rest * (level is None) for (text, rest), level in zip(named, found, strict=True)]
    if not named:
        texts = [text for word, text in _ALONE.findall(name) if word.lower() not in _OTHERS]
        found = [_level(text, "") for text in texts]
    levels = sorted({level for level in found if level is not None})
    if len(levels) == 1 and None not in found:
        return levels[0]
    doubtful = [text for text, level in zip(texts, found, strict=True) if level is None]
    held = "holds no noise level"
    if doubtful:
        held = f"holds {doubtful[0]!r}, which is no noise level from 0 to {MOST_NAMED:g} beyond doubt"
    elif levels:
        held = f"could mean {' or '.join(f'{level:g}' for level in levels)}"
    raise ValueError(f"{file}: the name {held}; give the noise level of every log, in order, with --sigmas")


def _level(text: str, rest: str) -> float | None:
    """Return the level that a number in a name means beyond doubt, else None; `rest` is the number that follows it."""
    rest = rest.strip("_-.")
    if not _NUMBER.fullmatch(text):
        return None  # 025, -1, 25%, 0.5v2
    level = float(text.lower().replace("p", "."))
    if rest and ("." in rest or re.fullmatch(r"\d+", text)):
        return None  # 0.25-0.5 is a range, and 0_25 may be 0.25
    return level if 0 < level <= MOST_NAMED else None


def read_log(path: str | PathLike[str]) -> CertificateTable:
    """Read a certification log and refuse, naming the line, what no log holds.

    Raises
    ------
    ValueError
        A row that is none, images that occur twice, a column that contradicts the others.
    OSError
        Where the file cannot be opened.
    """
    path = Path(path)
    try:
        table = read_certificates(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; name a certification log") from None
    if not len(table.idx):
        raise ValueError(f"{path} holds no image below its header: was it cut off? Copy it again")
    correct = (table.predict == table.label).astype(np.int64)
    wrong = ~(np.isfinite(table.radius) & (table.radius >= 0))
    _refuse(path, table, wrong, "radius", table.radius, "radii are finite and >= 0; is this row whole?")
    too_large = (
        f"no radius is above {MOST_RADIUS:g} where pixels lie in [0, 1]; divide those of pixels in [0, 255] by 255"
    )
    _refuse(path, table, table.radius > MOST_RADIUS, "radius", table.radius, too_large)
    _refuse(path, table, table.idx < 0, "idx", table.idx, "images are numbered from 0")
    _refuse(path, table, table.label < 0, "label", table.label, "classes are numbered from 0")
    _refuse(path, table, table.predict < ABSTAIN, "predict", table.predict, "a class, or -1 where it abstained")
    wrong = table.correct != correct
    _refuse(path, table, wrong, "correct", table.correct, "contradicts label and predict; are the columns in order?")
    _check_once(path, table)
    return table


def is_two_sided(table: CertificateTable) -> bool:
    """Whether a log of ours says that its radii bound the probability of the runner-up as well."""
    share = table.extra.get("share")
    return share is not None and (share.dtype.kind not in "if" or bool((share != 0).any()))


def _lines(table: CertificateTable) -> Int64[np.ndarray, " n"]:
    assert table.lines is not None  # it was read from a file
    return table.lines


def _refuse(
    path: Path, table: CertificateTable, wrong: Bool[np.ndarray, " n"], name: str, values: np.ndarray, remedy: str
) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{path}, line {_lines(table)[row]}: {name} = {values[row]}: {remedy}")


def _check_once(path: Path, table: CertificateTable) -> None:
    rows = np.argsort(table.idx, kind="stable")
    idx = table.idx[rows]
    twice = np.flatnonzero(idx[1:] == idx[:-1])
    if twice.size:
        first, second = _lines(table)[rows[twice[0] : twice[0] + 2]]
        raise ValueError(f"{path}, line {second}: idx {idx[twice[0]]} stands in line {first} already; remove one")


def _check_sigma(path: Path, table: CertificateTable, level: float) -> None:
    """Raise where a log cannot be one of this noise level."""
    wrong = (table.radius > MOST_SIGMAS * level) & (table.predict != ABSTAIN)
    remedy = (
        f"no number of votes that can be drawn certifies more than {MOST_SIGMAS:g} sigma = {MOST_SIGMAS * level:g} at "
        f"sigma = {level:g}; give the noise level of every log, in order, with --sigmas"
    )
    _refuse(path, table, wrong, "radius", table.radius, remedy)
    column = table.extra.get("sigma")
    if column is not None:
        wrong = np.array([not _is_number(value) for value in column.tolist()])
        _refuse(path, table, wrong, "sigma", column, "is no noise level; are the columns in order?")
        remedy = f"the log was named for sigma = {level:g}; give logs of one noise level each, and --sigmas as they say"
        _refuse(path, table, column != level, "sigma", column, remedy)


def _is_number(value: float | str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def check_same(
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
        line = _lines(other)[other_rows[np.searchsorted(other_idx, lacking)]]
        raise ValueError(f"{other_path}, line {line}: idx {lacking} is not in {path}: {remedy}")
    differs = table.label[rows] != other.label[other_rows]
    if differs.any():
        k = int(differs.argmax())
        raise ValueError(
            f"{other_path}, line {_lines(other)[other_rows[k]]}: image {idx[k]} has label "
            f"{other.label[other_rows[k]]}, in {path} it has {table.label[rows[k]]}: {remedy}"
        )
