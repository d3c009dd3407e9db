"""Models that come with the package, as Hugging Face folders."""

from __future__ import annotations

from tfloader.assets.boxed import FOLDER, path

__all__ = ["FOLDER", "path"]
