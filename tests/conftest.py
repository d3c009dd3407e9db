"""What all tests share: where the fixtures are, how many processes run them, and a quiet TensorFlow."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared out already
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINTS = FIXTURES / "checkpoints"

# A busy machine is no failure. `--hypothesis-profile thorough` tries twenty times as many examples.
settings.register_profile("tfloader", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=25)
settings.register_profile("thorough", settings.get_profile("tfloader"), max_examples=500)
settings.load_profile("tfloader")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """No worker for the tests of one file, which run sooner here; otherwise one for each core, as xdist counts them."""
    files = {argument.partition("::")[0] for argument in config.args}
    return 0 if len(files) == 1 and files.pop().endswith(".py") else None


def pytest_configure(config: pytest.Config) -> None:
    """Two logical devices, before anything is placed: the tests under MirroredStrategy need them."""
    if config.getoption("numprocesses", None):
        return  # this process starts the workers and runs no test
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.fixture(autouse=True, scope="module")
def little_garbage():
    """What was imported and collected stays, and the garbage collector comes seldom: else, as Keras calls it too, it
    takes a fifth of the time to look at the same again and again. Merging LoRA melts what is frozen."""
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture(scope="session")
def two_replicas():
    """The one MirroredStrategy of the process: a second one's collective operations are mistaken for the first's."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
