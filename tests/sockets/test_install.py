"""`install()`: whatever sends with requests is routed, and requests is given back as it was."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests import Session as EarlierName
from requests import post as earlier_post
from requests.adapters import HTTPAdapter

import holyroute
from holyroute import context
from holyroute.engine.router import Router
from holyroute.installation import _PATCH
from holyroute.simulator import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holyroute.config.schema import Config
    from holyroute.simulator import Simulator

MESSAGES = [{"role": "user", "content": "What is the time?"}]
BODY = {"model": "ma", "messages": MESSAGES}
KEY = {"Authorization": "Bearer test-key-a"}
AS_IT_WAS = dict(vars(requests.Session))


class Earlier(requests.Session):
    """A class made before anything was installed."""

    __attrs__ = [*requests.Session.__attrs__, "sent"]  # noqa: RUF012 - the pickle contract of requests

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Count."""
        self.sent += 1
        return super().send(request, **options)


EARLIER = {"session": requests.Session(), "subclass": Earlier()}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    holyroute.uninstall()

    assert _PATCH.door is None
    assert dict(vars(requests.Session)) == AS_IT_WAS


@pytest.fixture
def _installed(router: Router) -> None:
    holyroute.install(router=router)


def url_of(provider: Simulator) -> str:
    return f"{provider.base_url}/chat/completions"


def post(session: Any, provider: Simulator, **options: Any) -> requests.Response:
    response: requests.Response = session.post(
        url_of(provider), **{"json": BODY, "headers": KEY, "timeout": 3, **options}
    )
    return response


