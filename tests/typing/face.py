"""`import holyroute as requests` as a type checker sees it; run by mypy, never executed."""

from typing import assert_type

import requests as plain
from requests.adapters import HTTPAdapter as PlainAdapter

import holyroute as requests
from holyroute.adapters import HTTPAdapter
from holyroute.auth import HTTPBasicAuth
from holyroute.exceptions import ConnectionError as LostConnection
from holyroute.exceptions import RequestException, Timeout
from holyroute.models import PreparedRequest, Response
from holyroute.sessions import Session, SessionRedirectMixin, merge_setting
from holyroute.status_codes import codes
from holyroute.structures import CaseInsensitiveDict
from holyroute.utils import get_netrc_auth

answer = requests.post("https://api.example.com", json={"model": "m"}, headers={"a": "b"}, timeout=(5, 60))
assert_type(answer, plain.Response)
assert_type(answer.headers, CaseInsensitiveDict[str])
assert_type(requests.get("https://api.example.com", params={"a": "b"}).status_code, int)
assert_type(requests.__version__, str)

adapter: PlainAdapter = HTTPAdapter(max_retries=3)
with requests.Session() as session:
    session.mount("https://", adapter)
    session.auth = HTTPBasicAuth("user", "password")
    session.cookies.set("a", "b")
    assert_type(session.send(PreparedRequest()), Response)
own: Session = requests.session()
redirecting: SessionRedirectMixin = own
theirs: plain.Session = own

errors: tuple[type[plain.RequestException], ...] = (LostConnection, RequestException, Timeout, requests.HTTPError)
try:
    requests.head("https://api.example.com").raise_for_status()
except requests.exceptions.ConnectTimeout as error:
    assert_type(error.response, plain.Response | None)
except (requests.ConnectionError, requests.exceptions.SSLError):
    pass

used = (
    codes.ok,
    requests.codes.ok,
    requests.adapters.DEFAULT_POOLSIZE,
    requests.utils.unquote_unreserved("a"),
    requests.packages.urllib3.Retry(3),
    requests.packages.idna.encode("a"),
    requests.sessions.Session(),
    requests.api.post("https://api.example.com"),
    get_netrc_auth("https://api.example.com"),
    merge_setting({}, {}),
)
