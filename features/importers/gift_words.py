"""The nouns by which a gift shop's stock list tells what a thing is, and the category that each stands for.

The categories were chosen by looking at the UCI "Online Retail" file; plurals and the clerks' own spellings are listed
where they occur.
"""

from __future__ import annotations

# What a thing is made for. The last such noun of a title decides, and a noun of several words beats its own last word.
PRODUCTS: dict[str, str] = {
    "Bag": "bag, bags, shopper, backpack, rucksack, handbag, washbag, satchel",
    "Baking": "cake cases, cases, baking set, mould, moulds, cutter, cutters, cake tin, cake tins, baking cups, "
    "rolling pin, measuring cups, measuring spoons, cake stand, cakestand, cake slice, cake plate, cake stands, "
    "mixing bowl, frying pan, kitchen scales, scales, recipe box, cooking set, toffee cup, chocolate cup",
    "Basket": "basket, baskets, hamper, bucket, buckets, tub, pail",
    "Bathroom": "soap, soaps, soap dish, sponge, flannel, flannels, bath, bathroom set, shower cap, soap holder, "
    "lip gloss, bath salts, bath sponge, balm, nail file, manicure set, compact mirror, soap rack, bath cube, "
    "lipstick, plasters, first aid kit, first aid tin, toilet roll",
    "Bottle & Jar": "bottle, bottles, jar, jars, flask, jug, jugs, pitcher, carafe, decanter, dispenser, vase, "
    "vases, cloche",
    "Bowl & Plate": "bowl, bowls, fruitbowl, dish, dishes, plate, plates, platter, ramekin, ramekins, tray, trays, "
    "trinket pot, popcorn holder",
    "Box & Tin": "box, boxes, tin, tins, container, containers, chest, chests, money bank, bank, trunk, case, "
    "suitcase, caddy, bin, bins, canister, canisters, crate, trinket box, trinket boxes, piggy bank, money box, "
    "storage cubes",
    "Bracelet & Ring": "bracelet, bracelets, bangle, bangles, bracl, bracelt, braclet, ring, rings",
    "Candle": "candle, candles, t-lights, t-light, tealights, tealight, incense, incense/candle set, citronella, "
    "matches, incense/candl set",
    "Card": "card, cards, greeting card, postcard, postcards, invites, envelopes, envelope",
    "Clock": "clock, clocks, watch, hourglass, thermometer, calendar",
    "Craft Kit": "kit, kits, sewing box, felt, feltcraft, stencil, stencils, stamp, stamps, wool, buttons, beads, "
    "craft, paint set, drawing set, patches, patch, sewing, knitting, colouring set, modelling clay, pin cushion",
    "Cushion": "cushion, cushions, cushion cover, squarecushion cover, c/cover, pillow, filler pad, pad, pads, "
    "throw, quilt, blanket, pouffe, bean bag, chair pad, seat pad",
    "Door & Hook": "doormat, doorstop, drawer knob, knob, drawerknob, doorknob, door hanger, hook, hooks, hanger, "
    "hangers, coat rack, rack, racks, key holder, peg, pegs",
    "Earrings": "earrings, earring",
    "Frame & Mirror": "frame, frames, photo frame, photoframe, picture frame, mirror, mirrors, album, photo album, "
    "picture, canvas, cornice, photo clip",
    "Furniture": "cabinet, shelf, shelves, table, chair, chairs, stool, drawer, drawers, cupboard, bench, bookend, "
    "bookends, tidy, magazine rack, hammock, deckchair, ladder, stand, organiser",
    "Garden": "planter, planters, watering can, bird house, birdhouse, bird feeder, feeder, windmill, trowel, "
    "spade, rake, bird table, bird bath, fork, gnome, herb marker, marker, markers, twine, seeds, pot, pots, "
    "plant pot holder, gardeners, wind chime, w/chime, chime, chimes, grow your own, sow 'n' grow set, hen house, "
    "windsock, kneeling pad, garden gloves",
    "Garland & Bunting": "garland, garlands, bunting, paper chain, streamers, banner, honeycomb, confetti, "
    "balloons, balloon, party cone, party cones, party hats, cracker, crackers, fan, fans, wreath, wreaths, paper "
    "chains",
    "Glassware": "tumbler, tumblers, beaker, beakers, wine glass, goblet, cocktail glass, glasses, chalice, "
    "champagne glass, sundae, sundaes, aperitif glass, wine goblet, tea glass, straws",
    "Hair & Brooch": "hair clip, hair clips, hairclip, hairclips, clip, clips, hairband, hairbands, hair band, hair "
    "grip, grip, hairslide, hairslides, slide, hair comb, comb, brooch, badge, badges, hair tie, pin, pins, "
    "tiaras",
    "Home Textile": "apron, aprons, tea towel, tea towels, towel, towels, oven glove, glove, gloves, tablecloth, "
    "curtain, curtains, table run, napkin, napkins, placemat, placemats, place mat, coaster, coasters, egg cosy, "
    "tea cosy, cosy, peg bag, doily, doilies, doiley, mat, mats, food cover, scarf, slippers, slipper shoes, "
    "shoes, sock, socks, ironing board cover, napkin rings, napkin charms",
    "Key Ring & Charm": "key ring, key rings, keyring, keyrings, key fob, bag charm, phone charm, charm, charms, "
    "key-chains, luggage tag, passport cover",
    "Lamp & Lantern": "lantern, lanterns, lamp, lamps, light, lights, night light, lampshade, shade, chandelier, "
    "lightbulb, torch, nightlight, disco ball, string 20light, 20light, light chain, silicon cube",
    "Magnet": "magnet, magnets",
    "Mug & Cup": "mug, mugs, cup, cups, teacup, teacups, teapot, tea pot, saucer, tea set, coffee set, sugar bowl, "
    "milk jug, egg cup, egg cups, egg holder, coffee pot, breakfast set, tea for one, tea plate",
    "Necklace": "necklace, necklaces, pendant, pendants, necklac, neckl, neckl., lariat, choker",
    "Purse": "purse, purses, wallet, card holder, cardholder, glasses case, cosmetic bag, sunglasses",
    "Sign": "sign, signs, plaque, plaques, doorsign, blackboard, chalkboard, memo board, memoboard, message board, "
    "board, slate, tile, letters, block word, height chart",
    "Stationery": "notebook, notebooks, sketchbook, journal, book, books, notepad, pen, pens, pencil, pencils, "
    "eraser, erasers, rubber, rubbers, ruler, rulers, sharpener, sharpeners, stationery set, writing set, "
    "paperweight, paperweights, p'weight, calculator, tape, tapes, stamp set, pencil case, chalk sticks, chalk, "
    "list, letter rack, letter holder, letter tray, crayons, scissor, scissors, diary, memo pad",
    "T-Light Holder": "t-light holder, t-light holders, tealight holder, candle holder, candle holders, "
    "candleholder, candleholders, votive holder, candlestick, candle stick, candlesticks, t-light glass, votive, "
    "candle plate, candlepot, candle pot, holder, holders, hldr, sconce, candelabra, oil burner, candle sticks, "
    "candle ring",
    "Tissues & Party Paper": "tissues, paper napkins, party napkins, paper plates, paper cups, tissue box, tissue ream",
    "Toy & Game": "toy, soft toy, doll, dolls, game, games, jigsaw, puzzle, dominoes, skittles, playing cards, "
    "teddy, puppet, puppets, marbles, ball, balls, skipping rope, yo yo, kite, flying disc, helicopter, robot, "
    "robots, harmonica, bingo set, building blocks, snakes & ladders, naughts & crosses, ludo, spinning top, "
    "spinning tops, nesting boxes, inflatable, bubbles, tattoos, whistle, trumpet, glow in dark, pony, mobile, "
    "tool set, boomerang, rocket, rounders, piano, bear, chess, car, train, snowstorm, childrens cutlery, creepy "
    "crawlie set",
    "Umbrella & Parasol": "umbrella, umbrellas, parasol, parasols, rain hat, rain mac, rain poncho, poncho",
    "Utensil & Cutlery": "cutlery, spoon, spoons, teaspoons, teaspoon, knife, knives, spatula, ladle, whisk, "
    "grater, opener, corkscrew, ice cream scoop, salad servers, servers, chopsticks, chopping board, bread board, "
    "spoon rest, pan, utensil, utensils, peeler, sieve, colander, timer, scoop, cake server, egg warmer, toast "
    "rack, butter dish, tea strainer, egg basket, shaker, apple corer, orange squeezer, washing up brush",
    "Wall Art": "wall art, wall sticker, wall stickers, wall plaque, wall decoration, poster",
    "Warmer": "hot water bottle, hand warmer, hottie, warmer, ear muff headphones, ear muffs",
    "Wrap & Ribbon": "wrap, gift wrap, gift bag, gift bags, gift tape, tag, tags, tissue paper, wrapping paper, "
    "ribbon, ribbons, ribbon reel, sticker, stickers, sticker sheet, gift box, gift boxes, bow, bows, carrier "
    "bag, paper bag, scrap book set",
}

# They decide only where a title has none of the nouns above, and a season before a shape.
SEASONS: dict[str, str] = {
    "Christmas Decoration": "christmas, bauble, baubles, reindeer, santa, snowman, snowmen, stocking, jingle, "
    "advent, sleigh, snowflake, snowflakes, icicle, holly, noel, angel, yuletide, mistletoe, miseltoe, cinammon",
    "Easter Decoration": "easter, bunny, bunnies, egg, eggs, chick, chicks, hen, rabbit, rabbits, chicken",
}
SHAPES: dict[str, str] = {
    "Decoration": "decoration, decorations, decorative, ornament, ornaments, heart, hearts, star, stars, tree, "
    "trees, flower, flowers, bird, birds, butterfly, butterflies, bell, bells, dec, feather, rose, roses, fairy, "
    "fairies, mushroom, jewel, toadstool, toadstools, shell, dove, cat, dog, frog, elephant, horse, duck, ducks, "
    "owl, owls, wicker",
}
