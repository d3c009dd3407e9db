"""Google mT5 (2020), whole or with its vocabulary cut to Chinese.

With --chinese the embeddings keep the 32598 rows that a vocabulary made for bert4keras names, out of 250112.
Checksums: those of Google Cloud Storage, asked for on download.

Published:
    https://github.com/google-research/multilingual-t5
        (mt5-small, mt5-base, mt5-large, mt5-xl, mt5-xxl)
    https://github.com/bojone/t5_in_bert4keras
        (mt5-chinese-vocabulary)
Licence:
    Apache-2.0
        (mt5-small, mt5-base, mt5-large, mt5-xl, mt5-xxl)
    not stated
        (mt5-chinese-vocabulary)
Config:
    operative_config.gin
        (mt5-small, mt5-base, mt5-large, mt5-xl, mt5-xxl)
    none: goes with mt5-*
        (mt5-chinese-vocabulary)
Vocabulary:
    sentencepiece.model (250100 pieces)
        (mt5-small, mt5-base, mt5-large, mt5-xl, mt5-xxl)
    sentencepiece_cn.model (32596 pieces)
        (mt5-chinese-vocabulary)

mt5-small: gs://t5-data/pretrained_models/mt5/small
mt5-base: gs://t5-data/pretrained_models/mt5/base
mt5-large: gs://t5-data/pretrained_models/mt5/large
mt5-xl: gs://t5-data/pretrained_models/mt5/xl
mt5-xxl: gs://t5-data/pretrained_models/mt5/xxl
mt5-chinese-vocabulary:
    sentencepiece_cn.model: https://raw.githubusercontent.com/bojone/t5_in_bert4keras/e106f39754932759bda34d33809fc0ee2cbcb1ca/tokenizer/sentencepiece_cn.model
        sha256:c65feffa65ff0378759778193852083d23349cb1b40c906e9463a12f8076ff32
    sentencepiece_cn_keep_tokens.json: https://raw.githubusercontent.com/bojone/t5_in_bert4keras/e106f39754932759bda34d33809fc0ee2cbcb1ca/tokenizer/sentencepiece_cn_keep_tokens.json
        sha256:abc68d4544a63deba1afcdb8d9ace562bea090264f9dca53b6c8f16f71a2a138
With mt5-small, mt5-base, mt5-large, mt5-xl, mt5-xxl:
    gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model

One command:

    python convert/mt5.py mt5-small mt5-chinese --chinese
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("mt5", __doc__))
