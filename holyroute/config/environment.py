"""What requests takes from the environment: proxies and certificate bundles, looked up again only when it has changed.

requests walks all variables several times per call, which is a sixth of what a call costs. The results are the same.
"""

from __future__ import annotations

import itertools
import os
import urllib.request
from collections import OrderedDict
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from requests import Session, utils
from requests.sessions import merge_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.target import Provider

ORIGINS = 256  # of URLs, whose proxies are remembered


class _Look(NamedTuple):
    """What was seen of the environment, and when."""

    variables: Mapping[Any, Any]
    version: int
    bundle: str | None


_versions = itertools.count(1)
_last = _Look({}, 0, None)


def _look() -> _Look | None:
    """The environment as it is now; None where proxies may come from elsewhere too."""
    global _last  # noqa: PLW0603 - replaced as a whole, so no lock is needed
    variables = getattr(os.environ, "_data", None)
    # on macOS and Windows the system's settings count too, and a test may have put something in its place
    if variables is None or vars(utils)["getproxies"] is not urllib.request.getproxies_environment:
        return None
    last = _last
    if variables != last.variables:  # compares pointers, mostly
        last = _last = _Look(dict(variables), next(_versions), _bundle())
    return last


def _bundle() -> str | None:
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")


@lru_cache(ORIGINS)
def _remembered(version: int, origin: str, no_proxy: str | None) -> Mapping[str, str]:
    del version  # it only tells one environment from another
    return utils.get_environ_proxies(origin, no_proxy=no_proxy)


def _found(url: str, no_proxy: str | None) -> tuple[Mapping[str, str], str | None]:
    """Proxies for a URL, and the certificate bundle."""
    look = _look()
    if look is None:
        return utils.get_environ_proxies(url, no_proxy=no_proxy), _bundle()
    origin = "/".join(url.split("/", 3)[:3]) + "/"
    return _remembered(look.version, origin, no_proxy), look.bundle


def merged_settings(session: Session, url: str, proxies: Any, stream: Any, verify: Any, cert: Any) -> dict[str, Any]:
    """What `requests.Session.merge_environment_settings` returns."""
    if session.trust_env:
        found, bundle = _found(url, proxies.get("no_proxy") if proxies is not None else None)
        if proxies is not None:
            for scheme, proxy in found.items():
                proxies.setdefault(scheme, proxy)
        if verify is True or verify is None:
            verify = bundle or verify
    return {
        "proxies": OrderedDict() if proxies == {} == session.proxies else merge_setting(proxies, session.proxies),
        "stream": merge_setting(stream, session.stream),
        "verify": merge_setting(verify, session.verify),
        "cert": merge_setting(cert, session.cert),
    }


@cache
def _plain(*, trust_env: bool) -> Session:
    session = Session()
    session.trust_env = trust_env
    return session


def settings_for(provider: Provider, *, trust_env: bool = True) -> dict[str, Any]:
    """Proxies, verify and cert for a provider's host: its configuration first, then the environment."""
    look = _look()
    find = _settings_for if look is not None else _settings_for.__wrapped__
    settings = find(look.version if look is not None else 0, provider, trust_env)
    return {**settings, "proxies": dict(settings["proxies"])}


@lru_cache(ORIGINS)
def _settings_for(version: int, provider: Provider, trust_env: bool) -> dict[str, Any]:
    del version
    url = f"{provider.base_url}/"
    settings = merged_settings(_plain(trust_env=trust_env), url, {}, None, provider.verify, provider.cert)
    if provider.proxies:
        settings["proxies"] = dict(provider.proxies)
    return settings
