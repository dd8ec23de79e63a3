"""What a certification run can be told. Light to import: `srs-certify --help` needs nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MOST = 10**9
"""Largest count a flag takes: more samples would not end, larger batches not fit."""

MOST_LEVELS = 1000


@dataclass(frozen=True)
class CertifySettings:
    """Settings of one run; the flags of `srs-certify` carry the same names.

    Noise levels and radii are l2 distances between images whose pixels lie in [0, 1].
    """

    checkpoint: Path | None = None
    """Base classifier: what srs-train wrote, which says all that is needed, or a file of earlier work. Default: a small
    network trained on scikit-learn's digits now."""
    arch: str | None = None
    """Architecture of a checkpoint that does not name it: as srs-train's --model."""
    normalizer: str | None = None
    """Normaliser of a checkpoint that does not name it: none, cifar10 or imagenet."""
    dataset: str | None = None
    """Whose test images: digits, mnist, cifar10 or imagefolder:PATH. Default: the checkpoint's."""
    data_dir: Path | None = None
    """Folder that holds MNIST/raw or cifar-10-batches-py. Default: the checkpoint's, else data."""
    image_size: int | None = None
    """Side in pixels that images of a folder are scaled and cropped to. Default: the checkpoint's."""
    sigma_min: float | None = None
    """Smallest noise level sigma_min. Default: the checkpoint's; 0.1 without one, where it is training's as well."""
    sigma_max: float | None = None
    """Largest noise level sigma_max. Default: the checkpoint's; 0.6 without one, where it is training's as well."""
    sigma_step: float | None = None
    """Distance between levels (sigma_interval): the grid is the multiples of it within [sigma_min, sigma_max]. Default:
    the checkpoint's; 0.1 without one."""
    rule: Literal["max-radius", "expected-radius", "anchor"] = "max-radius"
    """What chooses each image's sigma. max-radius: the radius that its n0 samples certify (Eq. 7). expected-radius: the
    radius that n samples would certify if they voted likewise. anchor: the same, among levels that agree in class."""
    racing: bool = False
    """Draw no more selection samples at levels that cannot win."""
    chosen_only: bool = False
    """Certify each image at its chosen sigma alone: as many times faster as there are levels, but without the
    comparison with every constant sigma."""
    n0: int = 1000
    """Selection samples per image and level; they choose sigma and the class (Eq. 7)."""
    n: int = 10000
    """Estimation samples per image and level, fresh; they prove the radius (Eq. 2)."""
    alpha: float = 0.001
    """Failure probability per image: each certificate holds with probability at least 1 - alpha."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the network's arithmetic, a part of what is certified. Default: the checkpoint's; float32 without one."""
    batch: int | None = None
    """Noisy images per forward pass. Default: 128 on a CPU, 2048 elsewhere."""
    seed: int = 0
    """Seed of every noise stream, and of training where there is no checkpoint."""
    device: str = "auto"
    """Where the classifier runs: auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    out: Path | None = None
    """Folder for the results. Default: certified, beside the checkpoint; runs/digits without one."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    skip: int = 1
    """Certify every skip-th test image."""
    max: int | None = None
    """Certify at most this many test images; all of them unless given."""

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        for flag, count in (("--n0", self.n0), ("--n", self.n), ("--batch", self.batch), ("--skip", self.skip)):
            if count is not None and not 1 <= count <= MOST:
                raise ValueError(f"{flag} {count}: must be from 1 to {MOST:,}")
        if self.max is not None and self.max < 1:
            raise ValueError(f"--max {self.max}: must be at least 1")
        if self.batch is not None and self.batch > 10**6:
            raise ValueError(f"--batch {self.batch}: must be at most 1,000,000 images")
        if not 0 < self.alpha < 1:
            raise ValueError(f"--alpha {self.alpha}: must lie strictly between 0 and 1, such as 0.001")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**63)")
