"""How the answers of a batch are handed over."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from service.call import PLAIN
from service.many import BatchConfig, Done, Many
from service.wire import RecommendRequest


async def test_the_first_answer_is_written_alone_and_those_after_it_together() -> None:
    """Whoever reads sees something at once, however many are done by then."""
    written: list[list[int]] = []

    async def ask(*_: Any) -> Any:
        return Mock()

    async def write(done: list[Done]) -> None:
        written.append([one.index for one in done])

    rows = [RecommendRequest(user_id=str(n)) for n in range(7)]
    await Many(ask, lambda: True, Mock(), BatchConfig(in_flight=7)).answer(rows, PLAIN, write)
    assert written == [[0], [1, 2, 3, 4, 5, 6]]
