"""CPM-LM, a Chinese GPT-2 of 2.6 billion parameters (Tsinghua University and BAAI, 2020).

Read here is the conversion under the authors' name on Hugging Face, not the first release in two Megatron files.
Checksums: those of Hugging Face, asked for on download.

Published: https://github.com/TsinghuaAI/CPM-1-Generate
Licence: MIT
Config: config.json
Vocabulary: spiece.model

cpm-generate: hf:TsinghuaAI/CPM-Generate

One command:

    python convert/cpm.py cpm-generate cpm --allow-pickle
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("cpm", __doc__))
