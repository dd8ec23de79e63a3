"""The smoothed classifier: votes under noise, and what they certify (Cohen et al., 2019; Eq. 1, 2, 5, 7)."""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor

from smoothing import _validate
from smoothing.adaptive import Ladder
from smoothing.bounds import BOUNDS, counted_bounds
from smoothing.confidence import certified_radius, shared_alpha, top_two_p_value
from smoothing.deciding import ask, decide
from smoothing.results import ABSTAIN, Certificates, Decisions, Predictions, SigmaChoice
from smoothing.selection import RULES, Outcome, Plan
from smoothing.voter import Voter
from smoothing.votes import Counts


class SmoothedClassifier(Voter):
    """The class that a base classifier returns most often under Gaussian noise, g(x, sigma) of Eq. 1.

    Votes depend on (seed, stage, image index, sample) alone: not on the batch size, the threads or the order of the
    images. So the model must score an image the same way whatever else is in its batch, and every time: before a model
    votes on images of a shape, some batches see that it does, and it is refused where its logits move by more than
    rounding explains (`TOLERANCE` of `probing`). On CPUs in float32 rounding was found to move nothing; elsewhere
    it may move a vote where two classes tie to the last digits.

    Parameters
    ----------
    model : torch.nn.Module, or mapping of noise level to torch.nn.Module
        Maps float32 images of shape (b, C, H, W) to logits of shape (b, num_classes), or to something that holds them
        as `logits`; any normalisation is part of it. It gets copies, and may write into them. One for all levels, or
        "experts": one for every level that will be asked for. Modules are moved to `device` and put in evaluation mode.
        With several threads, their forward must not write into the module.
    num_classes : int
        At least 2.
    sampler : {"gaussian", "discrete"}, default="gaussian"
        "gaussian" adds float32 noise to any images in [0, 1]. "discrete" is exact, for images on the grid of 8-bit
        pixels: the base classifier is then the model after rounding its input to that grid.
    stream : {"philox4x32", "sfc64"}, default="philox4x32"
        Where random numbers come from. "philox4x32" gives the same bits on every device; "sfc64" is what runs of
        earlier versions used, made on the CPU.
    precision : {"float32", "tf32", "bfloat16"}, default="float32"
        "float32" is IEEE float32, whatever PyTorch's global settings say; "tf32" lets CUDA round the factors of
        products to 10 bits, which is faster, and is refused elsewhere; "bfloat16" runs the model under autocast. It is
        part of what is certified: predict with the same.
    compile : bool or {"max-autotune", "reduce-overhead"}, default=False
        Run the model through `torch.compile`, in that mode, for one fixed batch shape. Compiling takes up to a minute,
        and a C++ compiler on CPUs. Both modes use CUDA graphs.
    channels_last : bool, default=True
        Hand the model batches in channels-last memory, which convolutions like. Models that do not take them, because
        they call `view`, get contiguous memory.
    batch_size : int, optional
        Noisy images per forward pass, of several images together. What is left at the end goes through smaller
        batches, unless the model takes batches of one size alone. Unless given, it is found for each shape of images:
        on CPUs what a few passes show to be fastest, elsewhere 2048, or as many as fit into memory.
    threads : int, optional
        Workers that fill and run batches at the same time, each with PyTorch on one CPU thread; one worker leaves
        PyTorch's threads alone. Unless given, PyTorch's own number of threads, at most 8, on CPUs; and 2 on
        accelerators where noise is made on the CPU.
    seed : int, default=0
        Names the noise streams, in [0, 2**128).
    device : str or torch.device, default="cpu"
        Where the model runs; "auto" is the current CUDA device where there is one, else the CPU. On accelerators noise
        of "philox4x32" is made there too, of the same bits.

    noise_on : {"auto", "cpu", "device"}, default="auto"
        Where noise is made, the same noise: on the CPU, or where the model runs, which needs stream "philox4x32".
        "auto" is the CPU's for models on the CPU, else the device.

    Notes
    -----
    What the certificates promise where arithmetic is not exact: see the samplers in the documentation.
    """

    @_validate.once_by_position(5)
    def select_sigma(
        self,
        images: ArrayLike | Tensor,
        sigmas: ArrayLike,
        *,
        n0: int,
        rule: str = "max-radius",
        alpha: float = 0.001,
        n: int | None = None,
        racing: bool = False,
        bound: str = "runner-up",
        indices: ArrayLike | None = None,
    ) -> SigmaChoice:
        """Choose every image's noise level. No label is seen.

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigmas : array of shape (k,)
            Levels to choose from, increasing.
        n0 : int
            Selection samples per image and level; the levels share an image's random numbers.
        rule : {"max-radius", "expected-radius", "anchor"}, default="max-radius"
            "max-radius" takes the level whose n0 samples certify the largest radius (Eq. 7). 1,000 samples cannot
            certify more than 2.46 sigma, so it ranks confident images wrongly; "expected-radius" ranks by the radius
            that the final n samples would certify if they voted likewise. "anchor" does so among the levels whose class
            is that of the smallest level that does not abstain.
        alpha : float, default=0.001
            The failure probability that those radii are computed for.
        n : int, optional
            Final samples per image; required by "expected-radius" and "anchor", refused by "max-radius".
        racing : bool, default=False
            Draw fewer samples for levels that cannot win: about a third, for a loss of radius well below 1%.
        bound : {"runner-up", "top-class"}, default="runner-up"
            What the certificates will be made of, as in `certify`.
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise stream.

        Returns
        -------
        SigmaChoice
            Among equal radii the smallest level wins, so an image without any gets the smallest. Costs at most
            n * k * n0 evaluations of the model.
        """
        pixels, names = self._images(images, indices)
        n0, grid = _validate.check_count("n0", n0), _validate.check_grid(sigmas)
        final, alpha = imagined(rule, n0, n), _validate.check_alpha(alpha)
        plan = Plan(n0, rule, alpha, final, racing, _validate.check_choice("bound", bound, BOUNDS))
        found, _ = self.select_votes(pixels, names, _each(grid, len(pixels)), plan=plan)
        return _choice(grid, found, rule)

    @_validate.once_by_position(5)
    def select_training_sigma(
        self,
        images: ArrayLike | Tensor,
        labels: ArrayLike,
        sigmas: ArrayLike,
        *,
        n0: int,
        alpha: float = 0.001,
        racing: bool = False,
        indices: ArrayLike | None = None,
    ) -> SigmaChoice:
        """Choose the noise level of training images: the largest radius where the label wins (Eq. 5).

        For finetuning only, because it looks at labels. Arguments are those of `select_sigma`; `labels` is an int array
        of shape (n,). In the result, `classes` are the labels, and radii are 0 where the label does not win. The radii
        are one-sided, as in the training that this repeats.
        """
        pixels, names = self._images(images, indices)
        truth = _validate.check_classes("labels", labels, (len(pixels),), self.num_classes)
        n0, grid = _validate.check_count("n0", n0), _validate.check_grid(sigmas)
        plan = Plan(n0, "max-radius", _validate.check_alpha(alpha), n0, racing, "top-class")
        found, _ = self.select_votes(pixels, names, _each(grid, len(pixels)), plan=plan, labels=truth)
        return _choice(grid, found, plan.rule)

    @_validate.once_by_position(5)
    def certify(
        self,
        images: ArrayLike | Tensor,
        sigma: ArrayLike,
        *,
        n0: int,
        n: int | Ladder,
        alpha: float = 0.001,
        simultaneous: bool = False,
        bound: str = "runner-up",
        indices: ArrayLike | None = None,
    ) -> Certificates:
        """Guess each image's class from n0 selection samples and certify it with n fresh ones (Cohen et al., CERTIFY).

        With probability at least 1 - alpha, per image: where the result does not abstain, g(., sigma) returns the
        certified class everywhere in the open ball of the certified radius. True whatever the guess was.

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigma : float or array of shape (n,)
            Noise level, one for all images or one each.
        n0 : int
            Selection samples per image.
        n : int or Ladder
            Estimation samples per image; a `Ladder` stops early where more would not help.
        alpha : float, default=0.001
            Failure probability.
        simultaneous : bool, default=False
            True makes alpha the probability that any image of this call is wrong: each gets alpha / n images.
        bound : {"runner-up", "top-class"}, default="runner-up"
            "runner-up" is Eq. 2: it bounds the probability of every other class as well, at a share of alpha that the
            selection samples fix. "top-class" bounds it by 1 - p_lower, as published tables do. With two classes both
            are the same; with many, and large sigma, the first certifies much more. Each holds at alpha by itself: the
            larger of the two radii of an image does not.
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise stream.
        """
        pixels, names = self._images(images, indices)
        levels = _validate.check_levels(sigma, len(pixels))
        n0 = _validate.check_count("n0", n0)
        each, ladder = self._alpha(alpha, len(pixels) if simultaneous else 1), as_ladder(n)
        ladder.alphas(each)  # refused before the work
        plan = Plan(n0, "expected-radius", each, ladder.rungs[-1], bound=_validate.check_choice("bound", bound, BOUNDS))
        found, _ = self.select_votes(pixels, names, levels[:, None], plan=plan)
        guess, share = found.classes[:, 0], found.share[:, 0]
        return self.certify_classes(
            pixels, levels, guess, n=n, alpha=alpha, share=share, simultaneous=simultaneous, indices=names
        )

    @_validate.once_by_position(5)
    def certify_classes(
        self,
        images: ArrayLike | Tensor,
        sigma: ArrayLike,
        classes: ArrayLike,
        *,
        n: int | Ladder,
        alpha: float = 0.001,
        share: ArrayLike = 0.0,
        simultaneous: bool = False,
        indices: ArrayLike | None = None,
    ) -> Certificates:
        """Certify given classes with n estimation samples per image; see `certify` for the guarantee and arguments.

        Parameters
        ----------
        classes : int array of shape (n,)
            The class to certify for each image, from `SigmaChoice.predict` or any other source that has not seen the
            estimation samples.
        share : float or array of shape (n,), default=0
            Share of alpha for the other classes, in [0, 1): `SigmaChoice.share`, or from any other source that has not
            seen the estimation samples. 0 makes the certificate one-sided: nothing is known here of the selection.
        """
        pixels, names = self._images(images, indices)
        levels = _validate.check_levels(sigma, len(pixels))
        guess = _validate.check_classes("classes", classes, (len(pixels),), self.num_classes)
        ladder, each = as_ladder(n), self._alpha(alpha, len(pixels) if simultaneous else 1)
        part = _validate.check_shares("share", share, (len(pixels),))[:, None]
        one = np.ones((len(pixels), 1), dtype=bool)
        tally = self.estimate_votes(
            pixels, names, levels[:, None], wanted=one, classes=guess[:, None], share=part, ladder=ladder, alpha=each
        )
        counts = tally.counted(guess[:, None])
        return self._certificates(counts, guess, levels, alpha, each, part, ladder, simultaneous)

    @_validate.once_by_position(5)
    def certify_levels(
        self,
        images: ArrayLike | Tensor,
        sigmas: ArrayLike,
        classes: ArrayLike,
        *,
        n: int | Ladder,
        alpha: float = 0.001,
        shares: ArrayLike = 0.0,
        indices: ArrayLike | None = None,
    ) -> tuple[Certificates, ...]:
        """Certify every image at every level: what `certify_classes` returns for each level, for less noise to draw.

        The guarantee of `certify` holds for every image and any one level that was fixed beforehand or chosen from
        selection samples; not for the best of the levels as seen here.

        Parameters
        ----------
        images, n, alpha, indices
            As in `certify`.
        sigmas : array of shape (k,)
            Noise levels, increasing.
        classes : int array of shape (n, k)
            The class to certify for each image and level, from `SigmaChoice.classes`, say.
        shares : float or array of shape (n, k), default=0
            As `share` in `certify_classes`: `SigmaChoice.shares`.

        Returns
        -------
        tuple of Certificates
            One for each level.
        """
        pixels, names = self._images(images, indices)
        grid = _validate.check_grid(sigmas)
        guess = _validate.check_classes("classes", classes, (len(pixels), len(grid)), self.num_classes)
        ladder, each = as_ladder(n), self._alpha(alpha, 1)
        levels, part = _each(grid, len(pixels)), _validate.check_shares("shares", shares, guess.shape)
        wanted = np.ones_like(levels, dtype=bool)
        tally = self.estimate_votes(
            pixels, names, levels, wanted=wanted, classes=guess, share=part, ladder=ladder, alpha=each
        )
        counts = tally.counted(guess)
        return tuple(
            self._certificates(
                counts.at(np.full(len(pixels), k)), guess[:, k], levels[:, k], alpha, each, part[:, [k]], ladder, False
            )
            for k in range(len(grid))
        )

    def certify_at(
        self,
        images: ArrayLike | Tensor,
        sigma: ArrayLike,
        radius: ArrayLike,
        *,
        n0: int,
        n: int,
        alpha: float = 0.001,
        bound: str = "runner-up",
        indices: ArrayLike | None = None,
    ) -> Decisions:
        """Ask whether each image's class is robust at a given radius, with as few samples as the answer takes.

        With probability at least 1 - alpha, per pair of image and radius, the answer is not wrong:

        - "yes" (1) says that g(., sigma) returns the class in the whole closed ball of this radius: Eq. 2 certifies
          the class beyond it.
        - "no" (0) says that no number of samples would make Eq. 2 certify this class beyond this radius: with the true
          probabilities it gives this much or less. It does not say that there is an adversarial example. Another class,
          which selection samples did not show, may be robust there.
        - -1 says nothing: n samples did not settle it.

        Votes are looked at after 32 samples, and again whenever there are a tenth more, by a confidence sequence
        (`sequence_bounds`, M21): all looks share one alpha. Compare Horvath et al. (2022) and Voracek (2024).

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigma : float or array of shape (n,)
            Noise level, one for all images or one each.
        radius : float or array of shape (n,)
            l2 radius, >= 0, in the images' units; one for all images or one each, fixed beforehand or chosen from
            selection samples. Of several radii asked of one image, each answer has its own alpha.
        n0 : int
            Selection samples per image. They name the class, and where votes are expected to fall.
        n : int
            Most estimation samples per image. They are the first of those that `certify` draws.
        alpha : float, default=0.001
            Probability of a wrong answer, "yes" and "no" together.
        bound : {"runner-up", "top-class"}, default="runner-up"
            Ask for the radius of Eq. 2, or for the one-sided one of published tables, sigma * Phi^-1(p_A).
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise stream.
        """
        pixels, names = self._images(images, indices)
        levels, asked = _validate.check_levels(sigma, len(pixels)), _validate.check_radii(radius, len(pixels))
        n0, most = _validate.check_count("n0", n0), _validate.check_count("n", n)
        alpha, bound = _validate.check_alpha(alpha), _validate.check_choice("bound", bound, BOUNDS)
        one = levels[:, None]
        plan = Plan(n0, "expected-radius", alpha, most, bound=bound)
        found, tally = self.select_votes(pixels, names, one, plan=plan)
        question = ask(tally, found, levels, asked, alpha, one_sided=bound == "top-class")

        def count(wanted: Bool[np.ndarray, "n 1"], start: int, stop: int) -> Int64[np.ndarray, "n 1 classes"]:
            return self.count_votes(pixels, names, one, wanted=wanted, start=start, stop=stop, stage="estimate")

        answer, drawn, votes = decide(question, self.num_classes, most, count)
        own = votes[np.arange(len(votes)), question.classes]
        return Decisions(answer, question.classes, asked, levels, own, drawn, alpha, self._voting)

    @_validate.once_by_position(4)
    def predict(
        self,
        images: ArrayLike | Tensor,
        sigma: ArrayLike,
        *,
        n: int,
        alpha: float = 0.001,
        indices: ArrayLike | None = None,
    ) -> Predictions:
        """Return g(x, sigma), or abstain (Cohen et al., PREDICT).

        With probability at least 1 - alpha, per image: the answer is -1 or the class that Eq. 1 defines.

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigma : float or array of shape (n,)
            Noise level, one for all images or one each.
        n : int
            Samples per image, from a stream that neither selection nor estimation uses.
        alpha : float, default=0.001
            Failure probability per image.
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise stream.
        """
        pixels, names = self._images(images, indices)
        levels = _validate.check_levels(sigma, len(pixels))
        n, alpha = _validate.check_count("n", n), _validate.check_alpha(alpha)
        one = levels[:, None]
        wanted = np.ones_like(one, dtype=bool)
        votes = self.count_votes(pixels, names, one, wanted=wanted, start=0, stop=n, stage="predict")[:, 0]
        second, first = np.sort(votes, axis=1)[:, -2:].T
        p_value = top_two_p_value(first, second)
        predict = np.where(p_value <= alpha, votes.argmax(axis=1), ABSTAIN)
        return Predictions(predict, votes, p_value, levels, alpha, self._voting)

    def _alpha(self, alpha: float, events: int) -> float:
        return shared_alpha(_validate.check_alpha(alpha), events)

    def _certificates(
        self,
        counts: Counts,
        guess: Int64[np.ndarray, " n"],
        levels: Float64[np.ndarray, " n"],
        alpha: float,
        each: float,
        share: Float64[np.ndarray, "n 1"],
        ladder: Ladder,
        simultaneous: bool,
    ) -> Certificates:
        p_lower, p_upper = (bound[:, 0] for bound in counted_bounds(counts, each, share, ladder.weights))
        radius = certified_radius(levels, p_lower, p_upper)
        return Certificates(
            predict=np.where(radius > 0, guess, ABSTAIN),
            radius=radius,
            sigma=levels,
            counts=counts.last[:, 0],
            n=counts.drawn[:, 0],
            p_lower=p_lower,
            p_upper=p_upper,
            runner_up=counts.runner_up[:, 0],
            runner_up_counts=counts.last_other[:, 0],
            share=share[:, 0],
            alpha=alpha,
            simultaneous=simultaneous,
            identity=self._voting,
        )


def _choice(grid: Float64[np.ndarray, " k"], found: Outcome, rule: str) -> SigmaChoice:
    return SigmaChoice(
        grid, found.level, grid[found.level], found.classes, found.expected_radius, found.samples, rule, found.share
    )


def _each(grid: Float64[np.ndarray, " k"], n: int) -> Float64[np.ndarray, "n k"]:
    """Return a grid of levels for each of n images."""
    return np.tile(grid, (n, 1))


def as_ladder(n: int | Ladder) -> Ladder:
    """Return a number of samples as a ladder of one rung."""
    return n if isinstance(n, Ladder) else Ladder((_validate.check_count("n", n),))


def imagined(rule: str, n0: int, n: int | None) -> int:
    """Return for how many final samples a level is chosen, n0 where a rule does not ask, or say what is missing."""
    if _validate.check_choice("rule", rule, RULES) == "max-radius":
        if n is not None:
            raise ValueError(f"n = {n}: rule 'max-radius' ranks by the n0 selection samples; leave n out")
        return n0
    if n is None:
        raise ValueError(f"rule {rule!r} ranks by the radius that the final samples would certify: pass their number n")
    return _validate.check_count("n", n)
