"""A run's folder: what is in it, whose it is, and who may write it."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from smoothing.drawing.draw import LOCK, owned_by_nobody_else
from smoothing.drawing.files import ESTIMATION, LEVELS, ROUTES, SELECTION
from smoothing.fingerprint import classifier_difference, difference
from smoothing.reading import read_json, read_yaml
from smoothing.storage import check_folder, forget_partial, locked, replacing
from srs.run.denoiser import weights_of
from srs.run.description import check_manifest
from srs.run.router import router_difference
from srs.run.run_settings import RunSettings, settings_of
from srs.run.settings import CIRCUMSTANCES, EARLIER

FORMAT = 2
"""Of the folder: a program that knows a smaller one cannot read it. Format 1 kept the votes for one class."""

CONFIG, MANIFEST, SUMMARY, REGIONS = "config.yaml", "manifest.json", "summary.json", "regions.npz"
MODEL, OLD_MODEL = "model.safetensors", "model.pt"
CERTIFICATES, COMPARISON, CURVES = "certificates.tsv", "comparison.tsv", ("curves.png", "curves.pdf")
CARD = "README.md"

#: Columns of `certificates.tsv` after the six usual ones; those of format 1, which knew nothing of the runner-up.
OLD_EXTRA = ("sigma", "R", "r", "p_lower", "region", "counts", "n")
EXTRA = (*OLD_EXTRA, "p_upper", "runner_up", "runner_up_counts", "share")

RUN_FILES = frozenset(
    {CONFIG, MANIFEST, MODEL, SELECTION, LEVELS, ESTIMATION, CERTIFICATES, COMPARISON, REGIONS, *CURVES, CARD, SUMMARY}
    | {OLD_MODEL, LOCK, *ROUTES.values()}
)
"""What a finished run may hold."""

_VOTES = "|".join(map(re.escape, (SELECTION, ESTIMATION, *ROUTES.values())))

_WORKING = re.compile(rf"({_VOTES})\.part[0-9]+|{re.escape(LOCK)}[0-9]+")
"""Names of the files that each process writes until a run is finished."""

#: What there may be before `config.yaml`, which is written last of a run's description.
_BEGINNING = frozenset({MANIFEST, MODEL, OLD_MODEL, LOCK})

#: What of the manifest must be the same for a run to go on, beside the classifier.
IDENTITY = ("data", "sigmas")

_REMEDY = "restore it, or begin in another folder"


@dataclass(frozen=True)
class Description:
    """What a run says about itself.

    Attributes
    ----------
    config, manifest : dict
        What `config.yaml` and `manifest.json` hold.
    settings : RunSettings
        The run's settings, as `config` has them.
    """

    config: dict[str, Any]
    manifest: dict[str, Any]
    settings: RunSettings


def own_file(folder: Path) -> Path:
    """Return where a run keeps the demonstration's classifier, or an earlier version kept it."""
    old = (folder / OLD_MODEL).exists() and not (folder / MODEL).exists()
    return folder / (OLD_MODEL if old else MODEL)


def is_run_file(name: str) -> bool:
    """Whether a run writes a file of this name, and replacing it may delete it."""
    return name in RUN_FILES or _WORKING.fullmatch(name) is not None


def check_begun(out: Path) -> None:
    """Raise `ValueError` where `out` holds nothing of a run that could be gone on with."""
    if not out.is_dir() or not _names(out) - {LOCK}:
        raise ValueError(f"--resume: there is no run in {out}; leave --resume out to begin one, or name its --out")