WAYS: dict[str, Callable[[str], requests.Response]] = {
    "requests.post": lambda url: requests.post(url, json=BODY, headers=KEY, timeout=3),
    "requests.api.request": lambda url: requests.api.request("post", url, json=BODY, headers=KEY, timeout=3),
    "a function imported before": lambda url: earlier_post(url, json=BODY, headers=KEY, timeout=3),
    "Session": lambda url: requests.Session().post(url, json=BODY, headers=KEY, timeout=3),
    "session()": lambda url: requests.session().post(url, json=BODY, headers=KEY, timeout=3),
    "a class imported before": lambda url: EarlierName().post(url, json=BODY, headers=KEY, timeout=3),
    "a session made before": lambda url: EARLIER["session"].post(url, json=BODY, headers=KEY, timeout=3),
    "a subclass made before": lambda url: EARLIER["subclass"].post(url, json=BODY, headers=KEY, timeout=3),
    "send": lambda url: requests.Session().send(requests.Request("POST", url, json=BODY, headers=KEY).prepare()),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_to_send_is_routed(
    a: Simulator, b: Simulator, router: Router, way: Callable[[str], requests.Response]
) -> None:
    """Whoever imported or made what, and when: the substitute answers, and the script sees its own request."""
    a.always("*", 503)
    holyroute.install(router=router)
    response = way(url_of(a))
    trace = holyroute.trace_of(response)

    assert trace is not None
    assert (response.json()["model"], response.request.url) == ("mb", url_of(a))
    assert [record.target.name for record in trace.attempts] == ["ma", "mb"]
    assert (a.attempts(), b.attempts()) == (1, 1)


@pytest.mark.usefixtures("_installed")
def test_our_own_doors_are_not_routed_twice(a: Simulator, b: Simulator, router: Router) -> None:
    """A routed session over the installed `send`: each target gets each attempt once."""
    for provider in (a, b):
        provider.always("*", 503)
    response = post(holyroute.Session(router=router), a)

    assert response.status_code == 503
    assert (a.attempts(), b.attempts()) == (1, 1)


@pytest.mark.usefixtures("_installed")
def test_a_session_that_sends_in_a_thread_is_not_routed_twice(a: Simulator, b: Simulator, router: Router) -> None:
    """The thread starts with an empty context; an attempt is known by its request."""

    class Threaded(requests.Session):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(super().send, request, **options).result()

    a.script("*", "307:/v1/chat/completions", "503")
    b.always("*", 503)
    session = type("Routed", (holyroute.RoutingMixin, Threaded), {})()
    session._router = router
    response = post(session, a)

    assert response.status_code == 503
    assert (a.attempts(), b.attempts()) == (2, 1)


@pytest.mark.usefixtures("_installed")
def test_what_is_no_chat_completion_goes_through(a: Simulator) -> None:
    """Other requests are sent and answered as ever, and leave no trace."""
    response = requests.get(f"{a.base_url}/models", timeout=3)

    assert holyroute.trace_of(response) is None
    assert a.seen[0].method == "GET"


def test_a_subclass_counts_calls_and_hops(a: Simulator, router: Router) -> None:
    """Its `send` lies above ours: it is called as often as by requests, and what it keeps is kept."""
    a.script("*", "307:/v1/chat/completions?hop", "ok", "307:/v1/chat/completions?hop", "503")
    session = Earlier()
    post(session, a)
    plain = session.sent
    holyroute.install(router=router)
    post(session, a)

    assert (plain, session.sent) == (2, 4)


# --- on and off -------------------------------------------------------------------------------------------------------


def test_installing_twice_is_installing_once(a: Simulator, b: Simulator, router: Router) -> None:
    """One routing, one uninstall."""
    a.always("*", 503)
    holyroute.install(router=router)
    ours = requests.Session.send
    holyroute.install(router=router)
    post(requests.Session(), a)

    assert requests.Session.send is ours
    assert (a.attempts(), b.attempts()) == (1, 1)

    holyroute.uninstall()
    holyroute.uninstall()
    assert requests.Session.send is AS_IT_WAS["send"]
    assert post(requests.Session(), a).status_code == 503


def test_the_replaced_method_looks_like_the_one_of_requests(router: Router) -> None:
    """Name, signature and documentation; no other method of the class has changed."""
    plain = requests.Session.send
    holyroute.install(router=router)

    assert inspect.signature(requests.Session.send) == inspect.signature(plain)
    assert (requests.Session.send.__name__, requests.Session.send.__doc__) == ("send", plain.__doc__)
    assert {name for name in vars(requests.Session) if vars(requests.Session)[name] is not AS_IT_WAS.get(name)} == {
        "send",
        "adapters",
        "auth",
        "cookies",
    }
    assert not hasattr(requests.Session, "adapters")


def test_blocks_nest(a: Simulator, b: Simulator, router: Router) -> None:
    """An inner block ends without ending the outer one, and neither ends what is installed."""
    a.always("*", 503)
    statuses = []

    def ask() -> None:
        statuses.append(post(requests.Session(), a).status_code)

    with holyroute.installed(router=router):
        with holyroute.installed(router=router):
            ask()
        ask()
        holyroute.install(router=router)
    ask()
    holyroute.uninstall()
    ask()
    with pytest.raises(KeyError), holyroute.installed(router=router):
        raise KeyError
    ask()

    assert statuses == [200, 200, 200, 503, 503]
    assert b.attempts() == 3


def test_blocks_may_overlap(router: Router) -> None:
    """Two threads with blocks of their own: the last one to end gives requests back."""
    first, second = holyroute.installed(router=router), holyroute.installed(router=router)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)

    assert _PATCH.door is not None

    second.__exit__(None, None, None)
    assert requests.Session.send is AS_IT_WAS["send"]


def test_a_block_has_settings_of_its_own(
    a: Simulator, b: Simulator, configured: Callable[..., Config], router: Router
) -> None:
    """The block that began last counts; afterwards those before count again."""
    a.always("*", 503)
    alone = Router(configured(failover={"mc": ["mb"]}), env={})
    with holyroute.installed(router=router):
        with holyroute.installed(router=alone):
            inner = holyroute.trace_of(post(requests.Session(), a))
        outer = holyroute.trace_of(post(requests.Session(), a))

    assert inner is not None
    assert outer is not None
    assert [len(trace.attempts) for trace in (inner, outer)] == [1, 2]
    assert b.attempts() == 1


