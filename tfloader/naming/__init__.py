"""The public releases: the names of their tensors and the keys of their config files, as tables that read both ways."""

from tfloader.checkpoints.base import folder_of
from tfloader.naming.detecting import detect_release, load_config
from tfloader.naming.reading import find_config, read_config, read_raw_config, shapes_of
from tfloader.naming.releases import RELEASES, register_release

__all__ = [
    "RELEASES",
    "detect_release",
    "find_config",
    "folder_of",
    "load_config",
    "read_config",
    "read_raw_config",
    "register_release",
    "shapes_of",
]
