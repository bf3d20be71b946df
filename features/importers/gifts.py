"""Readable titles and modest categories for a gift shop's stock list, which is all capitals and has no categories.

Both are made from the description alone, so they say no more than it does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

MIN_ITEMS = 30  # in a category of its own; the rest share OTHER
OTHER = "Other"

# Category -> the nouns that tell it, as they stand in the stock list. A noun of several words beats its last word.
_NOUNS = {
    "Bag": "BAG, BAGS, SHOPPER, BACKPACK, RUCKSACK, HANDBAG, WASHBAG, TOTE",
    "Basket": "BASKET, BASKETS, HAMPER, BUCKET, TUB, TUBS",
    "Book & Pen": "NOTEBOOK, SKETCHBOOK, JOURNAL, BOOK, BOOKS, NOTEPAD, PEN, PENS, PENCIL, PENCILS, ERASER, ERASERS, RULER, "
    "SHARPENER, STATIONERY SET, WRITING SET, ORGANISER, MEMO BOARD, CHALK STICKS, PAPERWEIGHT, P'WEIGHT, CALCULATOR, TAPE, "
    "STAMP SET, PENCIL CASE, BOOKCOVER TAPE, MEMO PAD, LIST, LETTER RACK, LETTER TRAY, CRAYONS",
    "Bottle & Jar": "BOTTLE, BOTTLES, JAR, JARS, FLASK, JUG, PITCHER, CARAFE, DECANTER, DISPENSER, VASE, WATERING CAN",
    "Bowl & Dish": "BOWL, BOWLS, DISH, DISHES, SAUCER, PLATE, PLATES, PLATTER, RAMEKIN, RAMEKINS, TRAY, TRAYS",
    "Box & Tin": "BOX, BOXES, TIN, TINS, CONTAINER, CONTAINERS, CHEST, CHESTS, MONEY BANK, MONEY BOX, TRUNK, CASE, SUITCASE, CADDY, "
    "STORAGE CUBE, CIGAR BOX, BIN, CANISTER, CANISTERS, CRATE",
    "Candle": "CANDLE, CANDLES, T-LIGHTS, INCENSE, TEALIGHTS, CANDLE POT, WAX",
    "Card & Wrap": "CARD, CARDS, WRAP, GIFT WRAP, TAG, TAGS, TISSUE PAPER, WRAPPING PAPER, ENVELOPES, POSTCARD, POSTCARDS, RIBBON, "
    "RIBBONS, STICKER, STICKERS, STICKER SHEET, GIFT BAG, GIFT TAPE, INVITES, SCRAP BOOK STICKERS, LUGGAGE TAG",
    "Clock": "CLOCK, CLOCKS, WATCH, HOURGLASS, THERMOMETER",
}
