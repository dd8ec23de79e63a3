"""What `srs-attack` can be told. Imports nothing heavy: the help is printed from here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from srs.run.sources import check_factory, check_one

#: Headings of the help, and the settings below them.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "attack": ("images", "steps", "samples", "restarts", "seed"),
    "verdict": ("n", "significance"),
    "classifier": ("checkpoint", "expert", "router", "denoiser", "model", "arch", "device"),
    "output": ("out", "overwrite"),
}


@dataclass(frozen=True)
class AttackSettings:
    """What `srs-attack` can be told."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run."""
    images: Annotated[int, tyro.conf.arg(metavar="K")] = 100
    """Images to attack, drawn at random from those of the run; all where it has no more."""
    steps: int = 20
    """Gradient steps from every start."""
    samples: int = 32
    """Noise samples that a gradient is averaged over."""
    restarts: int = 3
    """Random starts in every ball, beside its centre and the borders of regions."""
    n: int = 10_000
    """Votes by which G is asked at every point that is judged, with noise that the attack has not seen."""
    significance: float = 0.001
    """Probability that an honest run is called broken: half for all predictions together, half for the test."""
    seed: int | None = None
    """Repeats an earlier attack; it was printed then. Default: drawn from the operating system, so that nobody can make
    a run that fits it."""
    checkpoint: Path | None = None
    """Where the weights of the base classifier are now. Default: where the run found them."""
    expert: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SIGMA=FILE")] = ()
    """The same, one checkpoint for each noise level."""
    router: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the checkpoint of the run's router is now. Default: where the run found it."""
    denoiser: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the checkpoint of the run's denoiser is now. Default: where the run found it."""
    model: str | None = None
    """Base classifier as srs-certify's --model, where the run was certified with one: a folder alone never runs code,
    so name it again if you trust it."""
    arch: str | None = None
    """Architecture of a checkpoint, only where it is package.module:factory, as with --model."""
    device: str = "auto"
    """Where the classifier runs: auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    out: Path | None = None
    """Folder for attack.json, attack.tsv and the curves. Default: RUN-attack, beside the run."""
    overwrite: bool = False
    """Replace an earlier attack in --out."""

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        for name, least, most in (
            ("images", 1, 10**9), ("steps", 1, 10**6), ("samples", 1, 10**5), ("restarts", 0, 10**4), ("n", 1, 10**9),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"--{name} {getattr(self, name)}: must be from {least} to {most:,}")
        if not 1e-12 <= self.significance < 1:
            raise ValueError(f"--significance {self.significance}: must be at least 1e-12 and below 1, such as 0.001")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**64)")
        check_one(checkpoint=self.checkpoint, expert=self.expert, model=self.model)
        if self.model is not None:
            check_factory(self.model, arch=self.arch)
