"""Votes of a base classifier under noise: what certificates, and tables of votes, are made of."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor, nn

from smoothing import _validate, _validate_inputs
from smoothing._voting.engine import VoteCounter
from smoothing._voting.noise import DEFAULT_STREAM
from smoothing._voting.probing import fixed_images, logits_text
from smoothing._voting.samplers import make_noise
from smoothing._voting.sizing import BatchSize
from smoothing.adaptive import Ladder, climb
from smoothing.arithmetic import PRECISIONS, check_precision
from smoothing.forward import evaluating, one_line, refuse_lazy
from smoothing.identity import SCHEME, hash_bank
from smoothing.machine import default_workers, usable_device
from smoothing.results import Identity
from smoothing.selection import Outcome, Plan, select
from smoothing.votes import Tally

#: Modes of `torch.compile` that may be asked for.
_MODES = ("max-autotune", "reduce-overhead")


class Voter:
    """A base classifier that votes on images under noise, and an account of which one it is.

    `SmoothedClassifier` says what the parameters are, and concludes from the votes. Files of votes are drawn with
    what is here alone: `begin`, and then any of the methods below it.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[float, nn.Module],
        num_classes: int,
        *,
        sampler: str = "gaussian",
        stream: str = DEFAULT_STREAM,
        precision: str = "float32",
        compile: bool | str = False,  # noqa: A002 - what PyTorch calls it
        channels_last: bool = True,
        batch_size: int | None = None,
        threads: int | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        noise_on: str = "auto",
    ) -> None:
        self.device = usable_device(device)
        self.num_classes = _validate.check_count("num_classes", num_classes, least=2)
        threads = _validate.check_count("threads", default_workers(self.device) if threads is None else threads)
        given = None if batch_size is None else _validate.check_count("batch_size", batch_size)
        precision = _validate.check_choice("precision", precision, PRECISIONS)
        check_precision(precision, self.device)
        _validate.check_choice("compile", compile, (False, True, *_MODES))
        seed = _validate.check_seed(seed)
        noise = make_noise(sampler, stream, seed)
        bank = _validate_inputs.check_models(model)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for base in bank.values():
            refuse_lazy(base)
            with one_line(f"the model cannot be moved to {self.device}"):
                base.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
            evaluating(base)
        self._bank = bank
        self._engine = VoteCounter(
            {level: _compiled(base, self.device, compile) if compile else base for level, base in bank.items()},
            self.num_classes,
            seed=seed,
            device=self.device,
            threads=threads,
            precision=precision,
            channels_last=channels_last,
            noise=noise,
            size=BatchSize(given, self.device, threads, timed=not compile),
            on_device=_on_device(noise_on, stream, self.device),
        )
        self._compiled = compile
        self._voting = self.identity

    @property
    def identity(self) -> Identity:
        """What is smoothed, as it is now: a model that somebody has changed meanwhile is another classifier."""
        engine = self._engine
        return Identity(
            hash_bank(self._bank),
            self.num_classes,
            engine.precision,
            engine.noise.name,
            self._compiled,
            engine.seed,
            SCHEME,
            engine.noise.stream,
        )

    @property
    def batch_size(self) -> int:
        """Noisy images per forward pass, as given or as found for the latest images; before the first a guess."""
        return self._engine.size.latest

    @property
    def threads(self) -> int:
        """Workers that fill and run batches at the same time."""
        return self._engine.threads

    def base(self, sigma: float) -> nn.Module:
        """Return the base classifier that votes at a noise level, on `device` and not compiled: for gradients.

        Whoever changes it makes another classifier of this one. `ValueError` where that level has none.
        """
        self._engine.model(sigma)
        return self._bank[None if None in self._bank else sigma]

    def check_logits(self, shape: Sequence[int]) -> list[str]:
        """Return the base classifiers' logits for fixed images of shape (C, H, W), as text for a record.

        A check beside `identity`: it also sees code, within rounding (`smoothing.fingerprint.classifier_difference`).
        """
        return logits_text(self._engine.logits(fixed_images(shape)))

    def base_predict(self, images: ArrayLike | Tensor, sigmas: ArrayLike) -> Int64[np.ndarray, "n k"]:
        """Return the class that each level's base classifier gives each image without noise.

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigmas : array of shape (k,)
            Noise levels, increasing.
        """
        pixels, _ = self._images(images, None)
        return self._engine.classes(pixels, _validate.check_grid(sigmas))

    def _images(
        self, images: ArrayLike | Tensor, indices: ArrayLike | None
    ) -> tuple[Float32[Tensor, "n c h w"], Int64[np.ndarray, " n"]]:
        pixels = _validate_inputs.check_images(images)
        self.begin(pixels)
        return pixels, _validate.check_indices(indices, len(pixels))

    def begin(self, pixels: Float32[Tensor, "n c h w"]) -> Identity:
        """See that checked images can be voted on, and return which classifier will, before any forward pass.

        :meta private:
        """
        self._engine.noise.check(pixels)
        now = self.identity
        if now != self._voting:
            self._engine.forget()
        self._voting = now
        return now

    def clean_classes(
        self, images: Float32[Tensor, "n c h w"], sigma: Float64[np.ndarray, "n k"]
    ) -> Int64[np.ndarray, "n k"]:
        """Return what each level's base classifier says without noise about images that `begin` has seen.

        :meta private:
        """
        grid, where = np.unique(sigma, return_inverse=True)
        found = self._engine.classes(images, grid)
        return np.asarray(np.take_along_axis(found, where.reshape(sigma.shape), axis=1))

    def select_votes(
        self,
        images: Float32[Tensor, "n c h w"],
        indices: Int64[np.ndarray, " n"],
        sigma: Float64[np.ndarray, "n k"],
        *,
        plan: Plan,
        labels: Int64[np.ndarray, " n"] | None = None,
    ) -> tuple[Outcome, Tally]:
        """Draw selection samples of images that `begin` has seen; `selection.select` names the arguments.

        :meta private:
        """

        def count(wanted: Bool[np.ndarray, "n k"], start: int, stop: int) -> Int64[np.ndarray, "n k classes"]:
            return self._engine.count(images, indices, sigma, wanted, start, stop, "select")

        return select(count, sigma, plan, labels)

    def count_votes(
        self,
        images: Float32[Tensor, "n c h w"],
        indices: Int64[np.ndarray, " n"],
        sigma: Float64[np.ndarray, "n k"],
        *,
        wanted: Bool[np.ndarray, "n k"],
        start: int,
        stop: int,
        stage: str,
    ) -> Int64[np.ndarray, "n k classes"]:
        """Count the votes of samples start to stop - 1 of a stage, of images that `begin` has seen, where wanted.

        :meta private:
        """
        return self._engine.count(images, indices, sigma, wanted, start, stop, stage)

    def estimate_votes(
        self,
        images: Float32[Tensor, "n c h w"],
        indices: Int64[np.ndarray, " n"],
        sigma: Float64[np.ndarray, "n k"],
        *,
        wanted: Bool[np.ndarray, "n k"],
        classes: Int64[np.ndarray, "n k"],
        share: Float64[np.ndarray, "n k"],
        ladder: Ladder,
        alpha: float,
    ) -> Tally:
        """Draw estimation samples of images that `begin` has seen; `adaptive.climb` names the arguments.

        :meta private:
        """

        def count(active: Bool[np.ndarray, "n k"], start: int, stop: int) -> Int64[np.ndarray, "n k classes"]:
            return self._engine.count(images, indices, sigma, active, start, stop, "estimate")

        return climb(ladder, alpha, classes, share, wanted, count)


def _on_device(noise_on: str, stream: str, device: torch.device) -> bool:
    """Whether noise is to be made where the model runs."""
    where = _validate.check_choice("noise_on", noise_on, ("auto", "cpu", "device"))
    if where == "device" and stream != DEFAULT_STREAM:
        raise ValueError(f"noise_on = 'device': stream {stream!r} is made on the CPU; take {DEFAULT_STREAM!r}")
    return where == "device" or (where == "auto" and device.type != "cpu" and stream == DEFAULT_STREAM)


def _compiled(base: nn.Module, device: torch.device, mode: bool | str) -> nn.Module:
    if isinstance(mode, str):
        return torch.compile(base, dynamic=False, mode=mode)  # type: ignore[return-value]
    # On CPUs in C++ as a whole: where Python steps through compiled code it holds its lock, and threads take turns.
    whole = device.type == "cpu"
    module: nn.Module = torch.compile(base, dynamic=False, options={"cpp_wrapper": whole})  # type: ignore[assignment]
    return module
