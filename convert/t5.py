"""Google T5 1.0, T5 1.1 and FLAN-T5 (2019 to 2022).

T5 1.0 and 1.1 are Mesh TensorFlow checkpoints. FLAN-T5 was published for T5X and by Google on Hugging Face, which
is read here. Checksums: those of Google Cloud Storage and Hugging Face, asked for on download.

Published:
    https://github.com/google-research/text-to-text-transfer-transformer
        (t5-small, t5-base, t5-large, t5-3B, t5-11B)
    https://github.com/google-research/text-to-text-transfer-transformer/blob/main/released_checkpoints.md
        (t5.1.1.small, t5.1.1.base, t5.1.1.large, t5.1.1.xl, t5.1.1.xxl)
    https://huggingface.co/google
        (flan-t5-small, flan-t5-base, flan-t5-large, flan-t5-xl, flan-t5-xxl)
Licence: Apache-2.0
Config:
    operative_config.gin
        (t5-small, t5-base, t5-large, t5-3B, t5-11B, t5.1.1.small, t5.1.1.base, t5.1.1.large,
        t5.1.1.xl, t5.1.1.xxl)
    config.json
        (flan-t5-small, flan-t5-base, flan-t5-large, flan-t5-xl, flan-t5-xxl)
Vocabulary:
    sentencepiece.model (32000 pieces)
        (t5-small, t5-base, t5-large, t5-3B, t5-11B, t5.1.1.small, t5.1.1.base, t5.1.1.large,
        t5.1.1.xl, t5.1.1.xxl)
    spiece.model (32000 pieces)
        (flan-t5-small, flan-t5-base, flan-t5-large, flan-t5-xl, flan-t5-xxl)

t5-small: gs://t5-data/pretrained_models/small
t5-base: gs://t5-data/pretrained_models/base
t5-large: gs://t5-data/pretrained_models/large
t5-3B: gs://t5-data/pretrained_models/3B
t5-11B: gs://t5-data/pretrained_models/11B
t5.1.1.small: gs://t5-data/pretrained_models/t5.1.1.small
t5.1.1.base: gs://t5-data/pretrained_models/t5.1.1.base
t5.1.1.large: gs://t5-data/pretrained_models/t5.1.1.large
t5.1.1.xl: gs://t5-data/pretrained_models/t5.1.1.xl
t5.1.1.xxl: gs://t5-data/pretrained_models/t5.1.1.xxl
flan-t5-small: hf:google/flan-t5-small
flan-t5-base: hf:google/flan-t5-base
flan-t5-large: hf:google/flan-t5-large
flan-t5-xl: hf:google/flan-t5-xl
flan-t5-xxl: hf:google/flan-t5-xxl
With t5-small, t5-base, t5-large, t5-3B, t5-11B, t5.1.1.small, t5.1.1.base, t5.1.1.large, t5.1.1.xl,
    t5.1.1.xxl:
    gs://t5-data/vocabs/cc_all.32000/sentencepiece.model

One command:

    python convert/t5.py t5.1.1.small t5
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("t5", __doc__))
