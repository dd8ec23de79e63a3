"""A folder of results appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smoothing.storage import check_folder


def check_free(out: Path, files: frozenset[str], *, overwrite: bool) -> None:
    """Raise `ValueError` now, before any work, where a folder of these files could not be put at `out` later."""
    check_folder(out, "--out", beside=True)
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise ValueError(f"--out {out}: holds files already; name another folder, or replace it with --overwrite")
        foreign = sorted({file.name for file in out.iterdir()} - files)
        if foreign:
            raise ValueError(
                f"--out {out}: holds {foreign[0]}, which this command did not write, so --overwrite leaves it alone"
            )


@contextmanager
def whole_folder(out: Path, files: frozenset[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to fill, and make it `out` if the block ends well; otherwise remove it and leave `out` alone.

    The folder is filled beside `out`, then renamed. With `overwrite`, what `out` holds of these files is replaced.
    """
    check_free(out, files, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    old = staging / "old"
    try:
        (staging / "new").mkdir()
        yield staging / "new"
        if out.exists():
            out.rename(old)
        (staging / "new").rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(staging)
