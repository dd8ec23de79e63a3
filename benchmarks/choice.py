"""What cheap choices of training levels lose: Algorithm 1's step of Eq. 5 with a few passes an image against the grid.

Every way chooses a level for the same training images, and all are judged by the same fresh samples: 500 votes of every
image at every level, drawn once and kept in --tables, so that a stopped run goes on.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64
from _common import data_folder

from smoothing import SmoothedClassifier, sigma_grid
from smoothing.selection import RACE_RUNGS
from training import as_bytes, load_checkpoint, load_data, training_config
from training.chunks import FIRST_INDEX, in_chunks

N0, N_FRESH = 500, 500
GRID_RUNGS = (*(rung for rung in RACE_RUNGS if rung < N0), N0)


class Contest:
    """A model, its training images, and the votes that ways of choosing are judged by."""

    def __init__(self, checkpoint: Path, images: int, tables: Path, threads: int | None) -> None:
        config = training_config(checkpoint)
        data = load_data("mnist", data_folder())
        rows = np.random.default_rng(config["seed"]).permutation(len(data.train_labels))[:images]
        self.images, self.labels = as_bytes(data.train_images[rows]), data.train_labels[rows]
        self.sigmas = sigma_grid(config["sigma_min"], config["sigma_max"], config["sigma_step"])
        self.classifier = SmoothedClassifier(
            load_checkpoint(checkpoint), 10, precision=config["precision"], threads=threads, seed=config["seed"]
        )
        self.tables = tables
        tables.mkdir(parents=True, exist_ok=True)

    def votes(self, stage: str, rungs: tuple[int, ...]) -> Int64[np.ndarray, "n k rungs"]:
        """Votes for the label after so many samples of a stage, at every level."""
        k = len(self.sigmas)

        def count(rows: Int64[np.ndarray, " b"]) -> Float64[np.ndarray, "b width"]:
            import torch

            pixels = torch.from_numpy(self.images[rows])
            self.classifier.begin(pixels)
            sigma, found = np.tile(self.sigmas, (len(rows), 1)), []
            for start, stop in zip((0, *rungs), rungs, strict=False):
                votes = self.classifier.count_votes(
                    pixels,
                    FIRST_INDEX + rows,
                    sigma,
                    wanted=np.ones(sigma.shape, dtype=bool),
                    start=start,
                    stop=stop,
                    stage=stage,
                )
                found.append(np.take_along_axis(votes, self.labels[rows, None, None], axis=2)[..., 0])
            return np.cumsum(found, axis=0).transpose(1, 2, 0).reshape(len(rows), -1).astype(np.float64)

        name = f"{stage}-{self.classifier.identity.weights[:12]}.votes"
        found = in_chunks(
            count, len(self.labels), k * len(rungs), title=f"{stage} samples", partial=self.tables / name, progress=True
        )
        return found.astype(np.int64).reshape(-1, k, len(rungs))


def main() -> None:
    """Draw the tables, choose in every way, write rows and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of srs-train, after its first stage")
    parser.add_argument("--images", type=int, default=5000, help="training images (default: %(default)s)")
    parser.add_argument("--tables", type=Path, required=True, help="folder for the votes")
    parser.add_argument("--threads", type=int, help="of the classifier")
    options = parser.parse_args()
    contest = Contest(options.checkpoint, options.images, options.tables, options.threads)
    contest.votes("select", GRID_RUNGS)


if __name__ == "__main__":
    main()
