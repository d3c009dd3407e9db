"""What a model's prediction depends on: saliency of tokens, and a picture of it."""

from __future__ import annotations

from tfloader.interpretation.attribution import saliency
from tfloader.interpretation.pictures import heat_map

__all__ = ["heat_map", "saliency"]
