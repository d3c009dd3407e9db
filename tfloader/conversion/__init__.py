"""From a checkpoint to another format: `convert`. Between tensor formats no model holds values."""

from __future__ import annotations

from tfloader.conversion.converting import FORMATS, convert

__all__ = ["FORMATS", "convert"]
