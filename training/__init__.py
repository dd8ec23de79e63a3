"""Base classifiers: data sets, models and training under noise. Labels are used here and in reports, nowhere else."""

from training.data import ImageData, digits
from training.fit import TrainingLog, accuracy, train
from training.models import DigitsCNN, Normalize, digits_cnn

__all__ = ["DigitsCNN", "ImageData", "Normalize", "TrainingLog", "accuracy", "digits", "digits_cnn", "train"]
