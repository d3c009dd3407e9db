"""OpenAI GPT-2, 124 million to 1.5 billion parameters (2019).

Checksums: not published.

Published: https://github.com/openai/gpt-2
Licence: Modified MIT
Config: hparams.json
Vocabulary: encoder.json and vocab.bpe (byte-level BPE, 50257 tokens)

gpt2-124M:
    https://openaipublic.blob.core.windows.net/gpt-2/models/124M/checkpoint
    https://openaipublic.blob.core.windows.net/gpt-2/models/124M/encoder.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/124M/hparams.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/124M/model.ckpt.data-00000-of-00001
    https://openaipublic.blob.core.windows.net/gpt-2/models/124M/model.ckpt.index
    https://openaipublic.blob.core.windows.net/gpt-2/models/124M/vocab.bpe
gpt2-355M:
    https://openaipublic.blob.core.windows.net/gpt-2/models/355M/checkpoint
    https://openaipublic.blob.core.windows.net/gpt-2/models/355M/encoder.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/355M/hparams.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/355M/model.ckpt.data-00000-of-00001
    https://openaipublic.blob.core.windows.net/gpt-2/models/355M/model.ckpt.index
    https://openaipublic.blob.core.windows.net/gpt-2/models/355M/vocab.bpe
gpt2-774M:
    https://openaipublic.blob.core.windows.net/gpt-2/models/774M/checkpoint
    https://openaipublic.blob.core.windows.net/gpt-2/models/774M/encoder.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/774M/hparams.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/774M/model.ckpt.data-00000-of-00001
    https://openaipublic.blob.core.windows.net/gpt-2/models/774M/model.ckpt.index
    https://openaipublic.blob.core.windows.net/gpt-2/models/774M/vocab.bpe
gpt2-1558M:
    https://openaipublic.blob.core.windows.net/gpt-2/models/1558M/checkpoint
    https://openaipublic.blob.core.windows.net/gpt-2/models/1558M/encoder.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/1558M/hparams.json
    https://openaipublic.blob.core.windows.net/gpt-2/models/1558M/model.ckpt.data-00000-of-00001
    https://openaipublic.blob.core.windows.net/gpt-2/models/1558M/model.ckpt.index
    https://openaipublic.blob.core.windows.net/gpt-2/models/1558M/vocab.bpe

One command:

    python convert/gpt2.py gpt2-124M gpt2
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("gpt2", __doc__))
