"""The made-up catalogue: titles, prices and what makes shoppers like an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.generate_words import COLORS, DEPARTMENTS, KINDS, OWN_COLOR, SERIES, STYLE_COLORS, STYLES

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

CATEGORIES, STYLE_COUNT, TIERS, STYLE_SIZE = len(KINDS), len(STYLE_COLORS), 3, 6
DEPARTMENT = np.array([DEPARTMENTS.index(kind.department) for kind in KINDS])
ZIPF = 0.8
LUXURY = STYLE_COUNT - 1  # the last style costs more


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the generator knows of N items; shoppers see the table, their choices follow the rest.

    category int64[N] in KINDS; vector float64[N, STYLE_SIZE], the item's style; tier int64[N] in 0 … TIERS-1, cheap to
    dear within its category; weight float64[N], Zipf; listed float64[N], when it came into the shop, seconds before the
    end; centers float64[STYLE_COUNT, STYLE_SIZE], unit vectors around which the styles lie.
    """

    table: pa.Table
    category: Ints
    vector: Floats
    tier: Ints
    weight: Floats
    listed: Floats
    price: Floats
    centers: Floats


def make_catalogue(rng: np.random.Generator, n: int, days: int) -> Catalogue:
    """A catalogue of `n` items, at least one of each category; about one in twenty came in the last `days` days."""
    share = (np.arange(CATEGORIES) + 8.0) ** -0.5
    more = rng.choice(CATEGORIES, n - CATEGORIES, p=rng.permutation(share / share.sum()))
    category = rng.permutation(np.concatenate([np.arange(CATEGORIES), more]))
    style = rng.integers(STYLE_COUNT, size=n)
    centers = _unit(rng.normal(size=(STYLE_COUNT, STYLE_SIZE)))
    vector = centers[style] + rng.normal(0, 0.25, (n, STYLE_SIZE))
    level = rng.normal(0, 0.45, n)
    price = _shelf_price(
        rng, np.array([kind.price for kind in KINDS])[category] * np.exp(level + 0.35 * (style == LUXURY))
    )
    # Zipf's law with an exponent below 1, as shops have it; the shift keeps the first few from taking all.
    weight = rng.permutation((np.arange(n) + 5.0) ** -ZIPF)
    fresh = rng.random(n) < 0.05
    age = np.where(fresh, rng.uniform(0, days, n), days + rng.exponential(300, n))
    color = _leaning(rng, np.array(STYLE_COLORS)[style, rng.integers(3, size=n)], len(COLORS))
    good = _leaning(rng, style + category, np.array([len(kind.goods) for kind in KINDS])[category])
    goods = [KINDS[c].goods[g] for c, g in zip(category, good, strict=True)]
    materials = [material for material, _ in goods]
    paint = [None if material in OWN_COLOR else COLORS[c] for material, c in zip(materials, color, strict=True)]
    nouns = [names[int(luck * len(names))] for (_, names), luck in zip(goods, rng.random(n), strict=True)]
    table = pa.table(
        {
            "item_id": ids("i", n),
            "title": _titles(rng, category, style, paint, materials, nouns),
            "category": [KINDS[c].category for c in category],
            "price": price,
            "in_stock": rng.random(n) >= 0.03,
            "rating": np.round(np.clip(rng.normal(4.1, 0.45, n), 1, 5), 1),
            "color": [shade or OWN_COLOR[material] for shade, material in zip(paint, materials, strict=True)],
            "material": materials,
            "age_days": np.floor(age),
        }
    )
    tier = np.digitize(level, [-0.2, 0.2]).astype(np.int64)
    return Catalogue(table, category, vector, tier, weight, age * 86_400, price, centers)


def ids(letter: str, n: int) -> list[str]:
    """`i00001` and so on, all of one length."""
    width = max(5, len(str(n)))
    return [f"{letter}{number:0{width}d}" for number in range(1, n + 1)]


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _leaning(rng: np.random.Generator, usual: Ints, count: Ints | int) -> Ints:
    """int64[N] below `count`: two times in three the usual one, else any."""
    anything = (rng.random(len(usual)) * count).astype(np.int64)
    return np.where(rng.random(len(usual)) < 2 / 3, usual % count, anything)


def _shelf_price(rng: np.random.Generator, price: Floats) -> Floats:
    """The price that a shop would print: 12.37 -> 11.99, 12.50, 12.95."""
    ending = rng.choice([-0.01, 0.5, 0.95], len(price), p=[0.6, 0.25, 0.15])
    printed: Floats = np.round(np.maximum(np.floor(price), 1) + ending, 2)
    return printed


def _titles(
    rng: np.random.Generator,
    category: Ints,
    style: Ints,
    paint: list[str | None],
    materials: list[str],
    nouns: list[str],
) -> list[str]:
    """`Rustic Blue Stoneware Mug, 350 ml`: at times without the style or the colour; told apart where need be."""
    taken: dict[str, int] = {}
    titles = []
    for i, luck in enumerate(rng.random((len(nouns), 2))):
        kind = KINDS[category[i]]
        manner, material_noun = STYLES[kind.department][style[i]], f"{materials[i]} {nouns[i]}"
        full = f"{manner} {paint[i]} {material_noun}" if paint[i] else f"{manner} {material_noun}"
        short = f"{paint[i] or manner} {material_noun}" if luck[0] < 0.4 else f"{manner} {material_noun}"
        first = int(luck[1] * len(kind.details))
        details = kind.details[first:] + kind.details[:first]
        names = [
            f"{name}, {detail}" for detail in details for name in ((full, short) if luck[0] > 0.7 else (short, full))
        ]
        names += [f"{short} {series}, {details[0]}" for series in SERIES]
        name = next((name for name in names if name not in taken), names[0])
        taken[name] = taken.get(name, 0) + 1
        titles.append(name if taken[name] == 1 else f"{name}, no. {taken[name]}")
    return titles