def test_task_and_priority_are_defaults(a: Simulator, router: Router) -> None:
    """Calls that say nothing take the route that was installed."""
    a.always("*", 503)
    holyroute.install(router=router, task="simple_qa", priority="fast")
    with holyroute.direct():
        assert post(requests.Session(), a).status_code == 503
    assert post(requests.Session(), a).json()["model"] == "mb"


def test_disabled_means_plain_requests(
    a: Simulator, b: Simulator, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`HOLYROUTE_DISABLED` takes effect at the next call."""
    a.always("*", 503)
    holyroute.install(router=router)
    monkeypatch.setenv("HOLYROUTE_DISABLED", "1")
    response = post(requests.Session(), a)

    assert response.status_code == 503
    assert holyroute.trace_of(response) is None
    assert b.attempts() == 0


# --- beside other patches ---------------------------------------------------------------------------------------------


def patch_over(noted: list[str | None], *, wrapped: bool) -> Callable[..., requests.Response]:
    below = requests.Session.send

    def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        noted.append(request.url)
        return below(self, request, **options)

    return functools.wraps(below)(send) if wrapped else send


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_patch_that_came_later_stays_and_ours_is_inert(
    a: Simulator, b: Simulator, router: Router, monkeypatch: pytest.MonkeyPatch, *, wrapped: bool
) -> None:
    """Uninstalling takes nothing away from others, and installing again routes once."""
    a.always("*", 503)
    noted: list[str | None] = []
    holyroute.install(router=router)
    ours = requests.Session.send
    theirs = patch_over(noted, wrapped=wrapped)
    monkeypatch.setattr(requests.Session, "send", theirs)
    routed = post(requests.Session(), a)

    assert routed.status_code == 200
    assert noted == [url_of(a)]

    holyroute.uninstall()
    assert requests.Session.send is theirs
    assert post(requests.Session(), a).status_code == 503
    assert (a.attempts(), b.attempts()) == (2, 1)

    holyroute.install(router=router)
    assert post(requests.Session(), a).status_code == 200
    assert (a.attempts(), b.attempts()) == (3, 2)
    assert len(noted) == (3 if wrapped else 4)  # whom we cannot see through sees each attempt

    holyroute.uninstall()
    monkeypatch.undo()
    assert requests.Session.send is ours
    assert post(requests.Session(), a).status_code == 503
    requests.Session.send = AS_IT_WAS["send"]  # type: ignore[method-assign]


def test_a_patch_that_came_earlier_sees_each_attempt(
    a: Simulator, b: Simulator, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is there again afterwards."""
    a.always("*", 503)
    noted: list[str | None] = []
    theirs = patch_over(noted, wrapped=True)
    monkeypatch.setattr(requests.Session, "send", theirs)
    with holyroute.installed(router=router):
        post(requests.Session(), a)

    assert noted == [url_of(a), url_of(b)]
    assert requests.Session.send is theirs
    monkeypatch.undo()


def test_a_replaced_class_hides_nothing(a: Simulator, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody has put a subclass in the place of `requests.Session`, its base is what we route."""
    a.always("*", 503)
    monkeypatch.setattr(requests, "Session", Earlier)
    monkeypatch.setattr(requests.sessions, "Session", Earlier)
    holyroute.install(router=router)
    response = requests.post(url_of(a), json=BODY, headers=KEY, timeout=3)

    assert response.json()["model"] == "mb"
    holyroute.uninstall()
    monkeypatch.undo()


# --- the habits of requests -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_installed")
def test_nothing_personal_travels(a: Simulator, b: Simulator) -> None:
    """Cookies and credentials of a plain session stay at its host, and the other's cookies out of its jar."""
    a.script("*", faults.status(503, headers=[("Set-Cookie", "of=a; Path=/")]))
    b.always("*", faults.cookies("of=b; Path=/"))
    session = requests.Session()
    session.auth = ("user", "planted")
    session.cookies.set("planted", "jar")
    session.headers["X-Key"] = "planted"
    a.api_keys = None
    response = post(session, a, cookies={"planted": "keyword"})

    assert response.json()["model"] == "mb"
    assert "planted" not in str([seen.headers for seen in b.seen])
    assert session.cookies.get_dict() == {"planted": "jar", "of": "a"}
    assert session.auth == ("user", "planted")


@pytest.mark.usefixtures("_installed")
def test_mounted_adapters_are_used(a: Simulator, b: Simulator) -> None:
    """A script's own adapter takes each attempt."""
    sent = []

    class Own(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            sent.append(request.url)
            return super().send(request, *args, **options)

    a.always("*", 503)
    session = requests.Session()
    session.mount("http://127.0.0.1", Own())
    post(session, a)

    assert sent == [url_of(a), url_of(b)]


@pytest.mark.usefixtures("_installed")
def test_retries_of_a_stock_adapter_do_not_multiply(a: Simulator, b: Simulator) -> None:
    """What failover does is not repeated by what was mounted."""
    retry = requests.packages.urllib3.Retry(3, backoff_factor=0, status_forcelist=[503], allowed_methods=None)
    a.always("*", 503)
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry))
    post(session, a)

    assert (a.attempts(), b.attempts()) == (1, 1)


@pytest.mark.usefixtures("_installed")
def test_hooks_run_once_on_the_final_answer(a: Simulator) -> None:
    """A hook that raises on an error status does not spoil the failover."""
    a.always("*", 503)
    seen = []

    def hook(response: requests.Response, **_: Any) -> None:
        seen.append(response.status_code)
        response.raise_for_status()

    post(requests.Session(), a, hooks={"response": hook})

    assert seen == [200]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("again", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy])  # noqa: S301
