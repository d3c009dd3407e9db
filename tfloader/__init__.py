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
    "save": "models.builder",
    "load_config": "naming",
    "build_transformer_model": "models.builder",
    "register_family": "models.builder",
    "Transformer": "models.transformer",
    "TransformerConfig": "config",
    "register_release": "naming",
    "TextGenerator": "generation.text",
    "GenerationOptions": "generation.options",
    "AutoRegressiveDecoder": "generation.autoregressive",
    "open_checkpoint": "checkpoints",
    "load_tokenizer": "tokenizers",
    "load_vocab": "tokenizers",
    "Tokenizer": "tokenizers",
    "SpTokenizer": "tokenizers",
    "BytePairTokenizer": "tokenizers",
    "TfloaderError": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "WeightsError": "errors",
    "TokenizerError": "errors",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"tfloader.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'tfloader' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
