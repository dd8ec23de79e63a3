"""A finished run as a classifier: read, checked, and asked from Python, by `srs-predict` or by a service."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32
from numpy.typing import ArrayLike
from torch import Tensor, nn

from regions import OnlineAllocator, RegionMap
from smoothing.machine import usable_device
from srs.limits import OUTSIDE, named_outside
from srs.predict.images import as_images, decode
from srs.predict.online import Arrivals, arrive, identity_of, open_state
from srs.predict.predictor import Answers, Predictor
from srs.predict.run_classifier import ARGUMENTS, Words, fresh_seed, run_classifier, run_router
from srs.run.base_classifiers import Bank
from srs.run.folder import REGIONS, SUMMARY, Description, read_description
from srs.run.map import check_apart, read_summary, run_map
from srs.run.router import router_record
from srs.run.sources import Files

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a finished run's folder says, checked, before its classifier is loaded.

    Attributes
    ----------
    folder : Path
    described : Description
    regions : RegionMap
        The run's own, in which regions that must not overlap do not.
    outside : float, "router" or None
        The noise level outside every region, or that a router names it; None where G abstains there.
    """

    folder: Path
    described: Description
    regions: RegionMap
    outside: float | Literal["router"] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image."""
        channels, height, width = self.described.manifest["data"]["shape"]
        return channels, height, width


def read_run(folder: Path) -> FinishedRun:
    """Read a finished run, whoever the folder comes from; no code of it is run.

    Raises
    ------
    ValueError
        Where there is no finished run, where a file is damaged or another run's, and where regions overlap.
    """
    described, summary = read_description(folder), read_summary(folder)
    table = run_map(folder, described.manifest, summary)
    check_apart(folder / REGIONS, table, described.settings.overlap)
    return FinishedRun(folder, described, table, _outside(folder, described, summary))


def _outside(folder: Path, described: Description, summary: Mapping[str, Any]) -> float | Literal["router"] | None:
    """Return what decides outside every region of the run."""
    said = described.settings.mode.outside
    if said is None:
        return None
    level: Any = summary.get("outside")
    levels = ["router"] if said == "router" else described.manifest["sigmas"]
    if level not in levels or isinstance(level, bool) or said not in ("auto", level):
        raise ValueError(f"{folder / SUMMARY} is damaged: outside = {level!s:.40} is not the run's level; restore it")
    if said == "router":
        router = router_record(described.manifest)
        return "router" if router is None or router.level is None else router.level
    return float(level)


def _network_of(router: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Say which network names levels, as a checked manifest has it, whatever its seed; None where none does."""
    if router is None or router["classifier"] is None:
        return None
    certified = {name: value for name, value in router["classifier"].items() if name != "seed"}
    return {"classifier": certified, "sigma": router["sigma"]}


