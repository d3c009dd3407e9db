"""T5-PEGASUS, a Chinese T5 with BERT's kind of vocabulary (ZhuiyiAI, 2021).

Published on Baidu Netdisk only: the script says where to save the file that you download there.
Checksums: not published.

Published: https://github.com/ZhuiyiTechnology/t5-pegasus
Licence: not stated
Config: config.json, in the archive
Vocabulary: vocab.txt, in the archive (WordPiece with Chinese words, about 50000 tokens)

t5-pegasus-base:
    chinese_t5_pegasus_base.zip: https://pan.baidu.com/s/1lQ9Dt9wZDO3IgiCL9tP-Ug (code 3sfn)
t5-pegasus-small:
    chinese_t5_pegasus_small.zip: https://pan.baidu.com/s/1bXRVWnDyAck9VfSO9_1oJQ (code qguk)

One command:

    python convert/t5_pegasus.py t5-pegasus-base t5-pegasus
"""

from tfloader.script import main

if __name__ == "__main__":
    raise SystemExit(main("t5_pegasus", __doc__))
