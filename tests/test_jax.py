"""Every family's forward pass under Keras' JAX backend, which must not need TensorFlow at all.

Optional: needs jax. Where TFLOADER_JAX_PYTHON names another environment's python (jax, no tensorflow), that one is
used. With JAX 0.10.2 and Keras 3.15.1 no relative difference exceeds 1.4e-5.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.releases import CASES

PYTHON = os.environ.get("TFLOADER_JAX_PYTHON", sys.executable)
pytestmark = pytest.mark.skipif(
    sys.executable == PYTHON and importlib.util.find_spec("jax") is None,
    reason="jax is not installed here, and TFLOADER_JAX_PYTHON names no environment that has it",
)
TOLERANCE = 5e-5
SOME = ("hf_bert", "hf_gpt2", "gpt2_ml", "hf_t5_v10", "hf_t5_v11", "hf_bert_noprefix", "hf_bert_sharded", "hf_bert_h5")

PROBE = """
import json, sys
import keras
assert keras.backend.backend() == "jax", keras.backend.backend()
import numpy as np
import tfloader
from tfloader.weights import tensors_to_save
difference = {}
for name, folder, options, inputs, expected in json.loads(sys.stdin.read()):
    arrays = [np.load(file)[key] for file, key in inputs]
    model = tfloader.load(folder, **options)
    found = model([np.asarray(array) for array in arrays] if len(arrays) > 1 else arrays[0])
    found = found if isinstance(found, (list, tuple)) else [found]
    wanted = [np.load(file)[key] for file, key in expected]
    assert len(found) == len(wanted)
    difference[name] = max(float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for a, b in zip(found, wanted))
    assert [make() for _, _, make in tensors_to_save(model.transformer, model.transformer.release)]
print(json.dumps([difference, "tensorflow" in sys.modules]))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each family as safetensors or HDF5; GPT2_ML, which comes as a TensorFlow checkpoint, is converted first."""
    import tfloader

    cases = {case.name: case for case in CASES if case.name in SOME}
    paths = {name: case.path for name, case in cases.items()}
    paths["gpt2_ml"] = str(tmp_path_factory.mktemp("gpt2_ml"))
    tfloader.save(tfloader.load(cases["gpt2_ml"].path), paths["gpt2_ml"])
    return cases, paths


def test_each_family_computes_the_same_under_jax_without_tensorflow(folders, record_property):
    cases, paths = folders
    job = [
        (
            name,
            paths[name],
            case.options,
            [(f"{case.path}/inputs.npz", key) for key in case.inputs],
            [(f"{case.path}/outputs.npz", key) for key in case.outputs],
        )
        for name, case in cases.items()
    ]
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [PYTHON, "-c", PROBE]
    done = subprocess.run(
        command, input=json.dumps(job), env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    differences, imported = json.loads(done.stdout.splitlines()[-1])
    record_property("largest difference", differences)
    assert not imported, "tensorflow was imported"
    assert {name: value for name, value in differences.items() if value > TOLERANCE} == {}
    assert set(differences) == set(SOME)
