"""Readable titles and modest categories for a gift shop's stock list, which is all capitals and has no categories.

Both are made from the description alone, so they say no more than it does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from features.importers.gift_words import PRODUCTS, SEASONS, SHAPES

MIN_ITEMS = 25  # in a category of its own; smaller ones become OTHER
OTHER = "Other"

_SMALL = {"a", "and", "at", "by", "de", "des", "du", "for", "from", "in", "of", "on", "or", "the", "to", "with"}
_CAPITALS = {"3D", "BBQ", "CD", "DIY", "DVD", "LED", "PC", "TV", "UK", "USA", "VIP"}
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 (the curly apostrophe is meant)
_QUALIFIER = re.compile(r" (?:with|w|w/|in|on|for) ")


def plausible(description: str) -> bool:
    """Whether a description is the stock list's, in capitals, and no clerk's note: "damaged", "wrongly coded", "?"."""
    letters = [letter for letter in description if letter.isalpha()]
    return len(letters) > 3 and sum(map(str.isupper, letters)) * 2 >= len(letters)


def readable(description: str) -> str:
    """`WHITE HANGING HEART T-LIGHT HOLDER` -> `White Hanging Heart T-Light Holder`.

    Words get a capital, small words (of, and, with; `W` is "with") none unless they come first, sizes none (`40cm`),
    abbreviations keep theirs. Doubled spaces and stray commas and full stops go.
    """
    text = re.sub(r"\s*([,;])\s*", r"\1 ", description)
    words = re.sub(r"\bW/? ", "with ", " ".join(text.split())).strip(" .,;").split()
    return " ".join(_capitalized(word, first=place == 0) for place, word in enumerate(words))


def _capitalized(word: str, *, first: bool) -> str:
    if word.upper() in _CAPITALS or re.fullmatch(r"A\d", word):
        return word.upper()
    if word.lower() in _SMALL and not first:
        return word.lower()
    if word[0].isdigit():
        return word.lower()
    return _WORD.sub(lambda part: part[0].capitalize(), word)


def categories(titles: Sequence[str]) -> list[str]:
    """A category for each title: that of its last product noun, or OTHER where fewer than MIN_ITEMS titles share it.

    What follows "with", "in", "on" or "for" says what a thing has or where it goes ("Pen in Gift Box"), not what it is,
    so it counts only when nothing before it does.
    """
    found = [_category(title) for title in titles]
    sizes = Counter(found)
    return [name if sizes[name] >= MIN_ITEMS else OTHER for name in found]


def _category(title: str) -> str:
    text = re.sub(r"[^\w'&/.+-]+", " ", title.lower())
    head = _QUALIFIER.split(text, maxsplit=1)[0]
    for nouns in _TIERS:
        for part in (head, text):
            words = re.split(r"[ +]", part.strip())
            # From the last word backwards; at each end the longest phrase wins.
            for end in range(len(words), 0, -1):
                for size in (3, 2, 1):
                    if size <= end and (name := nouns.get(" ".join(words[end - size : end]))):
                        return name
    return OTHER


def _inverted(lists: Mapping[str, str]) -> dict[str, str]:
    return {noun: name for name, nouns in lists.items() for noun in nouns.split(", ")}


_TIERS = [_inverted(lists) for lists in (PRODUCTS, SEASONS, SHAPES)]
