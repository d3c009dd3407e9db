"""Chinese BERT-wwm and RoBERTa-wwm of the Joint Laboratory of HIT and iFLYTEK (HFL, 2019).

All are BERTs, those called RoBERTa too. Checksums: those of Hugging Face, asked for on download.

Published: https://github.com/ymcui/Chinese-BERT-wwm
Licence: Apache-2.0
Config: config.json
Vocabulary: vocab.txt (WordPiece, 21128 tokens, that of Google's Chinese BERT)

chinese-bert-wwm: hf:hfl/chinese-bert-wwm
chinese-bert-wwm-ext: hf:hfl/chinese-bert-wwm-ext
chinese-roberta-wwm-ext: hf:hfl/chinese-roberta-wwm-ext
chinese-roberta-wwm-ext-large: hf:hfl/chinese-roberta-wwm-ext-large

One command:

    python convert/chinese_bert_wwm.py chinese-roberta-wwm-ext roberta-chinese
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("chinese_bert_wwm", __doc__))
