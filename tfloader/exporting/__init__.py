"""Out of tfloader: `export` writes a model as a SavedModel, as ONNX or for LiteRT, and runs it beside the original."""

from __future__ import annotations

from tfloader.exporting.exporting import export

__all__ = ["export"]
