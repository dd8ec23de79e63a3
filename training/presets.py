"""Presets of `srs-train`: the paper's settings, and quick ones for two CPU cores."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from training.settings import TrainSettings

_MNIST = TrainSettings(dataset="mnist", model="lenet")
_CIFAR = TrainSettings(dataset="cifar10", model="cifar_resnet110", normalizer="cifar10", augment="crop-flip")
_QUICK: dict[str, Any] = {
    "epochs": 10,
    "finetune_epochs": 5,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "lr": 1e-3,
    "finetune_lr": 3e-4,
    "schedule": "cosine",
    "warmup": 3,
    "batch": 128,
    "m": 2,
    "k": 2,
    "precision": "bfloat16",
}

#: Presets by name: what they are for, and the settings. "paper" is its appendix A, Tables 4 and 5.
PRESETS: Mapping[str, tuple[str, TrainSettings]] = {
    "digits": (
        "scikit-learn's digits, sigma in [0.1, 0.6]: half a minute on a CPU.",
        TrainSettings(
            sigma_min=0.1,
            sigma_max=0.6,
            sigma_step=0.1,
            epochs=40,
            finetune_epochs=20,
            optimizer="adam",
            weight_decay=0.0,
            lr=3e-3,
            finetune_lr=1e-3,
            schedule="cosine",
            warmup=5,
            batch=128,
            m=2,
            k=2,
            epsilon=0.25,
            threads=1,  # the network is so small that threads would wait for each other
        ),
    ),
    "mnist-quick": (
        "MNIST, sigma in [0.12, 1.00], 20,000 images, 10 + 5 epochs: some 20 minutes on two CPU cores.",
        replace(_MNIST, **_QUICK, train_images=20_000),
    ),
    "mnist-paper": ("MNIST, sigma in [0.12, 1.00], Table 5.", replace(_MNIST, m=4, k=10, epsilon=2.0)),
    "mnist-paper-0.50": (
        "MNIST, sigma in [0.12, 0.50], Table 5.",
        replace(_MNIST, sigma_max=0.5, m=4, k=2, epsilon=1.0),
    ),
    "mnist-paper-0.25": (
        "MNIST, sigma in [0.12, 0.25], Table 5.",
        replace(_MNIST, sigma_max=0.25, m=4, k=2, epsilon=0.25),
    ),
    "cifar10-quick": (
        "CIFAR-10 with ResNet-20, sigma in [0.12, 0.50], 10 + 5 epochs: a GPU, or a night on a CPU.",
        replace(_CIFAR, **_QUICK, model="cifar_resnet20", sigma_max=0.5, epsilon=1.0),
    ),
    "cifar10-paper": ("CIFAR-10, sigma in [0.12, 1.00], Table 4.", replace(_CIFAR, m=2, k=4, epsilon=2.0)),
    "cifar10-paper-0.50": (
        "CIFAR-10, sigma in [0.12, 0.50], Table 4.",
        replace(_CIFAR, sigma_max=0.5, m=4, k=2, epsilon=1.0),
    ),
    "cifar10-paper-0.25": (
        "CIFAR-10, sigma in [0.12, 0.25], Table 4.",
        replace(_CIFAR, sigma_max=0.25, m=4, k=4, epsilon=0.25),
    ),
}

#: Presets of routers, for base classifiers that the presets of the same data set train.
ROUTER_PRESETS: Mapping[str, tuple[str, TrainSettings]] = {
    "digits-router": (
        "A router for a base classifier of digits (--checkpoint): some 20 seconds on a CPU.",
        replace(
            PRESETS["digits"][1],
            method="router",
            router_sigma=0.5,
            sigmas=(0.15, 0.3, 0.45, 0.6),
            n0=200,
            epochs=30,
        ),
    ),
    "mnist-router": (
        "A router for a base classifier of MNIST (--checkpoint), 10,000 images: some 10 minutes on two CPU cores.",
        replace(
            _MNIST,
            method="router",
            router_sigma=1.0,
            sigmas=(0.5, 0.75, 1.0),
            router_loss="best-level",
            n0=100,
            train_images=10_000,
            **{name: value for name, value in _QUICK.items() if name not in ("k", "warmup")},
        ),
    ),
}

_DENOISER: dict[str, Any] = {
    "method": "denoiser",
    "model": "unet_small",
    "optimizer": "adam",
    "weight_decay": 0.0,
    "lr": 2e-3,
    "finetune_lr": 1e-3,
    "schedule": "cosine",
    "batch": 128,
    "m": 1,
}

#: Presets of denoisers, for classifiers of the same data set that never saw noise, such as --method gaussian --sigma 0.
DENOISER_PRESETS: Mapping[str, tuple[str, TrainSettings]] = {
    "digits-denoiser": (
        "A denoiser for scikit-learn's digits, sigma in [0.1, 0.6]: some 10 seconds on a CPU.",
        replace(PRESETS["digits"][1], **_DENOISER, epochs=60, finetune_epochs=30),
    ),
    "mnist-denoiser": (
        "A denoiser for MNIST, sigma in [0.12, 1.00], 20,000 images: some 3 minutes on two CPU cores.",
        replace(_MNIST, **_DENOISER, epochs=10, finetune_epochs=5, precision="bfloat16", train_images=20_000),
    ),
}
