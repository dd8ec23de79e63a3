"""Base classifiers: data sets, models and training under noise. Labels are used here and in reports, nowhere else."""

from importlib.metadata import version

from training.attack import SmoothAdv, smoothed_loss
from training.augment import AUGMENTATIONS
from training.byte_images import ByteImages, as_bytes
from training.checkpoints import load_checkpoint, save_checkpoint, training_config
from training.data import FolderImages, ImageData, Images, StreamedImages, image_folder
from training.datasets import DATASETS, load_data
from training.denoiser_checkpoints import DenoiserCheckpoint, DenoiserFacts, load_denoiser
from training.denoisers import (
    DENOISERS,
    DenoisedClassifier,
    Denoiser,
    DenoisingUNet,
    DiffusionDenoiser,
    denoised,
    denoiser_network,
)
from training.evaluate import accuracy, check_fit
from training.levels import choose_levels
from training.libraries.loading import LoadedModel, load_model
from training.loop import Epoch, fit
from training.losses import Consistency, Loss, Macer, best_level, cross_entropy, soft_radius
from training.margin_levels import MarginChoice, choose_levels_by_margins
from training.models import ARCHITECTURES, NORMALIZERS, CifarResNet, DigitsCNN, LeNet, Normalize, build, normalized
from training.own_datasets import DatasetImages, is_own_dataset
from training.presets import DENOISER_PRESETS, PRESETS, ROUTER_PRESETS
from training.router_checkpoints import RouterCheckpoint, load_router
from training.router_targets import RouterSampling, RouterValidation, expected_radii, validate_router
from training.routers import MonotoneRouter, router_network
from training.runs import run
from training.settings import TrainSettings
from training.smoothmix import SmoothMix
from training.stage import Engine, Stage, WeightedLevels
from training.standard_sets import cifar10, cifar100, digits, fashion_mnist, mnist, svhn

__version__ = version("srs-certify")

__all__ = [
    "ARCHITECTURES",
    "AUGMENTATIONS",
    "DATASETS",
    "DENOISERS",
    "DENOISER_PRESETS",
    "NORMALIZERS",
    "PRESETS",
    "ROUTER_PRESETS",
    "ByteImages",
    "CifarResNet",
    "Consistency",
    "DatasetImages",
    "DenoisedClassifier",
    "Denoiser",
    "DenoiserCheckpoint",
    "DenoiserFacts",
    "DenoisingUNet",
    "DiffusionDenoiser",
    "DigitsCNN",
    "Engine",
    "Epoch",
    "FolderImages",
    "ImageData",
    "Images",
    "LeNet",
    "LoadedModel",
    "Loss",
    "Macer",
    "MarginChoice",
    "MonotoneRouter",
    "Normalize",
    "RouterCheckpoint",
    "RouterSampling",
    "RouterValidation",
    "SmoothAdv",
    "SmoothMix",
    "Stage",
    "StreamedImages",
    "TrainSettings",
    "WeightedLevels",
    "accuracy",
    "as_bytes",
    "best_level",
    "build",
    "check_fit",
    "choose_levels",
    "choose_levels_by_margins",
    "cifar10",
    "cifar100",
    "cross_entropy",
    "denoised",
    "denoiser_network",
    "digits",
    "expected_radii",
    "fashion_mnist",
    "fit",
    "image_folder",
    "is_own_dataset",
    "load_checkpoint",
    "load_data",
    "load_denoiser",
    "load_model",
    "load_router",
    "mnist",
    "normalized",
    "router_network",
    "run",
    "save_checkpoint",
    "smoothed_loss",
    "soft_radius",
    "svhn",
    "training_config",
    "validate_router",
]
