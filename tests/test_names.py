"""Names that two rooms must agree on, though neither may know the other."""

from __future__ import annotations

from features.shop import ITEMS, RESERVED
from ranking.items import COLUMNS
from ranking.train.data import POPULARITY


def test_no_column_of_a_shop_may_have_a_name_that_training_or_a_bundle_adds() -> None:
    assert set(RESERVED) == {*POPULARITY, *COLUMNS} - set(ITEMS.names)