def test_a_session_can_be_copied(a: Simulator, again: Callable[[Any], Any]) -> None:
    """Pickle, deepcopy and copy work as ever, with the attributes that a subclass declares; the copy is routed."""
    a.always("*", 503)
    session = Earlier()
    session.headers["X-Title"] = "mine"
    session.auth = ("user", "password")
    session.cookies.set("mine", "1")
    post(session, a)
    copied = again(session)
    a.api_keys = None
    response = post(copied, a)

    assert (type(copied), copied.sent, copied.auth) == (Earlier, 2, ("user", "password"))
    assert (copied.headers, copied.cookies.get_dict()) == (session.headers, {"mine": "1"})
    assert response.json()["model"] == "mb"
    assert sorted(vars(copied)) == sorted(vars(session))


@pytest.mark.usefixtures("_installed")
def test_a_pickle_knows_nothing_of_us(a: Simulator) -> None:
    """What was pickled under `install()` can be loaded where there is no holyroute."""
    a.script("*", "307:/v1/chat/completions?hop", "ok", "503")
    session = Earlier()
    for hops in (1, 0):
        response = post(session, a)

        assert len(response.history) == hops
        assert b"holyroute" not in pickle.dumps(response)
    assert b"holyroute" not in pickle.dumps(session)


def test_fifty_threads_share_a_session(a: Simulator, configured: Callable[..., Config], env: dict[str, str]) -> None:
    """Everybody gets the answer to the own question, while others install and uninstall."""
    a.always("*", "429:60")
    router = Router(configured(), env=env)
    holyroute.install(router=router)
    session = Earlier()
    barrier = threading.Barrier(50)

    def ask(number: int) -> str:
        barrier.wait()
        with holyroute.installed(router=router):
            body = {"model": "ma", "messages": [{"role": "user", "content": f"question {number}"}]}
            text: str = post(session, a, json=body, timeout=10).json()["choices"][0]["message"]["content"]
        return text

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(100)))

    assert answers == [f"Answer to: question {number}" for number in range(100)]
    assert session.sent == 100


FORKING = """
import os, sys, requests, holyroute
holyroute.install()
session = requests.Session()
def ask(number):
    body = {"model": "ma", "messages": [{"role": "user", "content": f"question {number}"}]}
    return session.post(sys.argv[1], json=body, timeout=10).json()["choices"][0]["message"]["content"]
ask(0)
child = os.fork()
wrong = sum(ask(number) != f"Answer to: question {number}" for number in range(50))
if not child:
    os._exit(min(wrong, 100))
print(wrong, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_routes_over_connections_of_its_own(b: Simulator, tmp_path: Path) -> None:
    """Parent and child ask at once over one plain session, and each reads its own answers, after A had refused."""
    path = tmp_path / "owner.toml"
    path.write_text(f"""
