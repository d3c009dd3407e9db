"""`download`: public releases, repositories of hubs, archives and files, whole and checked or not at all."""

from __future__ import annotations

from tfloader.downloads.catalogue import CATALOGUE
from tfloader.downloads.downloading import download

__all__ = ["CATALOGUE", "download"]
