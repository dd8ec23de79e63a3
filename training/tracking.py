"""Trackers of experiments, by name: those that Accelerate knows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

TENSORBOARD = "tensorboard"
"""Keeps its files in the run's folder, in one of this name."""

PROJECT = "srs-train"
"""What runs are filed under elsewhere."""


def check_tracker(name: str | None) -> None:
    """Raise `ValueError` where there is no tracker of this name, or where what it needs is not installed."""
    if name is None:
        return
    known = sorted(LOGGER_TYPE_TO_CLASS)
    if name not in known:
        raise ValueError(f"--tracker {name}: choose {', '.join(known)}")
    if name not in map(str, get_available_trackers()):
        raise ValueError(f"--tracker {name}: is not installed; install it, such as with python -m pip install {name}")


def started(name: str | None, folder: Path, config: Mapping[str, Any]) -> Sequence[GeneralTracker]:
    """Begin a run of a tracker, none where there is no name; who began it finishes it.

    Each start of a training run begins a new one, or with TensorBoard replaces the events of the one before, and logs
    all epochs so far: so what is shown is whole.

    Parameters
    ----------
    name : str or None
    folder : Path
        For trackers that keep files.
    config : mapping
        The settings, for trackers that show them.
    """
    if name is None:
        return ()
    accelerator = Accelerator(log_with=name, project_dir=folder)
    if name == TENSORBOARD:  # its way to keep settings is another run each time; config.yaml has them
        accelerator.init_trackers(TENSORBOARD, init_kwargs={TENSORBOARD: {"purge_step": 0}})
    else:
        accelerator.init_trackers(PROJECT, config=dict(config))
    found: Sequence[GeneralTracker] = accelerator.trackers
    return found