class LoadedRun:
    """The classifier G (Eq. 9) of a finished run, as `srs.load_run` returns it.

    Methods may be called from several threads, whose votes wait for each other: each call keeps all cores, or the
    accelerator, busy by itself. No two images share noise, and none is used again when the same image is asked about
    once more. A process that was forked after loading must load for itself, and is told so.

    Attributes
    ----------
    regions : RegionMap
        The run's regions.
    identity : dict
        Which classifier this is, as JSON has it: `classifier`, what was certified but for the run's seed;
        `regions`, the content hash of the map; `overlap`; `outside`, the run's level outside every region, or "router";
        and `router`, its network, but for the seed, and its own noise level, None without one. Equal for two loads of
        the same run; log it with every answer.
    shape : tuple (C, H, W)
        Of an image.
    num_classes : int
    alpha : float
        Failure probability of every answer.
    seed : int
        Repeats the answers to the same questions in the same order. Keep it secret: who knows it can search for images
        that the noise misleads.
    predictor : Predictor
        Who answers: for the toolkit itself.
    """

    def __init__(self, run: FinishedRun, predictor: Predictor, seed: int, *, stated: bool, words: Words) -> None:
        manifest = run.described.manifest
        self.regions, self.shape, self.seed = run.regions, run.shape, seed
        self.num_classes: int = manifest["classifier"]["num_classes"]
        self.alpha = predictor.alpha
        self._overlap, self._certified = run.described.settings.overlap, manifest["classifier"]
        self.identity: dict[str, Any] = identity_of(self._certified, self.regions) | {
            "overlap": self._overlap,
            "outside": run.outside,
            "router": _network_of(manifest.get("router")),
        }
        self.predictor, self._stated, self._words = predictor, stated, words
        self._outside = run.outside
        self._stores: dict[Path, OnlineAllocator] = {}
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"LoadedRun(shape={self.shape}, num_classes={self.num_classes}, regions={self.regions!r})"

    def predict(self, images: ArrayLike | Tensor, *, n: int = 1000, n0: int = 1000) -> Answers:
        """Answer by a vote of n samples: with probability at least 1 - alpha, per image, it is -1 or G(x).

        Parameters
        ----------
        images : array or tensor of shape (m, C, H, W) or (C, H, W)
            Floats in [0, 1], or 8-bit integers, which are divided by 255. C may be left out where it is 1.
        n : int, default=1000
            Votes per image: n passes of the base classifier.
        n0 : int, default=1000
            Samples per level that choose it, where `outside` is "best-sigma".

        Returns
        -------
        Answers
            Arrays of shape (m,), in the order of the images.

        Raises
        ------
        ValueError
            Where images have another shape or pixels that are none, or a number cannot be used.
        RuntimeError
            Where the model was changed after loading, or the process was forked from the one that loaded the run.
        """
        return self.predictor(self._images(images), n=n, n0=n0)

    def certify(self, images: ArrayLike | Tensor, *, n: int = 10_000, n0: int = 1000) -> Answers:
        """Certify G: with probability at least 1 - alpha, per image, G returns `predict` everywhere within `radius`.

        The radius is in l2 and in units of pixels in [0, 1]: min(R, distance to the region's boundary), or less where a
        region of another sigma decides nearer by. It rests on n fresh samples and holds whatever the run's own
        certificates are worth. Where no region holds the image it is 0, but for runs with a level outside every region:
        there it goes as far as the levels agree.

        Parameters
        ----------
        images
            As in `predict`.
        n : int, default=10_000
            Estimation samples per image.
        n0 : int, default=1000
            Selection samples per image, which guess the class.

        Returns
        -------
        Answers

        Raises
        ------
        ValueError, RuntimeError
            As `predict`.
        """
        return self.predictor.certify(self._images(images), n=n, n0=n0)

    def register(self, images: ArrayLike | Tensor, store: PathLike, *, n: int = 10_000, n0: int = 1000) -> Arrivals:
        """Certify images and give regions to those that none holds, in a file that grows (Algorithm 2).

        With probability at least 1 - alpha, per image: G over all regions of the file, now and later, returns `predict`
        everywhere within `radius`, because stored regions never change. Images are registered one after the other; what
        was registered before an error stays.

        Parameters
        ----------
        images
            As in `predict`.
        store : path
            The file, in a folder that exists. It is begun with the run's regions, and stays open until `close`. Threads
            and processes may share it, on one machine.
        n, n0 : int
            Estimation samples per image; selection samples per image and level.

        Returns
        -------
        Arrivals

        Raises
        ------
        ValueError
            As `predict`; where the file is another run's or damaged; where the run's overlap mode is "class"; and where
            the run was loaded with a seed, because noise that decided about one region must not decide about another.
        RuntimeError
            As `predict`.
        OSError
            Where the file cannot be opened, read or written. `TimeoutError` if other processes keep it busy.
        """
        if self._outside is not None:
            raise ValueError(
                f"the run has {named_outside(self._outside)} outside every region: a new region could end a "
                "certificate that was given; register with a run that has none"
            )
        if self._stated:
            seed = self._words.name.format("seed")
            raise ValueError(f"{seed}: noise that was used before would decide about new regions; drop it")
        pixels = self._images(images)
        return arrive(self._store(Path(store)), self.predictor, pixels, n=n, n0=n0)

    def decode(self, content: bytes, *, source: str = "the image") -> Float32[np.ndarray, "m c h w"]:
        """Read a picture file, or an array of one or many images in a .npy file, that came as bytes from anybody.

        Parameters
        ----------
        content : bytes
            Nothing is scaled, and nothing is unpickled. A picture of many more pixels than `shape` has is not decoded.
        source : str, default="the image"
            What errors call it.

        Returns
        -------
        float32 array of shape (m, C, H, W)
            Pixels in [0, 1].

        Raises
        ------
        ValueError
            One line, where the content is no such file, or holds images of another shape or pixels that are none.
        """
        return decode(content, math.prod(self.shape), self.shape, source=source)

    def close(self) -> None:
        """Close the files that `register` has opened. What was registered is stored already."""
        with self._opening:
            while self._stores:
                self._stores.popitem()[1].close()

    def __enter__(self) -> LoadedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _images(self, images: ArrayLike | Tensor) -> Float32[np.ndarray, "m c h w"]:
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        return as_images(array, math.prod(self.shape), self.shape, source="images")

    def _store(self, path: Path) -> OnlineAllocator:
        """Return the file, opened once."""
        path = path.absolute()
        with self._opening:
            if path not in self._stores:
                self._stores[path] = open_state(
                    path, self.regions, self._overlap, self._certified, called=self._words.store
                )
            return self._stores[path]


