"""Hooks into the training of any Keras model: adversarial training, freezing, LoRA, callbacks, replaced tokens."""

from __future__ import annotations

from tfloader.training.adapter_files import load_adapters, save_adapters
from tfloader.training.adversarial import FGM, PGD, VAT, FreeLB, GradientPenalty, adversarial_training
from tfloader.training.callbacks import BestWeights, StopOnNaN, TrainingBackup
from tfloader.training.exposure_bias import RandomTokenReplacement, replace_random_tokens
from tfloader.training.freezing import freeze, unfreeze
from tfloader.training.lora import enable_lora, merge_lora

__all__ = [
    "FGM",
    "PGD",
    "VAT",
    "BestWeights",
    "FreeLB",
    "GradientPenalty",
    "RandomTokenReplacement",
    "StopOnNaN",
    "TrainingBackup",
    "adversarial_training",
    "enable_lora",
    "freeze",
    "load_adapters",
    "merge_lora",
    "replace_random_tokens",
    "save_adapters",
    "unfreeze",
]