[providers.b]
base_url = "{b.base_url}"
[models.mb]
provider = "b"
[failover]
"127.0.0.1:9" = ["mb"]
""")
    b.api_keys = None
    done = subprocess.run(
        # from 3.12 on Python warns of every fork beside another thread; ours is the watchdog
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, "http://127.0.0.1:9/v1/chat/completions"],
        env={"HOME": str(tmp_path), "HOLYROUTE_CONFIG": str(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )

    assert done.stdout == "0 0\n", done.stderr
    assert len({seen.connection for seen in b.seen}) == 2


BAD: dict[str, Any] = {
    "no JSON": {"data": "hello"},
    "no model": {"json": {"messages": MESSAGES}},
    "NaN": {"data": '{"model": "ma", "messages": [], "top_p": NaN}'},
    "a name twice": {"data": '{"model": "x", "model": "ma", "messages": []}'},
    "5 MB": {"json": {**BODY, "padding": "x" * 5_000_000}},
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD)
def test_odd_bodies_are_sent_as_requests_sends_them(a: Simulator, router: Router, options: dict[str, Any]) -> None:
    """The first attempt, or the only one, is byte for byte the same."""
    post(requests.Session(), a, **options)
    holyroute.install(router=router)
    post(requests.Session(), a, **options)
    plain, ours = a.seen

    assert (plain.headers.pairs, plain.body) == (ours.headers.pairs, ours.body)


@pytest.mark.usefixtures("_installed")
def test_a_generator_is_read_once(a: Simulator) -> None:
    """It is sent as it comes; reading it would use it up."""
    read = []

    def body() -> Iterator[bytes]:
        for piece in (b'{"model": "ma",', b'"messages": []}'):
            read.append(piece)
            yield piece

    requests.post(url_of(a), data=body(), headers=KEY, timeout=3)

    assert b"".join(read) == a.seen[0].body == json.dumps({"model": "ma", "messages": []}).encode().replace(b", ", b",")


@pytest.mark.usefixtures("_installed")
def test_a_url_without_a_host_is_requests_own_error() -> None:
    """In its own class and words."""
    with pytest.raises(requests.exceptions.InvalidURL, match="No host supplied"):
        requests.post("http:///v1/chat/completions", json=BODY, timeout=3)


@pytest.mark.usefixtures("_installed")
def test_a_stream_cannot_be_read_twice(a: Simulator) -> None:
    """As in requests, which says so."""
    a.always("*", 503)
    response = post(requests.Session(), a, json={**BODY, "stream": True}, stream=True)
    list(response.iter_lines())
    with pytest.raises(requests.exceptions.StreamConsumedError):
        list(response.iter_lines())


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_folder_says_nothing(
    a: Simulator, b: Simulator, tmp_path: Path, hermetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`./holyroute.toml` is not read under `install()`; the user's own file is."""
    a.always("*", 503)
    text = f"""
        [providers.b]
        base_url = "{b.base_url}"
        api_key_env = "KEY_B"
        [models.mb]
        provider = "b"
        [failover]
        "127.0.0.1:{a.port}" = ["mb"]
    """
    monkeypatch.setenv("KEY_B", "test-key-b")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holyroute.toml").write_text(text)
    with holyroute.installed():
        assert post(requests.Session(), a).status_code == 503

    own = hermetic / "holyroute" / "config.toml"
    own.parent.mkdir()
    own.write_text(text)
    context.reset()
    with holyroute.installed():
        assert post(requests.Session(), a).status_code == 200
    assert b.attempts() == 1


INSTALLING = """
import sys
import holyroute
holyroute.install()
print(sorted({"holyroute.engine", "holyroute.config.load", "holyroute.dropin", "tomllib"} & sys.modules.keys()))
"""


def test_installing_loads_nothing() -> None:
    """Neither engine nor configuration, before the first request."""
    done = subprocess.run([sys.executable, "-c", INSTALLING], capture_output=True, check=True, text=True, timeout=15)

    assert done.stdout == "[]\n"
