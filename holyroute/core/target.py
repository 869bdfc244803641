"""Who can answer: providers, targets (one model at one provider) and routes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from decimal import Decimal

URLS = 1_024  # that are remembered in their parts
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    input: Decimal
    output: Decimal

    @property
    def blended(self) -> Decimal:
        """One figure to compare models by: three parts input to one part output, the usual mix for comparisons."""
        return (3 * self.input + self.output) / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A base URL and the *names* of the variables that hold its keys; never a key itself."""

    name: str
    base_url: str
    api_key_env: tuple[str, ...] = ()  # several keys rotate; empty: no credential is needed
    api_key_prefix: str = ""  # what a well-formed key starts with, for diagnoses
    allow_http: bool = False
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None
    proxies: dict[str, str] = field(default_factory=dict)
    dialect: str = "openai"
    api_version: str | None = None  # of Azure's API; None: the latest that is no preview
    max_concurrency: int | None = None  # requests at the same time, of all its models together

    def __hash__(self) -> int:
        return hash(self.base_url)

    @property
    def host(self) -> str:
        """Host, with the port where one is given: `api.openai.com`, `localhost:11434`."""
        return _origin_of(self.base_url)[1]

    @property
    def is_private(self) -> bool:
        """Whether the host is this machine or a private network."""
        return is_private_host(self.base_url)

    def serves(self, url: str) -> bool:
        """Whether a URL lies under the base URL."""
        *ours, path = _origin_of(self.base_url)
        *theirs, their_path = _origin_of(url)
        return ours == theirs and their_path.startswith(path.rstrip("/") + "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One model at one provider."""

    name: str  # what routes and callers say
    model: str  # what goes over the wire
    provider: Provider
    price: Price | None = None
    latency: str = "normal"  # the declared latency class
    weight: float = 1.0
    context: int | None = None  # tokens
    max_output: int | None = None  # tokens
    supports: frozenset[str] | None = None  # None: unknown, so try
    rpm: int | None = None
    tpm: int | None = None

    key: str = field(init=False, repr=False, compare=False)  # identity of what breakers and benches are kept for

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.provider.base_url}|{self.model}")

    def __hash__(self) -> int:
        return hash(self.model)


@dataclass(frozen=True, slots=True)
class Route:
    """Task × priority → ordered targets."""

    task: str
    priority: str
    targets: tuple[str, ...]
    owned: bool = False  # written by the owner, not built in: consent to leave the caller's host


@dataclass(frozen=True, slots=True)
class FailoverList:
    """Where calls to a host, or for a model, may go when it fails."""

    source: str
    targets: tuple[str, ...]
    owned: bool = False


@lru_cache(URLS)
def _origin_of(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, path."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower(), parts.path


@lru_cache(URLS)
def is_private_host(url: str) -> bool:
    """Whether a URL's host is loopback or private: by address, or by a name that never leaves the network."""
    host = (urlsplit(url).hostname or "").lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith(_PRIVATE_SUFFIXES)
    return not address.is_global  # also the carrier-grade range, in which VPNs give addresses


def is_loopback(url: str) -> bool:
    """Whether a URL stays on this machine, so that plain http is safe."""
    host = (urlsplit(url).hostname or "").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
