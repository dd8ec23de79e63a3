"""What `srs-verify` can be told. Imports nothing heavy: the help is printed from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from srs.run.sources import check_factory, check_one


@dataclass(frozen=True)
class VerifySettings:
    """What `srs-verify` can be told."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run."""
    redraw: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Draw the votes of K images again, at all their levels, and compare every count. The images are chosen at random
    by a seed from the operating system, which nobody can know beforehand."""
    all: bool = False
    """Draw the votes of all images again: as long as the run took."""
    checkpoint: Path | None = None
    """Where the weights of the base classifier are now. Default: where the run found them."""
    expert: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SIGMA=FILE")] = ()
    """The same, one checkpoint for each noise level."""
    router: Path | None = None
    """Where the checkpoint of the router is now. Default: where the run found it."""
    denoiser: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the checkpoint of the denoiser is now. Default: where the run found it."""
    model: str | None = None
    """Base classifier as srs-certify's --model, where the run was certified with one: a folder alone never runs code,
    so name it again if you trust it."""
    arch: str | None = None
    """Architecture of a checkpoint, only where it is package.module:factory, as with --model."""
    dataset: str | None = None
    """Data set of the run, only where it is package.module:factory: name it again if you trust it, to compare images
    and labels."""
    data_dir: Path | None = None
    """Folder that holds the data set now, such as MNIST/raw. Default: the run's."""
    device: str = "auto"
    """Where the classifier runs: auto (where the run did, if it is here), cpu, cuda, cuda:1, ..."""

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        if self.redraw is not None and self.redraw < 1:
            raise ValueError(f"--redraw {self.redraw}: must be at least 1 image")
        if self.redraw is not None and self.all:
            raise ValueError(f"--redraw {self.redraw} and --all both say which votes to draw again: give one of them")
        check_one(checkpoint=self.checkpoint, expert=self.expert, model=self.model)
        if self.model is not None:
            check_factory(self.model, arch=self.arch)
