"""The words and prices from which `generate_shop` makes its catalogue."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One category. `goods`: each material with the nouns that go with it; `details`: sizes; `price`: the median."""

    category: str
    department: str
    goods: tuple[tuple[str, tuple[str, ...]], ...]
    details: tuple[str, ...]
    price: float


COLORS = (
    "White", "Cream", "Grey", "Charcoal", "Black", "Navy", "Blue", "Sky Blue", "Sage", "Green", "Mustard", "Ochre",
    "Rust", "Pink", "Red",
)  # fmt: skip

# What nobody paints has its own colour, which its name need not say.
OWN_COLOR = {
    "Silver": "Silver", "Stainless Steel": "Silver", "Zinc": "Grey", "Gold-Plated": "Gold", "Brass": "Gold",
    "Copper": "Copper", "Cast Iron": "Black", "Carbon": "Black", "Crystal": "Clear", "Oak": "Brown", "Walnut": "Brown",
    "Olive Wood": "Brown", "Beechwood": "Natural", "Ash": "Natural", "Maple": "Natural", "Rattan": "Natural",
    "Cork": "Natural", "Straw": "Natural", "Beeswax": "Natural", "Kraft Paper": "Brown", "Terracotta": "Terracotta",
}  # fmt: skip

# Eight tastes. In each department a taste has its own word; everywhere it leans to the same colours (places in COLORS).
STYLES: dict[str, tuple[str, ...]] = {
    "Kitchen": ("Rustic", "Nordic", "Vintage", "Modern", "Classic", "Boho", "Coastal", "Fine"),
    "Home": ("Rustic", "Nordic", "Vintage", "Modern", "Classic", "Boho", "Coastal", "Opulent"),
    "Clothing": ("Rugged", "Minimal", "Retro", "Slim", "Classic", "Boho", "Breezy", "Premium"),
    "Accessories": ("Rugged", "Minimal", "Retro", "Urban", "Classic", "Boho", "Breezy", "Luxe"),
    "Outdoor": ("Rugged", "Ultralight", "Retro", "Pro", "Classic", "Festival", "Seaside", "Premium"),
    "Play & Paper": ("Handmade", "Minimal", "Retro", "Modern", "Classic", "Whimsical", "Seaside", "Deluxe"),
}
STYLE_COLORS = ((11, 12, 9), (0, 2, 8), (10, 13, 1), (3, 4, 2), (5, 14, 0), (10, 11, 13), (6, 7, 0), (4, 5, 1))

# Names that tell apart what would otherwise be called the same.
SERIES = (
    "Alder", "Aster", "Birk", "Briar", "Cove", "Dahlia", "Dune", "Ember", "Fern", "Fjord", "Harlow", "Hazel", "Isla",
    "Juno", "Larch", "Linnea", "Luna", "Marlow", "Nova", "Orla", "Piper", "Rowan", "Tova", "Willow",
)  # fmt: skip

_SIZES = "small, medium, large"
_WEAR = "XS, S, M, L, XL"
_SHOES = "size 37, size 39, size 41, size 43, size 45"

