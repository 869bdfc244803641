"""The hooks of the lean adapter against those of the stock one; nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests import PreparedRequest
from requests.adapters import HTTPAdapter

from holyroute.transport.adapter import POOLS, Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

URLS = [
    *[
        "http://a.example/",
        "http://a.example/v1",
        "http://a.example:80/",
        "http://a.example:81/",
        "https://a.example/v1",
    ],
    *["http://A.example/", "HTTP://a.example/", "http://user:test-key-u@a.example/", "http://other@b.example/"],
    *[
        "http://a.example",
        "http://a.example?x=/",
        "http://a.example#/",
        "http://x/",
        "http://y/",
        "https://x/",
        "https://y/",
    ],
    *[
        "   http://x/",
        "   http://y/",
        "http:///x/",
        "http:///y/",
        "http:x/",
        "http://[::1]/",
        "http://[::1]:8/",
        "http://a:b/",
    ],
    *["http://x\\@y/", "http://x\\y/", "http://\tx/", "//x/", "", None],
]
VERIFY = [True, False, "there.pem", "folder", "missing.pem", None, 0, 1]
CERT = [None, None, None, "there.pem", ("there.pem", "there.pem"), "missing.pem"]


def outcome(action: Callable[[], Any]) -> Any:
    """What comes of it, or the exception."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return type(error), str(error)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """A file, a folder, and a file that is missing."""
    there = tmp_path_factory.mktemp("certificates")
    (there / "there.pem").touch()
    (there / "folder").mkdir()
    return {name: str(there / name) for name in ("there.pem", "folder", "missing.pem")}


class Looked:
    """What an adapter does before it sends: which pools it finds, and how it sets them up."""

    def __init__(self, adapter: HTTPAdapter) -> None:
        self.adapter = adapter
        self.pools: list[Any] = []

    def up(self, url: Any, verify: Any, cert: Any, proxies: Any) -> Any:
        """The pool as a number, its address and certificates, and what the request line says; or the exception."""
        request = PreparedRequest()
        request.prepare(method="POST", url="http://x/")
        request.url = url

        def look() -> Any:
            pool: Any = self.adapter.get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
            self.adapter.cert_verify(pool, url, verify, cert)
            if pool not in self.pools:
                self.pools.append(pool)
            names = ("scheme", "host", "port", "proxy", "cert_reqs", "ca_certs", "ca_cert_dir", "cert_file", "key_file")
            target = self.adapter.request_url(request, proxies)
            return [self.pools.index(pool), target, *(str(getattr(pool, name, None)) for name in names)]

        return outcome(look)


STEPS = st.tuples(
    st.sampled_from(URLS),
    st.sampled_from(VERIFY),
    st.sampled_from(CERT),
    st.sampled_from(
        [None, {}, {"http": "http://p.example:3128"}, {"https://x": "http://p.example"}, {"ftp": "http://p"}]
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=8), st.sampled_from([1, 2, POOLS]))
def test_pools_and_certificates_are_the_stock_ones(places: dict[Any, Any], steps: list[Any], size: int) -> None:
    """Whatever was asked before: the same pool for the same URLs, with the same certificates, or the same refusal."""

    def placed(value: Any) -> Any:
        return tuple(map(placed, value)) if isinstance(value, tuple) else places.get(value, value)

    stock, lean = Looked(HTTPAdapter(pool_connections=size)), Looked(Adapter(pool_connections=size))
    for url, verify, cert, proxies in [*steps, *steps]:
        expected, actual = (one.up(url, placed(verify), placed(cert), proxies) for one in (stock, lean))

        assert actual == expected


@pytest.mark.parametrize("order", [1, -1])
def test_no_spelling_of_one_host_leads_to_another(order: int) -> None:
    """Every URL after every other one finds its own pool."""
    steps = [(url, True, None, None) for url in ["http://a.exampl/", *URLS, "http://a.exampl/"][::order]]
    stock, lean = ([look.up(*step) for step in steps] for look in (Looked(HTTPAdapter(POOLS)), Looked(Adapter())))

    assert lean == stock


def test_the_usual_certificates_are_those_of_requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """`verify=True` means the bundle of requests, not what the machine trusts; again after something else was meant."""
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", str(bundle))
    look = Looked(Adapter())
    seen = [look.up("https://x/", verify, None, None)[6:8] for verify in (True, 0, True)]

    assert seen == [["CERT_REQUIRED", str(bundle)], ["CERT_NONE", "None"], ["CERT_REQUIRED", str(bundle)]]


def test_credentials_in_a_url_are_not_remembered() -> None:
    """Pools are found again by scheme, host and port alone."""
    adapter = Adapter()
    look = Looked(adapter)
    for url in ("http://user:test-key-u@a.example/", "http://a.example/"):
        look.up(url, True, None, None)

    assert list(adapter._found) == [("http://a.example", True)]


def test_a_closed_adapter_finds_no_old_pool() -> None:
    """Not even one that a response keeps alive: its connections would never be closed."""
    adapter = Adapter()
    look = Looked(adapter)
    look.up("http://x/", True, None, None)
    adapter.close()
    look.up("http://x/", True, None, None)

    assert len(look.pools) == 2
    assert len(adapter.poolmanager.pools) == 1
