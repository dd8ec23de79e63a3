"""What all training runs in a folder share: one network learns in stages, and the checkpoint says how far it came."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import nn

from smoothing.machine import processes, usable_device
from smoothing.progress import Progress
from training.checkpoints import save_checkpoint
from training.data import Images
from training.loop import Learner, fit
from training.run_folder import CHECKPOINT, Logs, are_epochs, saved_state
from training.settings import TrainSettings
from training.stage import Stage


class StagedRun(ABC):
    """Where a run stands: the network, the stage that it is in, and the epochs so far.

    Attributes
    ----------
    settings : TrainSettings
    progress : bool or callable
    net : torch.nn.Module
        What learns, and is saved.
    epochs : list of dict
        What each epoch reported, of all stages.
    logs : Logs, optional
        The table and the trackers; None in processes that write nothing.
    """

    def __init__(self, settings: TrainSettings, progress: bool | Progress, net: nn.Module) -> None:
        self.settings, self.progress, self.net = settings, progress, net
        self.epochs: list[dict[str, Any]] = []
        self.logs: Logs | None = None
        self._state: dict[str, Any] | None = None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return usable_device(processes().device if self.settings.device == "auto" else self.settings.device)

    @abstractmethod
    def train(self) -> None:
        """Train through all stages of the method, from where the checkpoint stands."""

    @abstractmethod
    def entries(self) -> dict[str, Any]:
        """Return what the checkpoint holds beside network, settings, epochs and the state of the stage."""

    @abstractmethod
    def take_up(self, saved: Mapping[str, Any]) -> None:
        """Take up these entries from a checkpoint; `ValueError` where they are not of this run."""

    def resume(self) -> None:
        """Take up what the checkpoint holds, if there is one."""
        saved = saved_state(self.settings, self.net)
        if saved is None:
            return
        self.take_up(saved)
        state, epochs = saved.get("state"), saved.get("epochs")
        if not isinstance(state, dict) or not all(map(are_epochs, (epochs, state.get("history")))):
            raise self.unknown_progress()
        self._state, self.epochs = state, list(epochs or ())

    def unknown_progress(self) -> ValueError:
        """Return the error about a checkpoint from which nobody can go on."""
        file = self.settings.out / CHECKPOINT
        return ValueError(f"{file} does not say how far training came: restore it, or begin in another folder")

    def fit(
        self,
        model: nn.Module,
        images: Images,
        labels: Int64[np.ndarray, " labels"] | Float32[np.ndarray, "labels k"],
        *,
        stage: Stage,
        kind: type[Learner] | None = None,
    ) -> None:
        """Train through a stage, from where the checkpoint stands; `training.fit` names the arguments."""
        earlier = [row for row in self.epochs if row["stage"] != stage.name]
        begun = len(earlier) < len(self.epochs)

        def keep(state: dict[str, Any]) -> None:
            self._state, self.epochs = state, [*earlier, *state["history"]]
            if self.logs is not None:
                self.save()
                self.logs.add(self.epochs)

        fit(
            model,
            images,
            labels,
            stage=stage,
            engine=self.settings.engine,
            seed=self.settings.seed,
            state=self._state if begun else None,
            after_epoch=keep,
            progress=self.progress,
            kind=kind,
        )

    def save(self) -> None:
        """Replace the checkpoint, and forget what it holds now and what was kept only until then."""
        save_checkpoint(
            self.settings.out / CHECKPOINT,
            self.net,
            arch=self.settings.model,
            config=self.settings.to_dict(),
            epochs=self.epochs,
            state=self._state,
            **self.entries(),
        )
        for partial in self.settings.out.glob("*.partial.*"):
            partial.unlink()