def check_free(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise `ValueError` now, before any work, where a run cannot be begun or gone on with in `out`."""
    held = _names(out) if out.is_dir() else set()
    check_folder(out, "--out", sorted(RUN_FILES | {name for name in held if is_run_file(name)}))
    if out.is_dir() and not held <= _BEGINNING:
        if not (out / CONFIG).is_file() and not (out / SUMMARY).is_file():
            raise ValueError(f"--out {out}: holds files but no run; name another folder")
        if resume and not (out / CONFIG).is_file():
            raise ValueError(
                f"--out {out}: was written by an earlier version, which cannot be resumed; replace it with --overwrite"
            )
        if not resume and not overwrite:
            state = "a finished run" if (out / SUMMARY).is_file() else "an unfinished run; go on with it by --resume"
            raise ValueError(f"--out {out}: holds {state}; name another folder, or replace it with --overwrite")
        foreign = sorted(name for name in held if not is_run_file(name))
        if overwrite and foreign:
            raise ValueError(f"--out {out}: holds {foreign[0]}, which no run wrote, so --overwrite leaves it alone")


@contextmanager
def claimed(out: Path, *, overwrite: bool = False, wait: bool = False) -> Iterator[bool]:
    """Make the folder this process's own for as long as the context lasts: nobody else begins or finishes a run there.

    Gives whether a run has begun there; if not, `describe` begins one, after its own model, if any, was written. Where
    nothing came of it, the folder is left as it was.

    Parameters
    ----------
    out : path
    overwrite : bool, default=False
        Remove the run that the folder holds.
    wait : bool, default=False
        Wait for another process that is beginning or finishing a run there, instead of raising `ValueError`.
    """
    absent = [folder for folder in (out, *out.parents) if not folder.exists()]
    with _lock(out, wait=wait):
        fresh = _names(out) <= {LOCK}
        try:
            if overwrite:
                with owned_by_nobody_else(out):
                    for name in sorted(filter(is_run_file, _names(out) - {LOCK}), key=lambda name: name == CONFIG):
                        (out / name).unlink()
            for name in RUN_FILES:
                forget_partial(out / name)
            yield (out / CONFIG).exists()
        finally:
            if fresh and not (out / CONFIG).exists():  # nothing came of it; others wait for the lock until it is gone
                for name in _BEGINNING:
                    (out / name).unlink(missing_ok=True)
                for folder in absent:
                    with suppress(OSError):  # somebody else put something there
                        folder.rmdir()


@contextmanager
def _lock(out: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing, also where whoever held it last has removed it."""
    while True:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(locked(out / LOCK, out, wait=wait))
            except FileNotFoundError:
                continue
            yield
            return


def describe(out: Path, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json` and then `config.yaml`, with which a run has begun."""
    with replacing(out / MANIFEST) as stream:
        stream.write(json.dumps(dict(manifest), indent=2).encode() + b"\n")
    with replacing(out / CONFIG) as stream:
        stream.write(yaml.safe_dump(dict(config), sort_keys=False).encode())


def read_description(out: str | os.PathLike[str]) -> Description:
    """Return what a run says about itself, checked.

    Raises
    ------
    ValueError
        Where there is no run, where a newer version wrote it, or where a file is damaged.
    """
    out = Path(out)
    if not out.is_dir():
        raise ValueError(f"{out}: no such folder; name one that srs-certify wrote")
    if not (out / CONFIG).is_file() or not (out / MANIFEST).is_file():
        raise ValueError(f"{out}: holds no run; name a folder that srs-certify wrote")
    manifest = read_json(out / MANIFEST, _REMEDY)
    found = manifest.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError(f"{out / MANIFEST}: format = {str(found)[:20]!r} is not one of ours; restore the file")
    if found > FORMAT:
        raise ValueError(
            f"{out}: was written by a newer version of srs-certify (format {found}, this one knows {FORMAT}); update it"
        )
    config = read_yaml(out / CONFIG, _REMEDY)
    file = CONFIG
    try:
        settings = settings_of(config)
        file = MANIFEST
        check_manifest(manifest, settings)
    except ValueError as error:
        raise ValueError(f"{out / file} is damaged: {_REMEDY} ({error})") from error
    return Description(config, manifest, settings)


def check_same(out: Path, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Refuse to put two configurations into one folder."""
    found = read_description(out)
    before, described = found.config, found.manifest
    if described["format"] < FORMAT:
        raise ValueError(
            f"--out {out}: was written by an earlier version, which cannot be gone on with; srs-report shows it if it "
            "is finished; name another --out"
        )
    before = {**EARLIER, **before}
    for name in {**before, **config}:
        if name not in CIRCUMSTANCES and before.get(name) != config.get(name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{flag} {config.get(name)}: the run in {out} has {before.get(name)}; give the same, or name another "
                "--out"
            )
    if weights_of(manifest) != weights_of(described):
        raise ValueError(f"--out {out}: belongs to a run with another denoiser, or none; name another --out")
    if (what := classifier_difference(manifest, described)) is not None:
        raise ValueError(f"--out {out}: belongs to a run with another {what}; name another --out")
    if (what := router_difference(manifest.get("router"), described.get("router"))) is not None:
        raise ValueError(f"--out {out}: belongs to a run whose router has another {what}; name another --out")
    differs = difference({key: manifest[key] for key in IDENTITY}, {key: described.get(key) for key in IDENTITY})
    if differs is not None:
        key, here, there = differs
        raise ValueError(f"--out {out}: belongs to a run with another {key} ({there}, here {here}); name another --out")


def _names(out: Path) -> set[str]:
    """Return the names of the folder's files, but for partial ones of ours, which are swept."""
    return {
        file.name
        for file in out.iterdir()
        if not (file.name.startswith(".") and file.name.endswith(".partial") and file.is_file())
    }
