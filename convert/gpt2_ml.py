"""GPT2_ML, a Chinese language model of 1.5 billion parameters in two versions (2019, 2020).

Trained on 15 GB and 30 GB of text, with different vocabularies. The sha256 of the weights are the authors'; those
of the vocabularies were computed from the commit in their address. If Google Drive sends a page in place of the
file, download it in a browser, save it where the error says, and run the script again.

Published: https://github.com/imcaspar/gpt2-ml
Licence: Apache-2.0
Config:
    configs/mega.json with vocab_size 21128
        (gpt2-ml-15g)
    configs/mega.json with vocab_size 8021
        (gpt2-ml-30g)
Vocabulary:
    bert-base-chinese-vocab.txt (21128 tokens)
        (gpt2-ml-15g)
    clue-vocab.txt (8021 tokens)
        (gpt2-ml-30g)

gpt2-ml-15g:
    model.ckpt-100000.data-00000-of-00001: https://drive.usercontent.google.com/download?id=1IzWpQ6I2IgfV7CldZvFJnZ9byNDZdO4n&export=download&confirm=t
        in a browser: https://drive.google.com/file/d/1IzWpQ6I2IgfV7CldZvFJnZ9byNDZdO4n
        sha256:4a6e5124df8db7ac2bdd902e6191b807a6983a7f5d09fb10ce011f9a073b183e
    https://github.com/imcaspar/gpt2-ml/releases/download/v0.5/model.ckpt-100000.index
    vocab.txt: https://raw.githubusercontent.com/imcaspar/gpt2-ml/f6286b16cbbee6dddbe1ba557fffb47eaf998cd1/tokenization/bert-base-chinese-vocab.txt
        sha256:45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c
    config.json: written by the script
gpt2-ml-30g:
    model.ckpt-220000.data-00000-of-00001: https://drive.usercontent.google.com/download?id=1mT_qCQg4AWnAXTwKfsyyRWCRpgPrBJS3&export=download&confirm=t
        in a browser: https://drive.google.com/file/d/1mT_qCQg4AWnAXTwKfsyyRWCRpgPrBJS3
        sha256:e698cc97a7f5f706f84f58bb469d614e51d3c0ce5f9ab9bf77e01e3fcb41d482
    https://github.com/imcaspar/gpt2-ml/releases/download/v1.0/model.ckpt-220000.index
    vocab.txt: https://raw.githubusercontent.com/imcaspar/gpt2-ml/f6286b16cbbee6dddbe1ba557fffb47eaf998cd1/tokenization/clue-vocab.txt
        sha256:a25692ff268cd5d2468a66601ad746c49251bcc0b5a330592708bbe89ef67d02
    config.json: written by the script

One command:

    python convert/gpt2_ml.py gpt2-ml-15g gpt2-ml
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("gpt2_ml", __doc__))
