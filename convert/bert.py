"""Google BERT: English, Chinese and multilingual (2018, 2019).

Each zip file holds the checkpoint, its config and its vocabulary. Checksums: not published.

Published: https://github.com/google-research/bert
Licence: Apache-2.0
Config: bert_config.json
Vocabulary: vocab.txt (WordPiece)

uncased_L-12_H-768_A-12: https://storage.googleapis.com/bert_models/2018_10_18/uncased_L-12_H-768_A-12.zip
uncased_L-24_H-1024_A-16: https://storage.googleapis.com/bert_models/2018_10_18/uncased_L-24_H-1024_A-16.zip
cased_L-12_H-768_A-12: https://storage.googleapis.com/bert_models/2018_10_18/cased_L-12_H-768_A-12.zip
cased_L-24_H-1024_A-16: https://storage.googleapis.com/bert_models/2018_10_18/cased_L-24_H-1024_A-16.zip
wwm_uncased_L-24_H-1024_A-16: https://storage.googleapis.com/bert_models/2019_05_30/wwm_uncased_L-24_H-1024_A-16.zip
wwm_cased_L-24_H-1024_A-16: https://storage.googleapis.com/bert_models/2019_05_30/wwm_cased_L-24_H-1024_A-16.zip
chinese_L-12_H-768_A-12: https://storage.googleapis.com/bert_models/2018_11_03/chinese_L-12_H-768_A-12.zip
multi_cased_L-12_H-768_A-12: https://storage.googleapis.com/bert_models/2018_11_23/multi_cased_L-12_H-768_A-12.zip
multilingual_L-12_H-768_A-12: https://storage.googleapis.com/bert_models/2018_11_03/multilingual_L-12_H-768_A-12.zip

One command:

    python convert/bert.py chinese_L-12_H-768_A-12 bert-chinese
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("bert", __doc__))
