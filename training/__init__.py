"""Base classifiers: data sets, models and training under noise. Labels are used here and in reports, nowhere else."""

from training.attack import SmoothAdv, smoothed_loss
from training.checkpoints import load_checkpoint, save_checkpoint
from training.data import ImageData, digits, mnist
from training.fit import TrainingLog, accuracy, train
from training.models import ARCHITECTURES, NORMALIZERS, CifarResNet, DigitsCNN, LeNet, Normalize, build, normalized

__all__ = [
    "ARCHITECTURES",
    "NORMALIZERS",
    "CifarResNet",
    "DigitsCNN",
    "ImageData",
    "LeNet",
    "Normalize",
    "SmoothAdv",
    "TrainingLog",
    "accuracy",
    "build",
    "digits",
    "load_checkpoint",
    "mnist",
    "normalized",
    "save_checkpoint",
    "smoothed_loss",
    "train",
]
