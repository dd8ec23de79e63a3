"""What a certification run can be told. Light to import: `srs-certify --help` needs nothing else."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from smoothing.limits import MOST_LEVELS
from srs.limits import check_alpha, check_levels, named_level
from srs.run.sources import check_one

MOST = 10**9
"""Largest count a flag takes: more samples would not end, larger batches not fit."""

SAMPLES = 10000
"""What --n is where neither that nor --max-n says it."""

MOST_BATCH = 10**6

CIRCUMSTANCES = frozenset({"checkpoint", "expert", "denoiser", "router", "data_dir", "indices", "device", "batch"})
"""Settings that say where and how a run is done: it may go on with other ones, since hashes of weights and data decide
whether it is the same run."""

OUT, BESIDE = Path("runs/digits"), "certified"
"""Where a run is unless --out says it: that of the demonstration, and the folder beside a checkpoint."""

INVOCATION = frozenset({"out", "config", "resume", "overwrite", "preset", "shard", "max_n", "download"})
"""Settings of one start, which no run keeps; what --preset and --max-n say is in the others."""

EARLIER: Mapping[str, Any] = {
    "overlap": "paper",
    "rule": "max-radius",
    "bound": "top-class",
    "rungs": [],
    "min_gain": None,
    "target_loss": None,
    "image_order": None,
    "indices": None,
    "stream": "sfc64",
    "compile": "no",
    "outside": "abstain",
    "classifier": "regions",
    "router": None,
    "router_always": False,
    "sigmas": [],
    "denoiser": None,
}
"""What runs of earlier versions may lack, and what they did before it was a setting."""

PAPER = "paper"
"""The value of --preset that is about certifying; all others name presets of `srs-train`."""

PRESET: Mapping[str, Any] = {"rule": "max-radius", "overlap": "paper", "bound": "top-class"}
"""What --preset paper says where flags do not."""

DEFAULTS: Mapping[str, Any] = {"rule": "expected-radius", "bound": "runner-up"}
"""What nobody has said is this; the default of `overlap` depends on the levels and the method."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "most used": ("checkpoint", "dataset", "n", "out", "resume"),
    "what is certified": (
        "model", "download", "expert", "denoiser", "arch", "normalizer", "router", "router_always", "preset",
        "data_dir", "image_size", "image_order", "indices", "skip", "max",
    ),
    "noise levels": ("sigmas", "sigma_min", "sigma_max", "sigma_step", "rule", "n0", "racing"),
    "certification": (
        "alpha", "bound", "chosen_only", "rungs", "min_gain", "max_n", "target_loss", "sampler", "stream",
    ),
    "regions": ("classifier", "overlap", "outside", "method", "order"),
    "run": ("config", "overwrite", "shard", "seed", "device", "precision", "batch", "compile"),
}  # fmt: skip
"""In which order, and below which headings, the help has the settings."""

Rule = Literal["max-radius", "expected-radius", "anchor"]
Overlap = Literal["paper", "sigma", "joint", "class"]
Method = Literal["lp", "matching", "greedy"]
Order = Literal["ascending", "descending", "arrival"]
Classifier = Literal["regions", "router", "both"]
Bound = Literal["runner-up", "top-class"]
Sampler = Literal["gaussian", "discrete"]
Stream = Literal["philox4x32", "sfc64"]
Precision = Literal["float32", "tf32", "bfloat16"]
Compile = Literal["no", "default", "max-autotune", "reduce-overhead"]
ImageOrder = Literal["sorted", "shuffled"]


def halved(most: int) -> tuple[int, ...]:
    """Return a thirty-second, a sixteenth, ... a half of a number of samples: when --max-n looks at the votes."""
    return tuple(round(most / 2**power) for power in (5, 4, 3, 2, 1))


