"""What is certified: a base classifier, the images, and the settings with nothing left open."""

import math
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from smoothing import Identity, RoutedClassifier, SmoothedClassifier, make_sampler, sigma_grid
from smoothing.images import RunImages, portions
from smoothing.limits import MOST_LEVELS
from smoothing.machine import usable_device
from smoothing.progress import Progress
from srs.geometry import Points
from srs.run.base_classifiers import Bank, base_classifiers, smoothed
from srs.run.choosing_images import lined_up, warn_of_one_class
from srs.run.denoiser import RunDenoiser, read_denoiser
from srs.run.description import BYTES
from srs.run.folder import CONFIG, FORMAT, read_description
from srs.run.router import Router, RouterRecord, read_router
from srs.run.run_settings import GRID, Experts, Levels, Listed, RunSettings, Start, levels_of, settled, still_open
from srs.run.settings import (
    BESIDE,
    DEFAULTS,
    OUT,
    PAPER,
    PRESET,
    SAMPLES,
    CertifySettings,
    Overlap,
    halved,
)
from srs.run.sources import asked_again, check_factory, files_of, library, own_data
from training import PRESETS, ImageData, LoadedModel, as_bytes, load_data, load_denoiser, load_router, training_config

#: What is certified where no checkpoint says otherwise.
DEMONSTRATION: Mapping[str, Any] = {
    "dataset": "digits",
    "data_dir": Path("data"),
    "sigma_min": 0.1,
    "sigma_max": 0.6,
    "sigma_step": 0.1,
    "precision": "float32",
    "out": OUT,
}

#: Numbers of images that are kept as float64 to size regions; of more, 8-bit images stay bytes, in a file.
MOST_FLOATS = 2**27

#: Numbers in the noisy images of a pass that a folder may ask for: more than any CPU was found to like.
_MOST_NUMBERS = 2**24

