"""From a checkpoint to another format: `convert`. Importing it imports nothing heavy.

Between tensor formats no model holds values: the naming tables of two releases say which tensors make which.
"""

from __future__ import annotations

from tfloader.conversion.converting import FORMATS, convert

__all__ = ["FORMATS", "convert"]