# Goods are written "materials: nouns; materials: nouns".
_ROWS: tuple[tuple[str, str, float, str, str], ...] = (
    ("Mugs", "Kitchen", 11, "250 ml, 350 ml, 450 ml, set of 2",
     "Stoneware, Porcelain, Enamel, Earthenware: Mug, Espresso Cup, Tea Cup, Cocoa Mug"),
    ("Plates & Bowls", "Kitchen", 14, "single, set of 2, set of 4, set of 6",
     "Stoneware, Porcelain, Enamel, Bamboo: Dinner Plate, Side Plate, Pasta Bowl, Cereal Bowl"),
    ("Glasses", "Kitchen", 13, "single, set of 2, set of 4, set of 6",
     "Recycled Glass, Crystal, Ribbed Glass: Tumbler, Wine Glass, Water Glass, Carafe"),
    ("Pans", "Kitchen", 42, "20 cm, 24 cm, 28 cm",
     "Cast Iron, Stainless Steel, Aluminium, Enamelled: Frying Pan, Saucepan, Casserole, Wok"),
    ("Knives & Boards", "Kitchen", 29, _SIZES,
     "Oak, Walnut, Olive Wood, Bamboo: Chopping Board, Cheese Board; "
     "Steel, Ceramic: Paring Knife, Bread Knife, Chef's Knife"),
    ("Storage Jars", "Kitchen", 12, "small, medium, large, set of 3",
     "Glass, Ceramic: Storage Jar, Spice Jar, Biscuit Jar; Tin, Bamboo, Enamel: Tea Caddy, Bread Bin, Cake Box"),
    ("Baking", "Kitchen", 13, _SIZES,
     "Ceramic, Glass: Mixing Bowl, Pie Dish; Steel, Silicone: Cake Tin, Muffin Tray, Loaf Tin; Beechwood: Rolling Pin"),
    ("Kitchen Linen", "Kitchen", 12, "plain, striped, checked, set of 2",
     "Linen, Cotton, Waffle Cotton, Hemp: Tea Towel, Apron, Oven Glove, Tablecloth"),
    ("Cushions", "Home", 22, "40 x 40 cm, 45 x 45 cm, 50 x 50 cm",
     "Linen, Velvet, Cotton, Wool: Cushion, Cushion Cover, Floor Cushion, Seat Pad"),
    ("Throws", "Home", 45, "130 x 170 cm, 150 x 200 cm, 180 x 220 cm",
     "Wool, Cotton, Fleece, Mohair: Throw, Blanket, Bedspread"),
    ("Candles", "Home", 16, "small, medium, large, set of 3",
     "Soy Wax, Beeswax: Scented Candle, Pillar Candle; Brass, Glass, Ceramic: Candle Holder, Lantern"),
    ("Vases", "Home", 26, "12 cm, 18 cm, 25 cm",
     "Ceramic, Glass, Brass: Vase, Bud Vase; Terracotta, Ceramic, Zinc: Plant Pot, Planter"),
    ("Lamps", "Home", 58, _SIZES,
     "Brass, Oak, Ceramic, Steel: Table Lamp, Floor Lamp, Wall Light; Rattan, Linen, Glass: Pendant Light, Lampshade"),
    ("Rugs", "Home", 89, "60 x 90 cm, 80 x 150 cm, 120 x 180 cm",
     "Wool, Jute, Cotton, Recycled Wool: Rug, Hall Runner; Cotton, Bamboo: Bath Mat"),
    ("Bedding", "Home", 48, "single, double, king size",
     "Cotton, Linen, Flannel, Satin: Duvet Cover, Pillowcase, Fitted Sheet, Bed Set"),
    ("Clocks & Frames", "Home", 27, _SIZES,
     "Oak, Brass, Steel, Bamboo: Wall Clock, Alarm Clock, Picture Frame, Mirror"),
    ("T-Shirts", "Clothing", 19, _WEAR,
     "Cotton, Organic Cotton, Linen, Merino: T-Shirt, Long-Sleeve Top, Polo Shirt, Vest"),
    ("Shirts & Blouses", "Clothing", 39, _WEAR, "Poplin, Linen, Flannel, Denim: Shirt, Blouse, Overshirt"),
    ("Knitwear", "Clothing", 54, _WEAR,
     "Lambswool, Merino, Cotton, Cashmere: Jumper, Cardigan, Roll-Neck, Sweater Vest"),
    ("Trousers", "Clothing", 49, _WEAR,
     "Denim, Stretch Denim: Jeans, Shorts; Cotton, Linen, Corduroy: Chinos, Joggers"),
    ("Jackets", "Clothing", 98, _WEAR,
     "Waxed Cotton, Denim, Wool, Quilted: Jacket, Gilet, Parka; Recycled Nylon: Raincoat"),
    ("Dresses & Skirts", "Clothing", 55, _WEAR, "Cotton, Linen, Viscose, Jersey: Dress, Shirt Dress, Skirt, Jumpsuit"),
    ("Socks & Tights", "Clothing", 9, "S/M, M/L, pack of 3",
     "Cotton, Wool, Bamboo, Ribbed Cotton: Socks, Ankle Socks, Knee Socks, Tights"),
    ("Nightwear", "Clothing", 36, _WEAR, "Cotton, Flannel, Satin, Jersey: Pyjamas, Dressing Gown, Nightshirt"),
    ("Backpacks", "Accessories", 64, "12 l, 18 l, 25 l, 35 l",
     "Canvas, Leather, Recycled Nylon, Waxed Cotton: Backpack, Rucksack, Laptop Bag, Duffel Bag"),
    ("Tote Bags", "Accessories", 24, _SIZES,
     "Canvas, Leather, Jute, Cotton: Tote Bag, Shopper, Bucket Bag, Crossbody Bag"),
    ("Wallets & Belts", "Accessories", 32, "plain, embossed, woven",
     "Leather, Vegan Leather, Canvas, Cork: Wallet, Card Holder, Belt, Key Case"),
    ("Trainers", "Accessories", 79, _SHOES,
     "Leather, Canvas, Suede, Mesh: Trainers, High-Top Trainers, Slip-On Trainers"),
    ("Boots", "Accessories", 109, _SHOES,
     "Leather, Suede, Nubuck: Ankle Boots, Chelsea Boots, Walking Boots; Rubber: Wellington Boots, Rain Boots"),
    ("Hats & Scarves", "Accessories", 21, "one size, S/M, M/L",
     "Wool, Cotton, Cashmere: Beanie, Scarf, Beret; Straw, Linen, Cotton: Sun Hat, Cap"),
    ("Jewellery", "Accessories", 34, _SIZES,
     "Silver, Gold-Plated, Beaded, Brass: Hoop Earrings, Necklace, Bracelet, Ring"),
    ("Drinks Bottles", "Outdoor", 21, "350 ml, 500 ml, 750 ml, 1 l",
     "Steel, Aluminium, Glass, Tritan: Water Bottle, Travel Mug; Steel: Vacuum Flask, Food Flask"),
    ("Camping", "Outdoor", 67, "one person, two person, family",
     "Nylon, Canvas, Recycled Nylon: Tent, Sleeping Bag, Hammock; "
     "Aluminium, Steel: Camping Stove, Cook Set, Camping Chair"),
    ("Yoga", "Outdoor", 31, "light, standard, extra thick",
     "Cork, Natural Rubber, Jute: Yoga Mat, Yoga Block; Cotton, Hemp, Linen: Bolster, Yoga Cushion, Meditation Mat"),
    ("Cycling", "Outdoor", 36, "S, M, L",
     "Nylon, Canvas, Leather: Pannier, Saddle Bag, Cycling Gloves; "
     "Aluminium, Carbon: Bike Helmet, Bottle Cage, Bike Light"),
    ("Garden Tools", "Outdoor", 23, _SIZES,
     "Steel, Copper, Ash: Trowel, Hand Fork, Secateurs; Zinc, Steel: Watering Can, Bucket"),
    ("Notebooks", "Play & Paper", 9, "A4, A5, A6",
     "Linen-Bound, Leather, Kraft Paper, Recycled Paper: Notebook, Sketchbook, Journal, Weekly Planner"),
    ("Pens & Desk", "Play & Paper", 13, "single, set of 2, gift boxed",
     "Brass, Walnut, Aluminium: Fountain Pen, Ballpoint Pen, Ruler; "
     "Felt, Leather, Cork: Pencil Case, Desk Tidy, Desk Mat"),
    ("Wooden Toys", "Play & Paper", 24, "12 pieces, 24 pieces, 48 pieces",
     "Beechwood, Maple, Bamboo, Painted Wood: Train Set, Building Blocks, Toy Farm, Shape Sorter"),
    ("Games & Puzzles", "Play & Paper", 22, "travel size, standard, family edition",
     "Cardboard, Wooden, Magnetic, Felt: Jigsaw Puzzle, Memory Game, Domino Set, Chess Set"),
)  # fmt: skip


def _split(text: str, separator: str = ",") -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator))


def _kind(category: str, department: str, price: float, details: str, goods: str) -> Kind:
    pairs = []
    for group in _split(goods, ";"):
        materials, nouns = _split(group, ":")
        pairs += [(material, _split(nouns)) for material in _split(materials)]
    return Kind(category, department, tuple(pairs), _split(details), price)


KINDS: tuple[Kind, ...] = tuple(_kind(*row) for row in _ROWS)
DEPARTMENTS = tuple(STYLES)

# country, share of the shoppers, hours ahead of UTC (standard time is near enough for a daily rhythm)
COUNTRIES: tuple[tuple[str, float, int], ...] = (
    ("Germany", 0.24, 1),
    ("United Kingdom", 0.20, 0),
    ("France", 0.14, 1),
    ("Netherlands", 0.10, 1),
    ("Spain", 0.08, 1),
    ("Italy", 0.07, 1),
    ("Sweden", 0.06, 1),
    ("Poland", 0.05, 1),
    ("Ireland", 0.03, 0),
    ("Greece", 0.03, 2),
)