_DISTRIBUTIONS = ("srs-certify", "numpy", "scipy", "torch", "scikit-learn", "highspy", "faiss-cpu")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that certification needs.

    Attributes
    ----------
    settings : RunSettings
        What decides the run.
    data : ImageData
        The data set.
    base : torch.nn.Module, or mapping of float to torch.nn.Module
        The base classifier, or that of each level of the grid; maps images in [0, 1] to logits.
    sigmas : array of shape (k,)
        The grid.
    indices, labels : int arrays of shape (n,)
        The chosen test images' indices, and their true classes.
    images : RunImages
        Those images, of shape (n, C, H, W).
    device : str
        Where to compute.
    batch : int, optional
        Noisy images per pass, as an earlier start of the run found it on this kind of device.
    loaded : LoadedModel, optional
        What is known of a base classifier of another library.
    router : Router, optional
        What names a level for every input, where the settings name one.
    in_bytes : bool
        Whether regions are around the images in bytes: where these are 8-bit ones, and more than `MOST_FLOATS` numbers.
    folder : Path, optional
        Where `points` may have a file.
    denoiser : RunDenoiser, optional
        What comes before the base classifier; `base` has it already.
    """

    settings: RunSettings
    data: ImageData
    base: Bank
    sigmas: Float64[np.ndarray, " k"]
    indices: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    images: RunImages
    device: str
    batch: int | None = None
    loaded: LoadedModel | None = None
    router: Router | None = None
    in_bytes: bool = False
    folder: Path | None = None
    denoiser: RunDenoiser | None = None

    @cached_property
    def points(self) -> Points:
        """The images as centres of regions, of shape (n, d): float64, or as bytes in a file.

        The file lies in the run's folder, has no name, and ends with this process.
        """
        images = self.images
        shape = (len(images), math.prod(images.shape[1:]))
        if not self.in_bytes:
            points = np.empty(shape)
            for positions in portions(images.shape):
                points[positions] = images[positions].reshape(len(positions), -1)
            return points
        with tempfile.TemporaryFile(dir=self.folder) as file:
            for positions in portions(images.shape):
                part = as_bytes(images[positions])
                assert part is not None  # `load` saw that, and the images are the same
                file.write(part.pixels.data)
            file.flush()
            return np.memmap(file, np.uint8, "r", shape=shape)

    @cached_property
    def routed(self) -> RoutedClassifier | None:
        """The smoothed classifier with its smoothed router; None without a network that names levels."""
        return None if self.router is None else self.router.smoothed(self.classifier)

    @property
    def router_record(self) -> RouterRecord | None:
        """What the run knows of its router."""
        return None if self.router is None else self.router.record

    @cached_property
    def classifier(self) -> SmoothedClassifier:
        """The smoothed classifier that the settings describe."""
        settings, classes = self.settings, self.data.num_classes
        return smoothed(self.base, settings, classes, seed=settings.seed, device=self.device, batch=self.batch)

    def manifest(self, identity: Identity, check: Sequence[str] = ()) -> dict[str, Any]:
        """Return what a run's rows belong to, the content of `manifest.json`; `check` is the classifier's own."""
        return {
            "format": FORMAT,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _DISTRIBUTIONS}},
            "seed": self.settings.seed,
            "device": self.device,
            "batch": self.classifier.batch_size,
            "data": {
                "name": self.data.name,
                "images": len(self.images),
                "shape": list(self.images.shape[1:]),
                "num_classes": self.data.num_classes,
                "sha256": self.images.sha256(self.indices, self.labels),
                **({"centres": BYTES} if self.in_bytes else {}),
            },
            "classifier": asdict(identity),
            "router": None if self.router is None else self.router.manifest(self.routed, self.images.shape[1:]),
            "check": list(check),
            "sigmas": self.sigmas.tolist(),
            **({} if self.loaded is None else {"model": self.loaded.about()}),
            **({} if self.denoiser is None else {"denoiser": self.denoiser.manifest()}),
        }


def completed(given: CertifySettings) -> Start:
    """Return a start with what was left open taken from the checkpoint, or from the demonstration without one.

    Raises
    ------
    ValueError
        Where the checkpoint does not say it either, and where it cannot be read.
    OSError
        Where the checkpoint cannot be opened.
    """
    preset = _preset(given.preset)
    files = list(files_of(given.checkpoint, given.expert).values())
    known: dict[str, Any] = {"data_dir": Path("data"), "precision": "float32"}
    if given.download and not library(given.model):
        raise ValueError("--download: fetches weights of a --model of another library, such as timm:NAME; name one")
    if given.model is not None:
        check_factory(given.model, arch=given.arch, normalizer=given.normalizer)
        return _start(given, _denoised(given, known | preset), f"--model {given.model}")
    if files:
        if len(files) > 1:  # several networks, which may disagree
            known["rule"] = "anchor"
        known |= preset | _from_training(training_config(files[0])) | {"out": files[0].parent / BESIDE}
        return _start(given, _denoised(given, known), str(files[0]))
    for name in ("arch", "normalizer", "preset"):
        if getattr(given, name) is not None and (name, given.preset) != ("preset", PAPER):
            raise ValueError(f"--{name} {getattr(given, name)}: describes a --checkpoint; name one")
    if given.dataset not in (None, "digits"):
        raise ValueError(f"--dataset {given.dataset}: needs a base classifier; name one with --checkpoint")
    return _start(given, {**DEMONSTRATION, **preset}, "the demonstration")


def _start(given: CertifySettings, known: Mapping[str, Any], source: str) -> Start:
    """Fill in what is known of that which was left open; `source` is who should have said the rest."""
    known = {**DEFAULTS, **known}
    unsaid = not given.expert and not given.sigmas and all(getattr(given, name) is None for name in GRID)
    if given.router is not None and unsaid:
        given = replace(given, sigmas=load_router(given.router).levels)
    elif unsaid and "sigmas" in known:
        given = replace(given, sigmas=known["sigmas"])
    unasked = GRID if given.expert or given.sigmas else ()  # then these are the levels
    if given.classifier == "router":  # there are no regions, whatever a preset says of them
        unasked = (*unasked, "overlap")
    known = {name: value for name, value in known.items() if name not in unasked and getattr(given, name) is None}
    filled = _laddered(replace(given, **known))
    if missing := [name for name in still_open(filled) if name not in ("overlap", "classifier")]:
        raise ValueError(f"{source} says nothing of {_unsaid(missing[0])}")
    if given.dataset is None and own_data(filled.dataset):
        again = asked_again(f"--dataset {filled.dataset}", str(filled.dataset))
        raise ValueError(f"{source} names a data set that is code of your own, which a file alone never runs: {again}")
    if (out := filled.out) is None:
        raise ValueError(f"{source} says nothing of a folder to write into: give --out")
    filled = _routed(filled)
    if filled.overlap is None:
        filled = replace(filled, overlap=_overlap(filled))
    return Start(settled(filled), out, filled.resume, filled.overwrite, filled.share, filled.download)


def _unsaid(name: str) -> str:
    """Return what a setting that is missing decides, and the flags that say it."""
    if name in GRID:
        return "noise levels: give --sigmas, or --sigma-min, --sigma-max and --sigma-step"
    return f"{name.replace('_', ' ')}: give --{name.replace('_', '-')}"


def _overlap(given: CertifySettings) -> Overlap:
    """Return the overlap mode of settings that leave it open."""
    if given.classifier == "router":  # there are no regions
        return "sigma"
    if len(_sigmas(levels_of(given))) == 1:  # regions need not be kept apart
        return "sigma"
    return "paper" if given.method == "greedy" else "joint"


def _routed(given: CertifySettings) -> CertifySettings:
    """Return settings that say in two words what chooses sigma: `classifier`, and `outside` where it is a router."""
    if not given.routed:
        return replace(given, classifier="regions")
    return replace(given, classifier=given.classifier or "both", outside="router")


def _laddered(given: CertifySettings) -> CertifySettings:
    """Return settings in which --max-n has become --n and --rungs, and --n is said."""
    if given.max_n is None:
        return replace(given, n=SAMPLES) if given.n is None else given
    return replace(given, n=given.max_n, rungs=halved(given.max_n), max_n=None)


@dataclass(frozen=True, eq=False)
class ChosenImages:
    """The data set of a run, and the test images that are certified: their indices, of shape (n,)."""

    data: ImageData
    indices: Int64[np.ndarray, " n"]


def choose_images(start: Start) -> ChosenImages:
    """Read the data set and choose among its test images.

    Raises
    ------
    ValueError
        Where a setting cannot be honoured, or files cannot be used.
    """
    settings = start.settings
    data = load_data(settings.dataset, settings.data_dir, image_size=settings.image_size, train=settings.trained_here)
    indices = lined_up(len(data.test_labels), settings.image_order, settings.indices)[:: settings.skip][: settings.max]
    return ChosenImages(data, indices)


def load(start: Start, chosen: ChosenImages | None = None, *, progress: bool | Progress = False) -> Inputs:
    """Read data and classifier; without a checkpoint, train one on the digits, which takes seconds.

    Parameters
    ----------
    start : Start
    chosen : ChosenImages, optional
        What `choose_images` returned.
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.

    Raises
    ------
    ValueError
        Where a setting cannot be honoured, or files cannot be used.
    OSError
        Where the checkpoint cannot be opened.
    """
    settings = start.settings
    sigmas = _sigmas(settings.levels)
    settings.mode.check_outside(sigmas.tolist())
    device = str(usable_device(settings.device))
    chosen = choose_images(start) if chosen is None else chosen
    data, indices = chosen.data, chosen.indices
    remedy = "choose across classes by --image-order shuffled, --skip or --indices"
    warn_of_one_class(data.test_labels[indices], data.test_labels, remedy)
    sampler = make_sampler(settings.sampler)
    in_bytes = settings.router is None and settings.mode.outside is None
    in_bytes = in_bytes and len(indices) * math.prod(data.test_images.shape[1:]) > MOST_FLOATS

    def look(_: int, some: Tensor) -> None:
        nonlocal in_bytes
        sampler.check(some)
        in_bytes = in_bytes and as_bytes(some.numpy()) is not None

    images = RunImages(data.test_images, indices, look=look)
    base, loaded = base_classifiers(start, data, device=device, progress=progress)
    denoiser = None
    if settings.denoiser is not None:
        denoiser = read_denoiser(settings.denoiser, sigmas.tolist(), images.shape[1:])
        base = denoiser.before(base, sigmas.tolist())
    batch = _found_batch(start.out, device) if start.resume else None
    labels = data.test_labels[indices]
    inputs = Inputs(
        settings,
        data,
        base,
        sigmas,
        indices,
        labels,
        images,
        device,
        batch,
        loaded,
        in_bytes=in_bytes,
        folder=start.out,
        denoiser=denoiser,
    )
    if settings.router is None:
        return inputs
    always = settings.router_always
    router = read_router(settings.router, sigmas.tolist(), images.shape[1:], inputs.classifier, always=always)
    return replace(inputs, router=router)


def _found_batch(out: Path, device: str) -> int | None:
    """Return how many noisy images a pass had when a run began; None where none has, and where memory decides."""
    if device != "cpu" or not (out / CONFIG).is_file():
        return None
    manifest = read_description(out).manifest
    batch, shape = manifest.get("batch"), manifest["data"]["shape"]
    if manifest["device"] != device or batch is None or batch * math.prod(shape) > _MOST_NUMBERS:
        return None
    return int(batch)


def _preset(name: str | None) -> dict[str, Any]:
    """Return what a preset says: of the paper's way to certify, or of srs-train's data set and noise levels."""
    if name is None:
        return {}
    if name == PAPER:
        return dict(PRESET)
    if name not in PRESETS:
        raise ValueError(f"--preset {name}: choose {', '.join((PAPER, *PRESETS))}")
    known = _from_training(PRESETS[name][1].to_dict())
    return {key: known[key] for key in ("dataset", *GRID)}


def _from_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training run's configuration says about certifying its model."""
    known = {name: config.get(name) for name in ("dataset", "image_size", "precision")}
    if "data_dir" in config:
        known["data_dir"] = Path(config["data_dir"])
    sigma = config.get("sigma")
    if config.get("sigmas") is not None:
        known["sigmas"] = tuple(config["sigmas"])
    elif sigma is None:
        known |= {name: config.get(name) for name in GRID}
    elif sigma > 0:  # trained without noise, it says nothing about levels
        known |= dict.fromkeys(GRID, sigma)
    return {name: value for name, value in known.items() if value is not None}


def _denoised(given: CertifySettings, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known with the noise levels of the run's denoiser, where there is one and its file says them."""
    theirs = {}
    if given.denoiser is not None:
        load_denoiser(given.denoiser)  # says what is wrong with the file before its levels are missed
        theirs = _from_training(training_config(given.denoiser))
    levels = {name: theirs[name] for name in GRID if name in theirs}
    return {name: value for name, value in known.items() if not levels or name != "sigmas"} | levels


def _sigmas(levels: Levels) -> Float64[np.ndarray, " k"]:
    if isinstance(levels, Experts):
        return np.array(list(levels.files))
    if isinstance(levels, Listed):
        return np.array(levels.sigmas)
    low, high, step = map(float, (levels.sigma_min, levels.sigma_max, levels.sigma_step))
    if step > 0 and (high - low) / step > MOST_LEVELS:
        raise ValueError(f"--sigma-step {step}: more than {MOST_LEVELS:,} levels; take larger steps")
    return sigma_grid(low, high, step)
