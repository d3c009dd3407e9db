"""The public releases: the names of their tensors and the keys of their config files, as tables that read both ways."""

from tfloader.naming.reading import (
    config_beside,
    detect_release,
    find_config,
    load_config,
    read_config,
    read_raw_config,
    release_of,
    shapes_of,
    uncut_vocab_size_beside,
)
from tfloader.naming.releases import RELEASES, register_release

__all__ = [
    "RELEASES",
    "config_beside",
    "detect_release",
    "find_config",
    "load_config",
    "read_config",
    "read_raw_config",
    "register_release",
    "release_of",
    "shapes_of",
    "uncut_vocab_size_beside",
]
