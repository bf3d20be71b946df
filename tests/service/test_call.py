"""What requests say of themselves in headers."""

from __future__ import annotations

import pytest

from service.call import Call, read_call
from service.errors import InvalidRequest


@pytest.mark.parametrize(
    ("headers", "call"),
    [
        ({}, Call()),
        ({"Endcap-Timeout-Ms": "35"}, Call(0.035)),
        ({"Endcap-Timeout-Ms": "0"}, Call(0.0)),
        ({"Endcap-Timeout-Ms": "12.5"}, Call(0.0125)),
        ({"x-envoy-expected-rq-timeout-ms": "40"}, Call(0.04)),
        ({"grpc-timeout": "30m"}, Call(0.03)),
        ({"grpc-timeout": "2S"}, Call(2.0)),
        ({"grpc-timeout": "1H"}, Call(3600.0)),
        ({"grpc-timeout": "500u"}, Call(0.0005)),
        ({"grpc-timeout": "20000000n", "Endcap-Timeout-Ms": "30"}, Call(0.02)),
        ({"Endcap-Priority": "bulk"}, Call(bulk=True)),
        ({"Endcap-Priority": "interactive"}, Call(bulk=False)),
        ({"Endcap-After": "1-0"}, Call(after="1-0")),
    ],
)
def test_the_shortest_timeout_counts(headers: dict[str, str], call: Call) -> None:
    found = read_call({name.lower(): text for name, text in headers.items()})
    assert (found.timeout_s, found.bulk, found.after) == (pytest.approx(call.timeout_s), call.bulk, call.after)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("Endcap-Timeout-Ms", text) for text in ("", "-1", "1e3", "nan", "50ms", "٣", "9999999999", "1.")),
        *(("grpc-timeout", text) for text in ("50", "m", "123456789m", "5x", "-5m", "5.5S")),
        ("x-envoy-expected-rq-timeout-ms", "soon"),
        ("Endcap-Priority", "urgent"),
    ],
)
def test_a_header_that_says_nothing_we_know_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_call({name.lower(): text})
    assert [one.path for one in caught.value.errors] == [name]
