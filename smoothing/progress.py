"""How far a stage of work is: a bar on stderr, or calls of a function that shows it in its own way."""

from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) from time to time, as in `regions`."""


class Counter:
    """Counts the images of a stage as they are done.

    Parameters
    ----------
    progress : bool or Progress
        True: show a bar on stderr. A function: call it. False: do nothing.
    stage : str
        What is being done.
    total, done : int
        How many images there are, and how many were done before.
    """

    def __init__(self, progress: bool | Progress, stage: str, total: int, done: int = 0) -> None:
        self._tell = progress if callable(progress) else None
        self._stage, self._total, self._done = stage, total, done
        shown = progress is True
        self._bar = tqdm(total=total, initial=done, desc=stage, unit="image", leave=False, disable=not shown)
        self.advance(0)

    def __enter__(self) -> "Counter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, images: int) -> None:
        """Count images that were done."""
        self._done += images
        self._bar.update(images)
        if self._tell is not None:
            self._tell(self._stage, self._done, self._total)

    def note(self, **values: str) -> None:
        """Show values beside the bar, if there is one."""
        self._bar.set_postfix(values)
