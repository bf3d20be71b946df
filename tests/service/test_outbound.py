"""Where requests that a client's words cause may go: to public addresses, however they are written."""

from __future__ import annotations

import ipaddress

import pytest

from service.webhooks.outbound import Refused, check_url, public
from tests.service.receiver import OPEN


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",
     "0.1.2.3", "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.1",
     "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.88.99.1", "168.63.129.16",
     "::1", "::", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "100::1", "2001:db8::1",
     "3fff::1", "5f00::1", "2001:2::1", "2001::1", "2001:0:7f00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
     "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:100.64.0.1", "::ffff:0.0.0.0", "::ffff:0:7f00:1",
     "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "64:ff9b:1::808:808",
     "2002:7f00:1::", "2002:a00:1::", "2002:a9fe:a9fe::", "2002:6440:1::", "::7f00:1", "::808:808"],
)  # fmt: skip
def test_an_address_that_is_not_of_the_internet_is_not_public(address: str) -> None:
    assert not public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111",
     "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"],
)  # fmt: skip
def test_an_address_of_the_internet_is_public(address: str) -> None:
    """Also by NAT64, which is how a network without IPv4 gets there: what is inside decides."""
    assert public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest", "https://10.0.0.1/", "https://0.0.0.0/",
     "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://127.1/", "https://017700000001/",
     "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/", "http://shop.example/", "https://u:p@shop.example/",
     "https://u@shop.example/", "ftp://shop.example/", "file:///etc/passwd", "https:///hook", "hook", "", "https://a:b/",
     "https://\u2460\u2461\u2466.0.0.1/", "https://127\u30020\u30020\u30021/", "https://0/", "https://0177.0.0.1/",
     "https://127.0.0.1./", "https://2130706433./", "https://0x7f000001./", "https://127.0.0.1%2e/",
     "https://[::]/", "https://[::ffff:7f00:1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/",
     "https://localhost/", "https://localhost./", "https://LOCALHOST/", "https://shop.localhost/",
     "https://4294967296/", "https://256.1.1.1/", "https://127.0.0.0.1/", "https://shop.example.0x7f/"],
)  # fmt: skip
def test_a_url_that_says_itself_where_it_leads_is_refused_at_once(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url, ())


def test_a_host_that_the_settings_allow_may_be_private_and_plain() -> None:
    assert str(check_url("http://127.0.0.1:8000/hook", OPEN)) == "http://127.0.0.1:8000/hook"
    assert check_url("https://shop.example/hook", ()).host == "shop.example"
