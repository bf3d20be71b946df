"""What is known of items apart from who touched them: numbers, categories, and the words of their titles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ranking.items import encode_items
from ranking.schema import ItemSchema

MOST_WORDS = 20_000
TITLE_WORDS = 12
TOKEN = re.compile(r"[^\W_]+")


class Content:
    """The item tower's inputs for N items: dense f32[N, F], categorical i64[N, G], words i64[N, W], 0 none.

    Popularity is left out of `dense`: what is known now of a label's time would be known from its future.
    """

    def __init__(self, items: pa.Table, schema: ItemSchema, popularity: Sequence[str]) -> None:
        dense, categorical = encode_items(items, schema)
        lasting = [f for f, one in enumerate(schema.dense) if one.source not in popularity]
        self.dense = torch.from_numpy(dense[:, lasting])
        self.categorical = torch.from_numpy(categorical)
        words, self.vocabulary = title_words(items["title"].to_pylist())
        self.words = torch.from_numpy(words)

    def take(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.dense[rows], self.categorical[rows], self.words[rows]


def title_words(titles: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """Codes int64[N, TITLE_WORDS] of the words that two titles or more share, 0 empty; and the number of codes."""
    split = [list(dict.fromkeys(TOKEN.findall(title.lower()))) for title in titles]
    counts = Counter(token for tokens in split for token in tokens)
    shared = sorted((-count, token) for token, count in counts.items() if count > 1)[:MOST_WORDS]
    codes = {token: code + 1 for code, (_, token) in enumerate(shared)}
    out = np.zeros((len(titles), TITLE_WORDS), np.int64)
    for row, tokens in enumerate(split):
        known = [codes[token] for token in tokens if token in codes][:TITLE_WORDS]
        out[row, : len(known)] = known
    return out, len(codes) + 1
