"""What all tests share: where the fixtures are, and a quiet TensorFlow."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest
import tensorflow as tf

# Two logical devices, before anything is placed: the tests under MirroredStrategy need them.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINTS = FIXTURES / "checkpoints"


@pytest.fixture(scope="session")
def two_replicas():
    """The one MirroredStrategy of the process: a second one's collective operations are mistaken for the first's."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
