"""What `srs-predict` can be told. Imports nothing heavy: the help is printed from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from srs.limits import OUTSIDE, check_alpha, named_level
from srs.run.sources import check_factory, check_one, own_code


@dataclass(frozen=True)
class PredictSettings:
    """What `srs-predict` can be told."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a region map (.npz)."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Images of the size that the regions are about; nothing is scaled."""
    indices: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also these images of the run's own test set: whole numbers from 0, one a line, or an array in a .npy file."""
    dataset: str | None = None
    """Data set of the run, only where it is package.module:factory and its test images are asked for: name it again if
    you trust it."""
    certify: bool = False
    """Also certify each answer with fresh samples: within l2 radius min(R, distance to the region's boundary), in units
    of pixels in [0, 1]; less where regions of one class overlap and another sigma decides nearer by."""
    outside: str = "abstain"
    """Image that no region holds: abstain, or a vote with smallest-sigma, with that of the nearest-region, or with
    best-sigma, which certifies the largest radius (Eq. 7). Nothing is certified there. A run that was certified with a
    level outside keeps it, with certificates; to a region map sigma=S gives one."""
    online: Annotated[Path | None, tyro.conf.arg(metavar="STATE.db")] = None
    """Certify each image and register it (Algorithm 2): one that no region holds gets a region of its own. The file is
    begun with the run's regions, grows, and is shared by processes; stored regions never change."""
    n: int | None = None
    """Votes per image. Default: 1000; 10000 with --certify or --online."""
    n0: int = 1000
    """Samples that guess the class to certify, and choose sigma for --outside best-sigma."""
    alpha: float = 0.001
    """Failure probability per image."""
    seed: int | None = None
    """Repeats an earlier call on the same images; it was printed then. Default: drawn from the operating system, so
    that nobody can know the noise when choosing an image."""
    checkpoint: Path | None = None
    """Base classifier for a region map; for a run, where its weights are now."""
    expert: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SIGMA=FILE")] = ()
    """The same, one checkpoint for each noise level: --expert 0.25=a.pt --expert 0.5=b.pt."""
    model: str | None = None
    """Base classifier as srs-certify's --model. A run that was certified with one needs it named again, because
    building it may run its module and a folder alone never runs code. A region map needs --num-classes as well for
    package.module:factory."""
    arch: str | None = None
    """Architecture of a checkpoint that does not name it; for a run only where it is package.module:factory, as with
    --model."""
    normalizer: str | None = None
    """Normaliser of a checkpoint or a model that does not name it: none, cifar10, imagenet, the same followed by
    -centered, inception, clip or mnist."""
    router: Path | None = None
    """Where the checkpoint of the run's router is now."""
    denoiser: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the checkpoint of the run's denoiser is now; for a region map, the denoiser before --checkpoint."""
    num_classes: int | None = None
    """For a region map: number of classes. Default: as many as the checkpoint has."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """For a region map: what the base classifier computed in when it was certified."""
    sampler: Literal["gaussian", "discrete"] = "gaussian"
    """For a region map: the sampler that it was certified with."""
    device: str = "auto"
    """Where the classifier runs: auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    json: bool = False
    """Print one JSON object per image, in lines, in place of the table."""

    @property
    def samples(self) -> int:
        """Votes per image: --n, or the default of what is asked."""
        return self.n or (10_000 if self.certify or self.online is not None else 1000)

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        if not self.images and self.indices is None:
            raise ValueError("name at least one image after the run")
        if self.dataset is not None and self.run.suffix == ".npz":
            raise ValueError(f"--dataset {self.dataset}: a map does not say whose test images it is about; name a run")
        if self.indices is not None and self.run.suffix == ".npz":
            raise ValueError(f"--indices {self.indices}: a map does not say whose test images it is about; name a run")
        for flag, count in (("--n", self.n), ("--n0", self.n0)):
            if count is not None and not 1 <= count <= 10**9:
                raise ValueError(f"{flag} {count}: must be from 1 to 1,000,000,000")
        if self.num_classes is not None and not 2 <= self.num_classes <= 10**6:
            raise ValueError(f"--num-classes {self.num_classes}: must be from 2 to 1,000,000")
        check_alpha(self.alpha)
        if self.outside not in OUTSIDE and (named_level(self.outside) is None or self.run.suffix != ".npz"):
            level = ", or a noise level as in sigma=0.25" * (self.run.suffix == ".npz")
            raise ValueError(f"--outside {self.outside}: expected {', '.join(OUTSIDE)}{level}")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**64)")
        if self.online is not None:
            if self.run.suffix == ".npz":
                raise ValueError(f"--online {self.online}: needs the folder of a run, which knows what was certified")
            if self.outside != "abstain":
                raise ValueError(
                    f"--outside {self.outside}: has no effect with --online, which makes a region; drop it"
                )
            if self.seed is not None:
                raise ValueError("--seed: noise that was used before would decide about new regions; drop it")
        check_one(checkpoint=self.checkpoint, expert=self.expert, model=self.model)
        if self.model is not None:
            check_factory(self.model, arch=self.arch, normalizer=self.normalizer)
        if self.router is not None and self.run.suffix == ".npz":
            raise ValueError(f"--router {self.router}: a map has none; name the folder of a run")
        if self.run.suffix != ".npz":
            for name, default in (("arch", None), ("normalizer", None), ("num_classes", None),
                                  ("precision", "float32"), ("sampler", "gaussian")):  # fmt: skip
                if getattr(self, name) != default and not (name == "arch" and own_code(self.arch)):
                    raise ValueError(f"--{name.replace('_', '-')}: the run in {self.run} says it; leave it out")
