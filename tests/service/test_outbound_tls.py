"""Receivers by https: reached at the address that was looked at, and believed by their name only."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from service.config import WebhooksConfig
from service.errors import ConfigError
from service.jobs.opened import webhook_trust
from service.webhooks import sender
from service.webhooks.outbound import trusting
from tests.service.conftest import running
from tests.service.receiver import SECRET, Names, Receiver, Sending, message, outbox_of
from tests.service.test_jobs import ended

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl, which makes the certificates")

NAME = "shop.example"
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """Signs certificates, as a company's own does. `file`: its own certificate."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self.file, self.key = folder, folder / f"{name}.pem", folder / f"{name}.key"
        use = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        openssl("req", "-x509", *NEW_KEY, *use, "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.file)

    def certificate(self, name: str, days: int = 1) -> ssl.SSLContext:
        """A server's, for this name."""
        asked, key, signed = (self.folder / f"{name}.{kind}" for kind in ("csr", "key", "pem"))
        (self.folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", asked)
        by = ["-CA", self.file, "-CAkey", self.key, "-CAcreateserial", "-extfile", self.folder / "names"]
        openssl("x509", "-req", "-in", asked, *by, "-days", str(days), "-out", signed)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed, key)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def sent(folder: Path, receiver: Receiver, trust: ssl.SSLContext | None, names: Names) -> Sending:
    """After one attempt at https://shop.example, which is at 127.0.0.1."""
    outbox = outbox_of(folder, message(f"https://{NAME}:{receiver.port}/hook"))
    sending = Sending(outbox, frozenset([NAME]), names, trust)
    await sending.look()
    return sending


async def test_a_name_that_was_looked_at_before_is_still_the_name_that_the_certificate_must_have(
    tmp_path: Path, authority: Authority
) -> None:
    """It is resolved once and spoken to at that address, in its own name."""
    names = Names(["127.0.0.1"], ["127.0.0.99"])
    async with Receiver().listening(authority.certificate(NAME)) as receiver:
        sending = await sent(tmp_path, receiver, trusting(authority.file), names)
    assert sending.counts == {("delivered",): 1} and len(receiver.got) == 1
    assert (names.asked, receiver.asked_for) == (1, [NAME])


async def test_a_redirect_by_https_is_refused_too(tmp_path: Path, authority: Authority) -> None:
    async with Receiver().listening(authority.certificate(NAME)) as receiver:
        receiver.answers = [web.Response(status=308, headers={"Location": f"https://{NAME}/elsewhere"})]
        sending = await sent(tmp_path, receiver, trusting(authority.file), Names(["127.0.0.1"]))
    (waits,) = sending.sender.outbox.all("pending")
    assert waits.error == "the receiver answered 308, and redirects are refused" and len(receiver.got) == 1


@pytest.mark.parametrize(
    ("name", "days", "says"),
    [("other.example", 1, "Hostname mismatch, certificate is not valid for 'shop.example'."),
     (NAME, -1, "certificate has expired"), ("unknown", 1, "unable to get local issuer certificate"),
     ("self-signed", 1, "self-signed certificate")],
)  # fmt: skip
async def test_a_certificate_that_is_not_right_is_refused_counted_and_tried_again(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture, name: str, days: int, says: str
) -> None:
    """It may be mended within the day. Nothing is sent, not even the path; the log has a line, until it is another."""
    if name == "unknown":
        tls = Authority(tmp_path, "somebody else's").certificate(NAME)
    elif name == "self-signed":
        alone = Authority(tmp_path, NAME)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(alone.file, alone.key)
    else:
        tls = authority.certificate(name, days)
    async with Receiver().listening(tls) as receiver:
        sending = await sent(tmp_path / "outbox", receiver, trusting(authority.file), Names(["127.0.0.1"]))
        said = [one.getMessage() for one in caplog.records if one.name == sender.__name__]
        sending.now = 5.0
        await sending.look()
    (waits,) = sending.sender.outbox.all("pending")
    assert waits.error == f"the certificate of {NAME}:{receiver.port} is refused: {says}"
    assert said == [f"webhook msg_1 is tried again: {waits.error}"]
    assert said == [one.getMessage() for one in caplog.records if one.name == sender.__name__]
    assert (waits.attempts, waits.due, receiver.got) == (2, 25.0, [])
    assert sending.counts == {("retried",): 2}


async def test_an_authority_that_nobody_named_is_not_believed(tmp_path: Path, authority: Authority) -> None:
    async with Receiver().listening(authority.certificate(NAME)) as receiver:
        sending = await sent(tmp_path, receiver, None, Names(["127.0.0.1"]))
    assert "unable to get local issuer" in str(sending.sender.outbox.all("pending")[0].error) and receiver.got == []


SENDS = """
import asyncio, sys
from pathlib import Path
from tests.service.receiver import Names, Sending, message, outbox_of
url, folder = sys.argv[1:]
sending = Sending(outbox_of(Path(folder), message(url)), frozenset(["shop.example"]), Names(["127.0.0.1"]))
asyncio.run(sending.look())
print(*sending.counts)
"""


async def test_openssl_s_own_variable_names_an_authority_too(tmp_path: Path, authority: Authority) -> None:
    async with Receiver().listening(authority.certificate(NAME)) as receiver:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SENDS, f"https://{NAME}:{receiver.port}/", tmp_path,
            env={**os.environ, "SSL_CERT_FILE": str(authority.file)}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await child.communicate()
    assert said.decode().strip() == "('delivered',)"


async def test_a_deployment_s_own_authority_is_named_in_its_settings(
    deployment: Path, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For webhooks and for Parquet that a job is to fetch."""
    shop = tmp_path / "shop"
    shutil.copytree(deployment, shop)
    shutil.copy(authority.file, shop / "company.pem")
    monkeypatch.setenv("ENDCAP_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr(sender, "LOOK_S", 0.02)
    async with Receiver().listening(authority.certificate("localhost")) as receiver:
        base = f"https://localhost:{receiver.port}"
        with (shop / "endcap.toml").open("a") as file:
            file.write('\n[webhooks]\nallow_hosts = ["localhost"]\nca_file = "company.pem"\n')
            file.write(f'[jobs]\nallow = ["{base}/day/"]\n')
        async with running(shop) as here:
            receiver.answers = [web.Response(body=b"no Parquet")]
            asked = {"parquet": f"{base}/day/a.parquet", "callback_url": f"{base}/hook"}
            made = await here.post("/v1/jobs", asked, 202)
            assert (await ended(here, made["id"]))["error"].startswith("parquet: cannot be read: ")
            while not here.app.metrics.webhooks.values["delivered",]:
                await asyncio.sleep(0.02)
    assert len(receiver.got) == 2 and set(receiver.asked_for) == {"localhost"}


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file or directory"), ("hello\n", "holds no certificate in PEM")]
)
def test_a_file_without_certificates_is_told_with_its_setting(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "company.pem").write_text(content)
    with pytest.raises(ConfigError) as told:
        webhook_trust(tmp_path, WebhooksConfig(ca_file="company.pem"))
    assert str(told.value) == f"{tmp_path}/endcap.toml: webhooks.ca_file: {tmp_path}/company.pem: {says}"
