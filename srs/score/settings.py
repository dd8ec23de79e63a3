"""What `srs-score` can be told. Imports nothing heavy: the help is printed from here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

#: What is known of a log beside its rows, and the words that say it.
SETTINGS, BOUNDS = ("transductive", "inductive"), ("one-sided", "full")

#: Suffixes of figures.
PICTURES = (".svg", ".pdf", ".png")

#: Headings of the help, and the settings below them.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "what the logs do not say": ("setting", "bound", "samples", "alpha"),
    "output": ("out", "plot", "overwrite"),
}


@dataclass(frozen=True)
class ScoreSettings:
    """What `srs-score` can be told."""

    logs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]LOG ...")]
    """Certification logs (idx label predict radius correct time), or folders of finished runs, all about the same
    images. The others are compared with the first."""
    setting: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="[NAME=]WHICH")] = ()
    """transductive: the method saw the test images, without labels, before it certified any. inductive: it did not. A
    run knows it; of a log nothing is guessed. May be repeated."""
    bound: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="[NAME=]WHICH")] = ()
    """one-sided: sigma Phi^-1(p_A), as most programs have it. full: Eq. 2 with a bound for the runner-up. May be
    repeated."""
    samples: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="[NAME=]N")] = ()
    """Passes of noisy images spent on each image, those that choose something among them. May be repeated."""
    alpha: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="[NAME=]ALPHA")] = ()
    """Failure probability of each certificate. May be repeated."""
    out: Path | None = None
    """Folder for the table: score.tsv, score.md, score.tex."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Draw certified accuracy against radius: .svg, .pdf or .png."""
    overwrite: bool = False
    """Replace what --out and --plot name."""

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        if not self.logs:
            raise ValueError("no LOG: name at least one certification log, or the folder of a run")
        if self.plot is not None:
            if self.plot.suffix not in PICTURES:
                raise ValueError(f"--plot {self.plot}: the suffix must be one of {' '.join(PICTURES)}")
            if self.plot.is_dir() or not self.plot.absolute().parent.is_dir():
                raise ValueError(f"--plot {self.plot}: is a folder, or lies in none; name a file in a folder there is")
            if self.plot.exists() and not self.overwrite:
                raise ValueError(f"--plot {self.plot}: there is such a file; name another, or give --overwrite")


def parse_setting(text: str) -> str:
    """Read whether a method is transductive."""
    return _one_of(text, SETTINGS)


def parse_bound(text: str) -> str:
    """Read what radii are made of."""
    return _one_of(text, BOUNDS)


def parse_samples(text: str) -> int:
    """Read a number of samples."""
    digits = text.replace(",", "")
    if not (digits.isascii() and digits.isdecimal() and 1 <= len(digits) <= 15 and int(digits)):
        raise ValueError("expected a whole number >= 1")
    return int(digits)


def parse_alpha(text: str) -> float:
    """Read a failure probability."""
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < 1:
        raise ValueError("expected a number strictly between 0 and 1, such as 0.001")
    return alpha


def _one_of(text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise ValueError(f"expected {' or '.join(words)}")
    return text
