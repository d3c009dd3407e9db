"""What a server does: runs exported models without tfloader. `python served.py FOLDER` runs all in a folder of cases.

A case is a folder with `exported`, `inputs.npz` and `prompts.json` (texts; ids and mask of prompts, and how many tokens
to add); it writes `outputs.npz`, `tokens.json` and `found.json` (what the signatures take and give) beside them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def greedy(prefill, step, input_ids, attention_mask, count):
    """The likeliest tokens [rows, count], by an exported model's two functions."""
    state = dict(prefill(input_ids=input_ids, attention_mask=attention_mask))
    tokens = []
    for _ in range(count):
        tokens.append(np.argmax(np.asarray(state.pop("logits")), axis=-1).astype("int32"))
        state |= step(token=tokens[-1], **state)
    return np.stack(tokens, axis=1).tolist()


def described(function):
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    return {
        kind: {name: {"dtype": item.dtype.name, "shape": item.shape.as_list()} for name, item in specs.items()}
        for kind, specs in (("inputs", inputs), ("outputs", outputs))
    }


def run(case):
    loaded = tf.saved_model.load(str(case / "exported"))
    signatures = {
        name: lambda f=function, **inputs: f(**{key: tf.convert_to_tensor(value) for key, value in inputs.items()})
        for name, function in loaded.signatures.items()
    }
    found = {name: described(function) for name, function in loaded.signatures.items()}
    (case / "found.json").write_text(json.dumps(found))
    prompts = json.loads((case / "prompts.json").read_text())
    outputs = dict(signatures["serving_default"](**np.load(case / "inputs.npz")))
    if "serving_text" in signatures:
        found = signatures["serving_text"](texts=prompts["texts"])
        outputs |= {f"text/{name}": value for name, value in found.items()}
    np.savez(case / "outputs.npz", **{name: np.asarray(value) for name, value in outputs.items()})
    if "prefill" in signatures:
        ids, mask = (np.array(prompts[name], "int32") for name in ("ids", "mask"))
        tokens = greedy(signatures["prefill"], signatures["step"], ids, mask, prompts["count"])
        (case / "tokens.json").write_text(json.dumps(tokens))


if __name__ == "__main__":
    for place in sorted(Path(sys.argv[1]).iterdir()):
        run(place)
    assert "tfloader" not in sys.modules
