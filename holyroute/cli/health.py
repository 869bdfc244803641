"""`holyroute health`: how a running app does, from a terminal or from cron."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import click

from holyroute.cli.output import FAILED, Misuse, json_option, show, show_json
from holyroute.config.app_keys import TOKEN

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from holyroute.config.credentials import Credential

PATIENCE = 10  # seconds for an answer
LARGEST, PIECE = 20_000_000, 65_536  # bytes of it, and of one read
_WHERE = "http://HOST:PORT/holyroute"


@click.command(short_help="Show how a running app does.")
@click.option("--url", metavar="URL", required=True, help=f"Where its pages are: {_WHERE}.")
@click.option(
    "--token-env", metavar="NAME", help=f"The environment variable that holds the app's token; by default {TOKEN}."
)
@json_option
def health(url: str, token_env: str | None, *, as_json: bool) -> None:
    """Show the models, alerts and queue of an app with `holyroute.flask.HolyRoute`, as one of its processes sees them.

    Exit codes: 0 healthy; 1 a model is not asked, or an alert goes on; 2 wrong usage, not reached or not let in.
    """
    address = _address(url)
    told = _figures(*_fetch(address, _token(token_env, address)), address)
    if as_json:
        show_json(told)
    else:
        _show(told, address)
    if not told["is_healthy"]:
        raise click.exceptions.Exit(FAILED)


def _show(told: dict[str, Any], address: str) -> None:
    from holyroute.cli.health_report import Report

    try:
        Report(told).show()
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        raise Misuse(f"{address}: figures of another version of holyroute; --json shows them as they are") from None


def _address(url: str) -> str:
    """Where all figures are; the place of the dashboard or of the app itself will do."""
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or parts.username is not None:  # a password would be shown with the address
        raise click.BadParameter(f"expected {_WHERE}, without user name or password", param_hint="--url")
    path = parts.path.rstrip("/")
    place = path.removesuffix("/dashboard") if path.endswith("/dashboard") else path or "/holyroute"
    return urlunsplit((parts.scheme, parts.netloc, f"{place}/api", "", ""))


def _token(name: str | None, address: str) -> Credential | None:
    from holyroute.config.app_keys import token_named

    token = token_named(name or TOKEN)
    if token is None and name is not None:
        raise Misuse(f"variable {name} is not set")
    parts = urlsplit(address)
    if token is not None and parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        show(f"holyroute: the token goes to {parts.hostname} unencrypted; use https://", err=True)
    return token


def _fetch(address: str, token: Credential | None) -> tuple[Response, bytes]:
    import requests
    from urllib3.exceptions import HTTPError

    def sign(request: PreparedRequest) -> PreparedRequest:  # as `auth`, it also keeps a .netrc out
        if token is not None:
            request.headers["Authorization"] = token.header
        return request

    try:
        with requests.get(address, auth=sign, timeout=PATIENCE, allow_redirects=False, stream=True) as answer:
            return answer, _body(answer, address)
    except requests.Timeout:
        raise Misuse(f"{address}: no answer within {PATIENCE} s") from None
    except requests.exceptions.SSLError:
        raise Misuse(f"{address}: its certificate is not accepted, or it does not speak TLS") from None
    except (requests.RequestException, HTTPError, ValueError) as error:  # a host name that is wrong is a ValueError
        raise Misuse(f"{address}: not reached ({type(error).__name__})") from None


def _body(answer: Response, address: str) -> bytes:
    """The whole body; of somebody who never ends, no more than is bearable."""
    from holyroute.core.clock import SYSTEM_CLOCK

    until, body = SYSTEM_CLOCK.now() + PATIENCE, b""
    for piece in iter(lambda: answer.raw.read1(PIECE, decode_content=True), b""):
        body += piece
        if len(body) > LARGEST or SYSTEM_CLOCK.now() > until:
            raise Misuse(f"{address}: its answer does not end")
    return body


def _figures(answer: Response, body: bytes, address: str) -> dict[str, Any]:
    if answer.status_code in {401, 403}:
        hint = f"--token-env names the variable that holds its token, by default {TOKEN}"
        raise Misuse(f"{address}: not let in ({answer.status_code}); {hint}")
    if answer.is_redirect:
        raise Misuse(f"{address}: redirects, which is not followed; --url takes the final address")
    if answer.status_code != 200:
        raise Misuse(f"{address}: answered {answer.status_code}")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("is_healthy"), bool):
        raise Misuse(f"{address}: these are no figures of holyroute")
    return told
