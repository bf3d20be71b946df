"""How a model is trained: the `[train]` part of endcap.toml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, lt=1)]


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes, epochs and limits. The defaults train the demo shop in about a minute on two cores.

    `max_examples` labels at most, the newest, are learned from; `dimension` is that of the embeddings, `history` how
    many of a shopper's newest items are read. The newest `ranker_share` of the examples teaches the ranker, on
    candidates of towers and neighbours that have not seen it; `ranker_candidates` for each of at most
    `ranker_examples` lists. `forget` is the share of items whose own vector is dropped in a step, so that content alone
    serves a new item. `neighbors` co-visited items are kept of each item. `holdout` is the newest share of events that
    evaluation keeps from training. `index = "auto"` is Flat up to 50,000 items and IVF beyond; else a faiss factory
    string, of whose lists a search probes `nprobe`. `threads = 0` leaves torch's own choice.
    """

    seed: int = 7
    dimension: Annotated[int, Meta(ge=2, le=1024)] = 64
    history: Annotated[int, Meta(ge=1, le=500)] = 20
    hidden: Count = 128
    epochs: Count = 3
    batch_size: Annotated[int, Meta(ge=2)] = 512
    learning_rate: Positive = 4e-3
    temperature: Positive = 0.1
    forget: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    max_examples: Count = 120_000
    refresh_epochs: Annotated[int, Meta(ge=0)] = 1
    refresh_rate: Positive = 0.3
    ranker_share: Share = 0.15
    ranker_hidden: Annotated[int, Meta(ge=2)] = 32
    ranker_examples: Count = 8_000
    ranker_steps: Count = 400
    ranker_batch_size: Count = 32
    ranker_learning_rate: Positive = 2e-3
    ranker_candidates: Annotated[int, Meta(ge=2)] = 200
    neighbors: Count = 50
    vocabulary: Count = 1000
    holdout: Share = 0.1
    index: str = "auto"
    nprobe: Count = 16
    threads: Annotated[int, Meta(ge=0)] = 1
