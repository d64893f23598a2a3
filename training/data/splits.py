"""The parts of a data set, as a sample's `split` field names them.

People are *seen* in training or *unseen*; nobody is both, and nobody's part is left to chance.

| split | whose | for |
| --- | --- | --- |
| `train` | seen people | both stages of training; at test time, the persona of a seen person |
| `val` | seen people | model selection |
| `test` | seen people | the figures for seen people: images that no `train` or `val` sample shows |
| `support` | unseen people | the persona: `SUPPORT_SAMPLES` samples of each |
| `query` | unseen people | the figures for unseen people: images that no `train`, `val` or own `support` sample shows |
"""

TRAIN = "train"
VAL = "val"
TEST = "test"
SUPPORT = "support"
QUERY = "query"

SEEN_SPLITS = (TRAIN, VAL, TEST)
UNSEEN_SPLITS = (SUPPORT, QUERY)
SPLITS = SEEN_SPLITS + UNSEEN_SPLITS

SUPPORT_SAMPLES = 5
"""Samples that the persona of an unseen person is made from (paper: 5)."""