def load_run(
    folder: PathLike,
    model: str | nn.Module | Mapping[float, nn.Module] | None = None,
    *,
    checkpoint: PathLike | Mapping[float, PathLike] | None = None,
    router: PathLike | None = None,
    denoiser: PathLike | None = None,
    arch: str | None = None,
    device: str = "auto",
    outside: str = "abstain",
    alpha: float = 0.001,
    seed: int | None = None,
) -> LoadedRun:
    """Load a finished run as the classifier G (Eq. 9): what `srs-predict` asks, for programs.

    The folder may come from somebody else: its files are checked, its map must be its own and keep conflicting regions
    apart, the base classifier must be the one that was certified (its hash, and its logits for fixed images), and no
    code runs that is not named here.

    Parameters
    ----------
    folder : path
        What `srs-certify` wrote.
    model : str, torch.nn.Module or mapping of noise level to module, optional
        A run of a model of one's own, `package.module:factory`, needs that name again: building it runs its module,
        which must be importable. So does one of another library, `KIND:NAME` (`training.load_model`). Or the base
        classifier itself, or one for each level, for any run; it is moved to `device` and put in evaluation mode, and
        must not be changed afterwards.
    checkpoint : path, or mapping of noise level to path, optional
        Where the weights are now. Default: where the run found them; relative paths are relative to the current folder.
    router : path, optional
        Where the checkpoint of the run's router is now. Default: where the run found it.
    denoiser : path, optional
        Where the checkpoint of the run's denoiser is now. Default: where the run found it. A module that is given as
        `model` has its denoiser in it.
    arch : str, optional
        A run with an architecture of one's own, `package.module:factory`, needs that name again.
    device : str, default="auto"
        Where the classifier runs: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
    outside : {"abstain", "smallest-sigma", "nearest-region", "best-sigma"}, default="abstain"
        What to do with an image that no region holds: no answer, or a vote at the level that this rule names. Nothing
        is certified there. A run that was certified with a level outside keeps it, and takes no other rule.
    alpha : float, default=0.001
        Failure probability of every answer, per image.
    seed : int, optional
        In [0, 2**64); for tests, which want the same answers again. Default: drawn from the operating system, so that
        nobody can know the noise when choosing an image.

    Returns
    -------
    LoadedRun

    Raises
    ------
    ValueError
        Where the folder holds no finished run, or files that are damaged or another run's; where another classifier was
        certified; where code would run that was not named; where an argument cannot be used. One line.
    OSError
        Where a checkpoint cannot be opened.

    Notes
    -----
    Most of the time goes into the search for overlapping regions, once for each load: nothing to speak of for some
    hundred regions, seconds for 10,000.
    """
    if model is not None and checkpoint is not None:
        raise ValueError("model and checkpoint both name the base classifier: give one of them")
    files: Files | None = None
    if isinstance(checkpoint, Mapping):
        files = {float(level): Path(file) for level, file in sorted(checkpoint.items())}
    elif checkpoint is not None:
        files = {None: Path(checkpoint)}
    return open_classifier(
        read_run(Path(folder)),
        model=model,
        files=files,
        router=None if router is None else Path(router),
        denoiser=None if denoiser is None else Path(denoiser),
        arch=arch,
        device=device,
        outside=outside,
        alpha=alpha,
        seed=seed,
        words=ARGUMENTS,
    )


def open_classifier(
    run: FinishedRun,
    *,
    model: str | Bank | None,
    files: Files | None,
    router: Path | None,
    denoiser: Path | None,
    arch: str | None,
    device: str,
    outside: str,
    alpha: float,
    seed: int | None,
    words: Words,
) -> LoadedRun:
    """Load the classifier of a run that was read; `load_run` names the arguments, `words` those of errors."""
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**64):
        raise ValueError(f"{words.value.format('seed', seed)}: must be a whole number in [0, 2**64)")
    stated, stream = fresh_seed(seed)
    classifier = run_classifier(
        run.folder,
        run.described,
        seed=stream,
        device=str(usable_device(device)),
        files=files,
        model=model,
        arch=arch,
        denoiser=denoiser,
        words=words,
    )
    sigmas = run.described.manifest["sigmas"]
    if run.outside is not None:
        if outside != "abstain":
            given = words.value.format("outside", outside)
            raise ValueError(f"{given}: the run was certified with {named_outside(run.outside)} outside; leave it out")
        outside = "abstain" if run.outside == "router" else f"sigma={run.outside!r}"
    elif outside not in OUTSIDE:
        raise ValueError(f"{words.value.format('outside', outside)}: choose {', '.join(OUTSIDE)}")
    routed = run_router(run.folder, run.described, classifier, file=router, words=words)
    predictor = Predictor(classifier, run.regions, sigmas=sigmas, outside=outside, alpha=alpha, router=routed)
    return LoadedRun(run, predictor, stated, stated=seed is not None, words=words)
