"""What a certification run can be told. Light to import: `srs-certify --help` needs nothing else."""

from dataclasses import dataclass
from pathlib import Path

MOST = 10**9
"""Largest count a flag takes: more samples would not end, larger batches not fit."""

MOST_LEVELS = 1000


@dataclass(frozen=True)
class CertifySettings:
    """Settings of one run; the flags of `srs-certify` carry the same names.

    Noise levels and radii are l2 distances between images whose pixels lie in [0, 1].
    """

    sigma_min: float = 0.1
    """Smallest noise level sigma_min; also the lower end of the noise in training."""
    sigma_max: float = 0.6
    """Largest noise level sigma_max; also the upper end of the noise in training."""
    sigma_step: float = 0.1
    """Distance between levels (sigma_interval): the grid is the multiples of it within [sigma_min, sigma_max]."""
    n0: int = 1000
    """Selection samples per image and level; they choose sigma and the class (Eq. 7)."""
    n: int = 10000
    """Estimation samples per image and level, fresh; they prove the radius (Eq. 2)."""
    alpha: float = 0.001
    """Failure probability per image: each certificate holds with probability at least 1 - alpha."""
    batch: int = 512
    """Noisy images per forward pass."""
    seed: int = 0
    """Seed of training and of every noise stream."""
    device: str = "auto"
    """Where the classifier runs: auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    out: Path = Path("runs/digits")
    """Folder for the results."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    skip: int = 1
    """Certify every skip-th test image."""
    max: int | None = None
    """Certify at most this many test images; all of them unless given."""

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        for flag, count in (("--n0", self.n0), ("--n", self.n), ("--batch", self.batch), ("--skip", self.skip)):
            if not 1 <= count <= MOST:
                raise ValueError(f"{flag} {count}: must be from 1 to {MOST:,}")
        if self.max is not None and self.max < 1:
            raise ValueError(f"--max {self.max}: must be at least 1")
        if self.batch > 10**6:
            raise ValueError(f"--batch {self.batch}: must be at most 1,000,000 images")
        if self.sigma_step > 0 and (self.sigma_max - self.sigma_min) / self.sigma_step > MOST_LEVELS:
            raise ValueError(f"--sigma-step {self.sigma_step}: more than {MOST_LEVELS:,} levels; take larger steps")
        if not 0 < self.alpha < 1:
            raise ValueError(f"--alpha {self.alpha}: must lie strictly between 0 and 1, such as 0.001")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**63)")
