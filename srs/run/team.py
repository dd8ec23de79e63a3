"""Who does which share of a run: one process, those of a launcher, or starts that know nothing of each other."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from smoothing.drawing.draw import Missing
from smoothing.drawing.stages import Share
from smoothing.machine import processes
from srs.run.folder import own_file
from srs.run.run_settings import Start


@dataclass(frozen=True)
class Team:
    """What a process is to do of a run.

    Attributes
    ----------
    share : Share
        Which images.
    launched : bool
        Whether a launcher, such as torchrun, started other processes for the others: they are waited for.
    apart : bool
        Whether the others are started by themselves, with --shard: nobody waits, and whoever comes last finishes.
    meet : callable
        Waits until all launched processes have come here.
    """

    share: Share
    launched: bool
    apart: bool
    meet: Callable[[], None]

    @property
    def leads(self) -> bool:
        """Whether the process begins the run, shows progress and prints."""
        return self.apart or self.share.number == 0

    def lacking(self, missing: Missing) -> str:
        """Say what is missing, and what to do about it."""
        images = f"{len(missing.images)} images lack their {missing.stage} samples"
        again = "" if missing.stage == "estimation" else ", then this one again"
        return (
            f"shard {self.share} is done; {images}, of shard {missing.shares(self.share.of)}: start the same command "
            f"for these{again}"
        )


def team_of(start: Start) -> Team:
    """Return this process's part, by `--shard` or by the launcher's environment.

    Raises
    ------
    ValueError
        Where both share out the work, and where a launcher would share out training.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if start.share is not None:
        share = Share(*start.share)
        if launched:
            raise ValueError(f"--shard {share}: torchrun shares out the images already; use one of the two")
        return Team(share, launched=False, apart=True, meet=lambda: None)
    if not launched:
        return Team(Share(), launched=False, apart=False, meet=lambda: None)
    if start.settings.trained_here and not own_file(start.out).exists():
        raise ValueError("torchrun shares out images, not training: name a --checkpoint, or start without torchrun")
    group = processes(start.settings.device)
    return Team(
        Share(group.process_index, group.num_processes), launched=True, apart=False, meet=group.wait_for_everyone
    )
