"""Base classifiers: data sets, models and training under noise. Labels are used here and in reports, nowhere else."""

from importlib.metadata import version

from training.attack import SmoothAdv, smoothed_loss
from training.augment import AUGMENTATIONS
from training.byte_images import ByteImages, as_bytes
from training.checkpoints import load_checkpoint, save_checkpoint, training_config
from training.data import DATASETS, FolderImages, ImageData, cifar10, digits, image_folder, load_data, mnist
from training.evaluate import accuracy, check_fit
from training.levels import choose_levels
from training.libraries.loading import LoadedModel, load_model
from training.loop import Epoch, fit
from training.losses import Consistency, Loss, Macer, best_level, cross_entropy, soft_radius
from training.models import ARCHITECTURES, NORMALIZERS, CifarResNet, DigitsCNN, LeNet, Normalize, build, normalized
from training.router_checkpoints import RouterCheckpoint, load_router
from training.router_targets import RouterSampling, RouterValidation, expected_radii, validate_router
from training.routers import MonotoneRouter, router_network
from training.runs import run
from training.settings import PRESETS, ROUTER_PRESETS, TrainSettings
from training.smoothmix import SmoothMix
from training.stage import Engine, Stage, WeightedLevels

__version__ = version("srs-certify")

__all__ = [
    "ARCHITECTURES",
    "AUGMENTATIONS",
    "DATASETS",
    "NORMALIZERS",
    "PRESETS",
    "ROUTER_PRESETS",
    "ByteImages",
    "CifarResNet",
    "Consistency",
    "DigitsCNN",
    "Engine",
    "Epoch",
    "FolderImages",
    "ImageData",
    "LeNet",
    "LoadedModel",
    "Loss",
    "Macer",
    "MonotoneRouter",
    "Normalize",
    "RouterCheckpoint",
    "RouterSampling",
    "RouterValidation",
    "SmoothAdv",
    "SmoothMix",
    "Stage",
    "TrainSettings",
    "WeightedLevels",
    "accuracy",
    "as_bytes",
    "best_level",
    "build",
    "check_fit",
    "choose_levels",
    "cifar10",
    "cross_entropy",
    "digits",
    "expected_radii",
    "fit",
    "image_folder",
    "load_checkpoint",
    "load_data",
    "load_model",
    "load_router",
    "mnist",
    "normalized",
    "router_network",
    "run",
    "save_checkpoint",
    "smoothed_loss",
    "soft_radius",
    "training_config",
    "validate_router",
]
