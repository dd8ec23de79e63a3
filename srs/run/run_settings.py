"""A run's settings, nothing left open, as its `config.yaml` keeps them; what one start adds. Light to import."""

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from srs.modes import ROUTED, Mode
from srs.run.settings import (
    EARLIER,
    INVOCATION,
    MOST,
    Bound,
    CertifySettings,
    Classifier,
    Compile,
    ImageOrder,
    Method,
    Order,
    Overlap,
    Precision,
    Rule,
    Sampler,
    Stream,
)
from srs.run.sources import Files, experts, files_of

_KINDS = {name: kind for name, kind in get_type_hints(CertifySettings).items() if name not in INVOCATION}
"""What a run keeps, in the order of its file, and of which type that is."""

GRID = ("sigma_min", "sigma_max", "sigma_step")
"""What names the noise levels, unless each has a checkpoint of its own."""


@dataclass(frozen=True)
class Grid:
    """Noise levels: the multiples of `sigma_step` within [sigma_min, sigma_max]."""

    sigma_min: float
    sigma_max: float
    sigma_step: float

    @property
    def span(self) -> tuple[float, float]:
        """Between which numbers the levels are."""
        return self.sigma_min, self.sigma_max

    def kept(self) -> dict[str, Any]:
        """Return what `config.yaml` says of them."""
        return {**vars(self), "sigmas": (), "expert": ()}


@dataclass(frozen=True)
class Experts:
    """Noise levels of which each has a checkpoint of its own, as SIGMA=FILE."""

    pairs: tuple[str, ...]

    @property
    def files(self) -> dict[float, Path]:
        """The checkpoint of every level, levels increasing."""
        return experts(self.pairs)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest level."""
        return min(self.files), max(self.files)

    def kept(self) -> dict[str, Any]:
        """Return what `config.yaml` says of them."""
        return {**dict.fromkeys(GRID), "sigmas": (), "expert": self.pairs}


@dataclass(frozen=True)
class Listed:
    """Noise levels that are named one by one, increasing."""

    sigmas: tuple[float, ...]

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest level."""
        return self.sigmas[0], self.sigmas[-1]

    def kept(self) -> dict[str, Any]:
        """Return what `config.yaml` says of them."""
        return {**dict.fromkeys(GRID), "sigmas": self.sigmas, "expert": ()}


Levels: TypeAlias = Grid | Listed | Experts


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What decides a run; `CertifySettings` says what each means. None is an answer here, and no open question.

    Attributes
    ----------
    levels : Grid, Listed or Experts
        The noise levels.
    checkpoint, model : Path or None, str or None
        The base classifier, where no level has its own. Neither: the demonstration's, which the run itself trains.
    """

    levels: Levels
    checkpoint: Path | None
    model: str | None
    denoiser: Path | None
    router: Path | None
    router_always: bool
    arch: str | None
    normalizer: str | None
    dataset: str
    data_dir: Path
    image_size: int | None
    rule: Rule
    racing: bool
    chosen_only: bool
    overlap: Overlap
    classifier: Classifier
    outside: str
    method: Method
    order: Order | None
    sampler: Sampler
    stream: Stream
    n0: int
    n: int
    bound: Bound
    rungs: tuple[int, ...]
    min_gain: float | None
    target_loss: float | None
    alpha: float
    precision: Precision
    compile: Compile
    batch: int | None
    seed: int
    device: str
    image_order: ImageOrder | None
    indices: Path | None
    skip: int
    max: int | None

    @property
    def mode(self) -> Mode:
        """How regions are sized."""
        if self.classifier == "router":
            return ROUTED
        return Mode.of(self.overlap, self.method, self.order, self.outside)

    @property
    def compiled(self) -> bool | str:
        """What `SmoothedClassifier` calls the choice of --compile."""
        return {"no": False, "default": True}.get(self.compile, self.compile)

    @property
    def files(self) -> Files:
        """The checkpoints of the base classifier: none where it is code of the user's own, or the demonstration's."""
        return files_of(self.checkpoint, self.levels.pairs if isinstance(self.levels, Experts) else ())

    @property
    def trained_here(self) -> bool:
        """Whether the base classifier is the demonstration's, which no file but the run's own holds."""
        return not self.files and self.model is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: what `config.yaml` holds."""
        held = vars(self) | self.levels.kept()
        return {name: _plain(held[name]) for name in _KINDS}


@dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes
    ----------
    settings : RunSettings
        Of the run.
    out : Path
        Its folder.
    resume, overwrite : bool
        What to do with a run that the folder holds: go on with it, or replace it; neither: refuse.
    share : pair of int, or None
        Which share of how many to do, from 0; None: all.
    download : bool
        Whether weights that are not on this machine may be fetched.
    """

    settings: RunSettings
    out: Path
    resume: bool = False
    overwrite: bool = False
    share: tuple[int, int] | None = None
    download: bool = False


def still_open(given: CertifySettings) -> tuple[str, ...]:
    """Return the names of settings that a run decides and that nobody has said."""
    levels = () if given.expert or given.sigmas else GRID
    names = ("dataset", "data_dir", *levels, "n", "rule", "overlap", "classifier", "bound", "precision")
    return tuple(name for name in names if getattr(given, name) is None)


def levels_of(given: CertifySettings) -> Levels:
    """Return the noise levels, once they were said."""
    if given.expert:
        return Experts(given.expert)
    return Listed(given.sigmas) if given.sigmas else Grid(**{name: getattr(given, name) for name in GRID})


def settled(given: CertifySettings) -> RunSettings:
    """Return the settings of a run; `ValueError` where one of them is still open."""
    for name in still_open(given):
        raise ValueError(f"it lacks {name}")
    if (given.router is not None) != (given.outside == "router") or given.routed != (given.classifier != "regions"):
        raise ValueError(f"it says router = {given.router}, outside = {given.outside}, classifier = {given.classifier}")
    values = {f.name: getattr(given, f.name) for f in fields(RunSettings) if f.name != "levels"}
    return RunSettings(levels=levels_of(given), **values)


def settings_of(values: Mapping[str, Any]) -> RunSettings:
    """Return the settings of a run from what its `config.yaml` holds, as `RunSettings.to_dict` gave it.

    Raises
    ------
    ValueError
        Where one is missing, unknown, of another type, or cannot be honoured.
    """
    values = {**EARLIER, **values}
    for name in values:
        if name not in _KINDS:
            raise ValueError(f"{name!r} is no setting that is known here; a newer version may know it")
    for name, kind in _KINDS.items():
        if name not in values:
            raise ValueError(f"it lacks {name}")
        if not _fits(values[name], kind):
            raise ValueError(f"{name} = {str(values[name])[:60]!r} is no such setting")
    given = CertifySettings(**{name: _typed(value, _KINDS[name]) for name, value in values.items()})
    given.check()
    return settled(given)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a plain value may stand for a setting of this type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MOST
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind in (str, Path):
        return isinstance(value, str) and value != "" and "\0" not in value
    return isinstance(value, kind)


def _typed(value: Any, kind: Any) -> Any:
    """Turn what `_plain` made of a setting into the setting again."""
    if isinstance(value, list):
        return tuple(map(float, value)) if float in get_args(kind) else tuple(value)
    if Path in (kind, *get_args(kind)) and value is not None:
        return Path(value)
    return float(value) if float in (kind, *get_args(kind)) and value is not None else value


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
