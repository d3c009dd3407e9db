"""tfloader: public pretrained Transformers as live Keras 3 models on TensorFlow, exactly or not at all.

Importing this package imports neither TensorFlow nor Keras; the first name that needs them does.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it.
_EXPORTS = {
    "load": "models.builder",
    "convert": "conversion",
    "export": "exporting",
    "save": "models.builder",
    "load_config": "naming",
    "build_transformer_model": "models.builder",
    "register_family": "models.builder",
    "Transformer": "models.transformer",
    "TransformerConfig": "config",
    "register_release": "naming",
    "TextGenerator": "generation.text",
    "GenerationOptions": "generation.options",
    "load_generation_config": "generation.defaults",
    "Trie": "generation.trie",
    "AutoRegressiveDecoder": "generation.autoregressive",
    "sequence_padding": "data.padding",
    "DataGenerator": "data.generator",
    "read_tsv": "data.readers",
    "read_csv": "data.readers",
    "read_jsonl": "data.readers",
    "read_tagged": "data.readers",
    "align_words": "data.alignment",
    "Span": "data.tags",
    "tags_to_spans": "data.tags",
    "spans_to_tags": "data.tags",
    "tag_names": "data.tags",
    "score_spans": "data.scores",
    "TrainingBackup": "training.checkpointing",
    "BestWeights": "training.checkpointing",
    "adversarial_training": "training.adversarial",
    "FGM": "training.adversarial",
    "PGD": "training.adversarial",
    "FreeLB": "training.adversarial",
    "GradientPenalty": "training.adversarial",
    "VAT": "training.virtual_adversarial",
    "StopOnNaN": "training.callbacks",
    "freeze": "training.freezing",
    "unfreeze": "training.freezing",
    "enable_lora": "training.lora",
    "merge_lora": "training.lora",
    "save_adapters": "training.adapter_files",
    "load_adapters": "training.adapter_files",
    "saliency": "training.saliency",
    "heat_map": "training.heat_map",
    "RandomTokenReplacement": "training.exposure_bias",
    "replace_random_tokens": "training.exposure_bias",
    "extend_with_gradient_accumulation": "optimizers",
    "extend_with_piecewise_linear_lr": "optimizers",
    "extend_with_exponential_moving_average": "optimizers",
    "extend_with_lookahead": "optimizers",
    "extend_with_parameter_wise_lr": "optimizers",
    "extend_with_weight_decay": "optimizers",
    "extend_with_layer_adaptation": "optimizers",
    "extend_with_lazy_optimization": "optimizers",
    "AdaFactor": "optimizers",
    "EvaluateAverage": "optimizers",
    "PiecewiseLinear": "optimizers",
    "layer_wise_decay": "optimizers",
    "Loss": "losses",
    "multilabel_categorical_crossentropy": "losses",
    "sparse_multilabel_categorical_crossentropy": "losses",
    "MultilabelCategoricalCrossentropy": "losses",
    "SparseMultilabelCategoricalCrossentropy": "losses",
    "SmoothedSparseCategoricalCrossentropy": "losses",
    "NormalizedSoftmax": "losses",
    "AMSoftmax": "losses",
    "ArcFace": "losses",
    "CosineDense": "losses",
    "CoSENT": "losses",
    "SimCSE": "losses",
    "RDrop": "losses",
    "SampledSoftmax": "losses",
    "NoiseContrastiveEstimation": "losses",
    "ConditionalLayerNormalization": "layers",
    "ConditionalRMSNormalization": "layers",
    "ConditionalRandomField": "layers",
    "MaximumEntropyMarkovModel": "layers",
    "ViterbiDecoder": "layers",
    "viterbi_decode": "layers",
    "tag_constraints": "layers",
    "GlobalPointer": "layers",
    "EfficientGlobalPointer": "layers",
    "pointer_spans": "layers",
    "open_checkpoint": "checkpoints",
    "load_tokenizer": "tokenizers",
    "load_vocab": "tokenizers",
    "Tokenizer": "tokenizers",
    "SpTokenizer": "tokenizers",
    "BytePairTokenizer": "tokenizers",
    "download": "downloads",
    "TfloaderError": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "WeightsError": "errors",
    "TokenizerError": "errors",
    "GenerationError": "errors",
    "TrainingError": "errors",
    "DataError": "errors",
    "DownloadError": "errors",
    "ConversionError": "errors",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"tfloader.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'tfloader' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
