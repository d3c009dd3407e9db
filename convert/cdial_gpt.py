"""CDial-GPT, Chinese dialogue models (Tsinghua University, 2020).

Checksums: those of Hugging Face, asked for on download.

Published: https://github.com/thu-coai/CDial-GPT
Licence: MIT
Config: config.json
Vocabulary: vocab.txt (WordPiece of Chinese characters)

cdial-gpt-lccc-base: hf:thu-coai/CDial-GPT_LCCC-base
cdial-gpt-lccc-large: hf:thu-coai/CDial-GPT_LCCC-large
cdial-gpt2-lccc-base: hf:thu-coai/CDial-GPT2_LCCC-base

One command:

    python convert/cdial_gpt.py cdial-gpt-lccc-large cdial-gpt --allow-pickle
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("cdial_gpt", __doc__))
