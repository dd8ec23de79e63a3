"""The folder of a training run: whose it is, what it holds, and its logs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from filelock import FileLock, Timeout
from torch import nn

from smoothing.reading import read_yaml
from smoothing.storage import check_folder, forget_partial, replacing
from training.checkpoints import read_state, training_config
from training.loop import Epoch
from training.settings import CIRCUMSTANCES, LEFT_OUT, TrainSettings
from training.tracking import started

#: What a run's folder holds.
CHECKPOINT, CONFIG, LOG, LOCK = "checkpoint.pt", "config.yaml", "log.tsv", ".lock"


class Logs:
    """The table of a run and what a tracker shows: they say what the checkpoint says, whatever was interrupted when."""

    def __init__(self, settings: TrainSettings, epochs: list[dict[str, Any]]) -> None:
        self._settings, self._file = settings, settings.out / LOG
        self._earlier = epochs
        self._written = 0

    def __enter__(self) -> "Logs":
        self._trackers = started(self._settings.tracker, self._settings.out, self._settings.to_dict())
        if self._earlier:
            self.add(self._earlier)
        return self

    def __exit__(self, *exception: object) -> None:
        for tracker in self._trackers:
            tracker.finish()

    def add(self, epochs: list[dict[str, Any]]) -> None:
        """Write the table of all epochs so far, and show the new ones."""
        names = [f.name for f in fields(Epoch)]
        with replacing(self._file) as stream:
            lines = [
                names,
                *(
                    [f"{row[name]:.6g}" if isinstance(row[name], float) else str(row[name]) for name in names]
                    for row in epochs
                ),
            ]
            stream.write("".join("\t".join(line) + "\n" for line in lines).encode())
        for step in range(self._written, len(epochs)):
            shown = ("loss", "accuracy", "lr", "images_per_second")
            values = {f"{epochs[step]['stage']}/{name}": epochs[step][name] for name in shown}
            for tracker in self._trackers:
                tracker.log(values, step=step)
        self._written = len(epochs)


def check_run_folder(settings: TrainSettings) -> None:
    """Raise where --out cannot be begun, or cannot be gone on with; nothing is written."""
    out = settings.out
    check_folder(out, "--out", (LOCK,))
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / CONFIG).is_file():
        raise ValueError(f"--out {out}: holds files but no training run; name another folder")
    if not settings.resume:
        raise ValueError(f"--out {out}: holds a run already; go on with it by --resume, or name another folder")
    before = read_yaml(out / CONFIG, "restore it, or begin in another folder")
    check_same(out / CONFIG, before, settings.to_dict())


def saved_state(settings: TrainSettings, net: nn.Module) -> dict[str, Any] | None:
    """Return what the checkpoint of a run holds, which must be of these settings; None where there is none."""
    file = settings.out / CHECKPOINT
    if not file.exists():
        return None
    saved = read_state(file, net)
    names = {"model": settings.model, "normalizer": settings.normalizer}
    check_same(file, {"model": saved.get("arch"), "normalizer": saved.get("normalizer")}, names)
    check_same(file, training_config(file), settings.to_dict())
    return saved


def check_same(file: Path, before: Mapping[Any, Any], now: Mapping[str, Any]) -> None:
    """Raise where a file is of a run with other settings; only where and how it is computed may differ."""
    before, now = {**LEFT_OUT, **before}, {**LEFT_OUT, **now}
    for name, value in now.items():
        there = before.get(name)
        plain = isinstance(there, str | int | float | None) or _are_numbers(there)
        if name not in CIRCUMSTANCES and not (plain and there == value):
            raise ValueError(
                f"--{name.replace('_', '-')} {_brief(value)}: the run in {file.parent} has {_brief(there)}; give the "
                "same, or begin in another folder"
            )
    unknown = [name for name in before if name not in now]
    if unknown:
        raise ValueError(f"{file} holds {_brief(unknown[0])}, which is no setting here: begin in another folder")


def _brief(value: Any) -> str:
    """Return a short text of whatever a file holds."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"an integer of {value.bit_length()} bits"
    if _are_numbers(value):
        return " ".join(map(_brief, value))[:100]
    return str(value)[:100] if isinstance(value, str | float | int | None) else f"a {type(value).__name__}"


def _are_numbers(value: Any) -> bool:
    """Whether this is a list of numbers, as a setting may be."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, int | float) for one in value)


def are_epochs(rows: Any) -> bool:
    """Whether these are what `Epoch` holds, as plain values."""
    kinds = get_type_hints(Epoch)
    return isinstance(rows, list) and all(
        isinstance(row, dict) and row.keys() == kinds.keys() and all(type(row[k]) is kinds[k] for k in kinds)
        for row in rows
    )


@contextmanager
def claimed(settings: TrainSettings) -> Iterator[None]:
    """Make the folder this process's own, and describe the run in it."""
    settings.out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.out / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ValueError(f"--out {settings.out}: another process trains there; let it finish, or stop it") from error
    with lock:
        for name in (CHECKPOINT, CONFIG, LOG):
            forget_partial(settings.out / name)
        if not (settings.out / CONFIG).exists():
            with replacing(settings.out / CONFIG) as stream:
                stream.write(yaml.safe_dump(settings.to_dict(), sort_keys=False).encode())
        yield