@dataclass(frozen=True)
class CertifySettings:
    """What the user says of a run, None where that is left open; the flags of `srs-certify` carry the same names.

    Noise levels and radii are l2 distances between images whose pixels lie in [0, 1].
    """

    checkpoint: Path | None = None
    """Base classifier: what srs-train wrote, which says all that is needed, or a file of earlier work. Default: a small
    network trained on scikit-learn's digits now."""
    model: str | None = None
    """Base classifier with its weights: timm:NAME, torchvision:NAME, hf:FOLDER or hf:OWNER/NAME, onnx:FILE, export:FILE
    (which runs what is in the file); or your own package.module:factory, called with the number of classes, which
    returns a torch.nn.Module from images in [0, 1] to logits."""
    download: bool = False
    """Fetch weights that --model names and that are not on this machine."""
    expert: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SIGMA=FILE")] = ()
    """One checkpoint for one noise level sigma, as in --expert 0.25=a.pt --expert 0.5=b.pt; these levels are the
    grid."""
    denoiser: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Checkpoint of a denoiser, as srs-train --method denoiser writes it: votes are those of the base classifier, which
    need never have seen noise, on what the denoiser makes of the noisy images. Levels are its own unless given."""
    router: Path | None = None
    """Checkpoint of a router, as srs-train --method router writes it: it names a noise level for every input, also for
    images that nobody has seen."""
    router_always: bool = False
    """Ask the router's network also where held-out images did not show it to be better than one level for all."""
    arch: str | None = None
    """Architecture of a checkpoint that does not name it: as srs-train's --model."""
    normalizer: str | None = None
    """Normaliser of a checkpoint or a model that does not name it: none, cifar10, imagenet, the same followed by
    -centered, inception, clip or mnist."""
    preset: str | None = None
    """paper: certify as the paper does, --rule max-radius --overlap paper --bound top-class, where flags do not say
    otherwise. Or a preset of srs-train, such as mnist-paper, whose data set and noise levels to take where neither
    flags nor the checkpoint say; not needed for what srs-train wrote."""
    dataset: str | None = None
    """Whose test images: digits, mnist, fashion-mnist, cifar10, cifar100, svhn; imagefolder:PATH, with
    PATH/{test,val}/CLASS/FILE or, where there are none, PATH/CLASS/FILE; hf:PATH, what datasets' save_to_disk wrote, or
    Parquet files; or your own package.module:factory, called with "test", which returns a map-style torch Dataset of
    (image, label). Default: the checkpoint's."""
    data_dir: Path | None = None
    """Folder that holds MNIST/raw, FashionMNIST/raw, cifar-10-batches-py, cifar-100-python or test_32x32.mat. Default:
    the checkpoint's, else data."""
    image_size: int | None = None
    """Side in pixels that pictures of a folder or of a factory are scaled and cropped to. Default: the checkpoint's."""
    sigmas: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SIGMA ...")] = ()
    """The noise levels, increasing, where they are no multiples of a step: --sigmas 0.12 0.25 0.5 1."""
    sigma_min: float | None = None
    """Smallest noise level sigma_min. Default: the checkpoint's; 0.1 without one, where it is training's as well."""
    sigma_max: float | None = None
    """Largest noise level sigma_max. Default: the checkpoint's; 0.6 without one, where it is training's as well."""
    sigma_step: float | None = None
    """Distance between levels (sigma_interval): the grid is the multiples of it within [sigma_min, sigma_max]. Default:
    the checkpoint's; 0.1 without one."""
    rule: Rule | None = None
    """What ranks the levels of an image. expected-radius: the radius that n samples would certify if they voted like
    the n0 selection samples. max-radius: the radius that these certify by themselves (Eq. 7). anchor: expected-radius,
    among levels that agree in class. Default: expected-radius; anchor with --expert, whose networks may disagree."""
    racing: bool = False
    """Draw no more selection samples at levels that cannot be an image's best. --overlap joint may still take such a
    level, by the samples that it got."""
    chosen_only: bool = False
    """Certify each image at its chosen sigma alone: as many times faster as there are levels, but without the
    comparison with every constant sigma."""
    overlap: Overlap | None = None
    """Which regions must not overlap. joint: those of different sigma, and each image's sigma is chosen together with
    the radii r, from selection samples. sigma: the same, and each image takes the sigma that ranks first for it. paper:
    no two. class: those that differ in sigma and in class; one certificate then relies on its neighbours', so each is
    made at alpha / number of images and all hold at once. Default: joint; paper with --method greedy; sigma where the
    grid has one level."""
    classifier: Classifier | None = None
    """What chooses sigma. regions: a map of regions around these images. router: --router, for every input. both:
    regions, and the router outside them. Default: both with --router, else regions."""
    outside: str = "abstain"
    """What G answers outside every region. abstain: nothing. sigma=S: a vote with noise level S of the grid. auto: the
    level that promises most as the only one, by selection samples. router: the level that --router names. An image then
    gets a region only where its own sigma promises more, and a region of another sigma ends no certificate where both
    levels agree."""
    method: Method = "lp"
    """How the radii r are found. lp: the optimum of Eq. 10. matching: the same, faster on large sets. greedy: Eq. 11,
    one region after the other."""
    order: Order | None = None
    """Order of greedy: by degree in the overlap graph, or as the images come. Default: ascending."""
    sampler: Sampler = "gaussian"
    """Noise: float32 Gaussian, or discrete Gaussian, which is exact for 8-bit pixels."""
    stream: Stream = "philox4x32"
    """Where random numbers come from. philox4x32: made where the classifier runs, the same bits on every device.
    sfc64: made on the CPU, as in earlier versions."""
    n0: int = 1000
    """Selection samples per image and level; they choose sigma and the class (Eq. 7)."""
    n: int | None = None
    """Estimation samples per image and level, fresh; they prove the radius R (Eq. 2). Default: 10000."""
    bound: Bound | None = None
    """What the radius R is made of. runner-up: Eq. 2, with a bound for the probability of every other class as well.
    top-class: one bound, for the class alone, as in published tables. Both are shown; each holds by itself. Default:
    runner-up."""
    rungs: tuple[int, ...] = ()
    """Stop early: numbers of estimation samples, increasing and below n, after which an image gets no more where more
    would add little to its radius. Each of them, and n, spends an equal share of alpha."""
    min_gain: float | None = None
    """What counts as little with --rungs: less than this share of the radius. Default: 0.05."""
    max_n: int | None = None
    """In place of --n and --rungs: so many estimation samples at most, and looks at a half, a quarter, ... of them."""
    target_loss: float | None = None
    """With --rungs or --max-n, stop also where the radius is within this share of what n samples would certify if
    votes went on to fall as they do: 0.03 for three percent. An expectation: no image is promised it."""
    alpha: float = 0.001
    """Failure probability per image: each certificate holds with probability at least 1 - alpha. With --overlap class
    that of any image's certificate being wrong."""
    precision: Precision | None = None
    """Of the network's arithmetic, a part of what is certified; tf32 on CUDA only. Default: the checkpoint's; float32
    without one."""
    compile: Compile = "no"
    """Compile the network by torch.compile, in this mode, which takes up to some minutes; max-autotune and
    reduce-overhead use CUDA graphs. Part of what is certified."""
    batch: int | None = None
    """Noisy images per forward pass. Default: on a CPU what a few passes show to be fastest; elsewhere 2048, or as many
    as fit into memory."""
    seed: int = 0
    """Seed of every noise stream, and of training where there is no checkpoint."""
    device: str = "auto"
    """Where the classifier runs: auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    out: Path | None = None
    """Folder of the run. Default: certified, beside the checkpoint; runs/digits without one."""
    config: Path | None = None
    """YAML file of settings, named as these flags with _ for -, such as the config.yaml of a run. Flags win."""
    resume: bool = False
    """Go on with the run that --out holds, with its settings; one that is finished is only shown again."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Do the I-th of N shares of the images, and leave the others to other starts with the same --out, now or later,
    on any machine that sees it: 1/4 to 4/4. The start that finds all done finishes the run."""
    image_order: ImageOrder | None = None
    """How test images are lined up before --skip and --max. sorted: as the data set numbers them, which in a folder is
    class by class. shuffled: in a random order, always the same for so many images. Default: sorted."""
    indices: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Certify the test images of these indices, in this order: whole numbers from 0, one a line, or an array in a .npy
    file. --skip and --max then choose among them."""
    skip: int = 1
    """Certify every skip-th of the test images."""
    max: int | None = None
    """Certify at most this many test images; all of them unless given."""

    @property
    def share(self) -> tuple[int, int] | None:
        """Which share of how many `shard` names, from 0; None for all. `ValueError` where it names none."""
        if self.shard is None:
            return None
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.shard, re.ASCII)
        number, of = map(int, found.groups()) if found else (0, 1)
        if not 1 <= number <= of:
            raise ValueError(f"--shard {self.shard}: expected I/N with I from 1 to N, such as 2/8")
        return number - 1, of

    def check(self) -> None:
        """Raise `ValueError`, naming the flag and its value, where a setting cannot be honoured."""
        for flag, count in (("--n0", self.n0), ("--n", self.n), ("--batch", self.batch), ("--skip", self.skip)):
            if count is not None and not 1 <= count <= MOST:
                raise ValueError(f"{flag} {count}: must be from 1 to {MOST:,}")
        if self.max is not None and self.max < 1:
            raise ValueError(f"--max {self.max}: must be at least 1")
        if self.batch is not None and self.batch > MOST_BATCH:
            raise ValueError(f"--batch {self.batch}: must be at most {MOST_BATCH:,} images")
        check_alpha(self.alpha)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed {self.seed}: must be in [0, 2**63)")
        self._check_together()

    def _check_together(self) -> None:
        if self.share and self.overwrite:
            raise ValueError("--overwrite replaces what other shares of --shard write: remove the folder before them")
        if self.max_n is not None:
            if not 32 <= self.max_n <= MOST:
                raise ValueError(f"--max-n {self.max_n}: must be from 32 to {MOST:,}; for fewer samples give --n")
            if self.n not in (None, self.max_n):
                raise ValueError(f"--max-n {self.max_n}: says how many samples to draw, as --n {self.n} does; drop one")
            if self.rungs not in ((), halved(self.max_n)):
                raise ValueError(f"--max-n {self.max_n}: says how often votes are looked at, as --rungs does; drop one")
        most = self.n or self.max_n or SAMPLES
        if any(later <= earlier for earlier, later in pairwise((0, *self.rungs, most))):
            given = " ".join(map(str, self.rungs))
            raise ValueError(f"--rungs {given}: numbers of samples must increase, from 1 to below --n {most}")
        for name, value in (("--min-gain", self.min_gain), ("--target-loss", self.target_loss)):
            if value is not None and not self.rungs and self.max_n is None:
                raise ValueError(f"{name} {value}: has no effect without --rungs or --max-n")
        if self.target_loss is not None and not 0 <= self.target_loss < 1:
            raise ValueError(f"--target-loss {self.target_loss}: must be at least 0 and below 1")
        if self.min_gain is not None and not 0 <= self.min_gain < math.inf:
            raise ValueError(f"--min-gain {self.min_gain}: must be finite and >= 0")
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a run and --overwrite replaces it: give one of them")
        if self.indices is not None and self.image_order == "shuffled":
            raise ValueError(f"--indices {self.indices}: gives an order of its own; leave --image-order out")
        check_one(checkpoint=self.checkpoint, model=self.model, expert=self.expert)
        if self.denoiser is not None and not (self.checkpoint or self.model or self.expert):
            raise ValueError(
                f"--denoiser {self.denoiser}: goes before a base classifier; name one with --checkpoint or --model"
            )
        if self.order is not None and self.method != "greedy":
            raise ValueError(f"--order {self.order} has no effect with --method {self.method}: use --method greedy")
        self._check_outside()
        if self.sigmas:
            check_levels(self.sigmas, MOST_LEVELS)
        for source in ("expert", "sigmas"):
            for name in ("sigmas", "sigma_min", "sigma_max", "sigma_step", "preset") if getattr(self, source) else ():
                if name != source and getattr(self, name) not in (None, (), PAPER):
                    raise ValueError(f"--{name.replace('_', '-')}: the levels are those of --{source}; leave it out")

    @property
    def routed(self) -> bool:
        """Whether a router names levels."""
        asked = self.classifier in ("router", "both") or self.outside == "router" or self.router_always
        return self.router is not None or asked

    def _check_outside(self) -> None:
        given = f"--outside {self.outside}" if self.outside != "abstain" else f"--classifier {self.classifier}"
        if self.routed:
            given = self._check_router()
        elif self.outside == "abstain":
            return
        elif self.outside != "auto" and named_level(self.outside) is None:
            raise ValueError(f"{given}: expected abstain, auto, router, or a noise level as in sigma=0.25")
        if self.overlap == "class":
            raise ValueError(f"{given}: levels that agree need no --overlap class; take paper, sigma or joint")
        if self.chosen_only:
            raise ValueError(f"{given}: needs certificates at every level; drop --chosen-only")
        if self.racing:
            raise ValueError(f"{given}: compares levels that --racing leaves out; drop one of them")

    def _check_router(self) -> str:
        """See that flags about the router go together, and return the one that asks for it."""
        asked = f"--router {self.router}" if self.router is not None else "--router-always"
        if self.outside == "router":
            asked = "--outside router"
        if self.classifier in ("router", "both"):
            asked = f"--classifier {self.classifier}"
        if self.router is None:
            raise ValueError(f"{asked}: there is none; name its checkpoint with --router, which srs-train writes")
        if self.classifier == "regions":
            raise ValueError(f"--router {self.router}: has no effect with --classifier regions; drop one of them")
        if self.outside not in ("abstain", "router"):
            raise ValueError(f"--outside {self.outside}: the router decides there; drop it, or drop --router")
        if self.classifier == "router":
            for name in ("overlap", "order"):
                if getattr(self, name) not in (None, *(("sigma",) if name == "overlap" else ())):
                    raise ValueError(f"--{name} {getattr(self, name)}: --classifier router has no regions; drop it")
        return asked
