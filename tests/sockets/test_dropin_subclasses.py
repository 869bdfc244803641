"""Session classes of somebody else below the mixin: they see every attempt, and keep what they keep."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.auth import HTTPBasicAuth

import holyroute
from holyroute.dropin import Sending

if TYPE_CHECKING:
    from holyroute.engine.router import Router
    from holyroute.simulator import Simulator

MESSAGES = [{"role": "user", "content": "What is the time?"}]


def post(session: requests.Session, provider: Simulator, **options: Any) -> requests.Response:
    body = {"model": "ma", "messages": MESSAGES}
    key = {"Authorization": "Bearer test-key-a"}
    return session.post(f"{provider.base_url}/chat/completions", json=body, headers=key, timeout=3, **options)


def routed(below: type[requests.Session], router: Router) -> Any:
    session = type("Routed", (holyroute.RoutingMixin, below), {})()
    session._router = router
    return session


class Counting(requests.Session):
    """Counts what it sends, in itself and in its class."""

    of_class = 0

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.last: list[str | None] = []

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Count."""
        self.sent += 1
        self.last = [*self.last, request.url]
        type(self).of_class += 1
        return super().send(request, **options)


def test_a_counter_counts_every_attempt(a: Simulator, b: Simulator, router: Router) -> None:
    """What a class assigns to itself, or to its type, while it sends is there afterwards."""
    a.always("*", 503)
    session = routed(Counting, router)
    post(session, a)
    post(session, a)

    assert (session.sent, type(session).of_class) == (4, 4)
    assert session.last == [f"{one.base_url}/chat/completions" for one in (a, b, a, b)]


def test_a_counter_counts_in_threads(a: Simulator, b: Simulator, router: Router) -> None:
    """All threads count in the one session, while their attempts overlap."""
    a.always("*", "429:60")
    session = routed(Counting, router)
    barrier = threading.Barrier(8)

    def ask(_: int) -> None:
        barrier.wait()
        post(session, a)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))

    assert session.sent == a.attempts() + b.attempts()


class Looking(requests.Session):
    """Notes what it is shown of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, Any]] = []

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Look."""
        self.seen.append((self.auth, self.cookies.get_dict()))
        return super().send(request, **options)


def test_at_another_host_a_session_shows_no_cookies_and_no_auth(a: Simulator, router: Router) -> None:
    """Whatever a class does with them while it sends, they stay at home; afterwards they are there as before."""
    a.always("*", 503)
    a.api_keys = None
    session = routed(Looking, router)
    session.auth = HTTPBasicAuth("user", "password")
    session.cookies.set("mine", "1")
    post(session, a)

    assert session.seen == [(session.auth, {"mine": "1"}), (None, {})]


def test_other_sessions_are_shown_as_ever(a: Simulator, b: Simulator, router: Router) -> None:
    """A class that uses a second session while it sends, to fetch a token for instance, finds it as it is."""
    other = holyroute.Session(router=router)
    other.auth = ("other", "password")
    other.cookies.set("other", "1")
    seen = []

    class Fetching(requests.Session):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            other.get(f"{b.base_url}/models", timeout=3)
            seen.append((other.auth, other.cookies.get_dict()))
            return super().send(request, **options)

    a.always("*", 503)
    post(routed(Fetching, router), a)

    assert seen == [(("other", "password"), {"other": "1"})] * 2


def test_other_threads_see_the_session_as_ever(a: Simulator, router: Router) -> None:
    """What an attempt is shown is shown to nobody else."""

    class Asking(Looking):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            with ThreadPoolExecutor(1) as pool:
                self.seen.append(pool.submit(lambda: (self.auth, self.cookies.get_dict())).result())
            return requests.Session.send(self, request, **options)

    a.always("*", 503)
    a.api_keys = None
    session = routed(Asking, router)
    session.auth = ("user", "password")
    session.cookies.set("mine", "1")
    post(session, a)

    assert session.seen == [(("user", "password"), {"mine": "1"})] * 2


class Guarded(requests.Session):
    """Keeps its auth in a way of its own."""

    kept: Any = None

    @property
    def auth(self) -> Any:
        """Behind a property."""
        return self.kept

    @auth.setter
    def auth(self, value: Any) -> None:
        self.kept = value

    @auth.deleter
    def auth(self) -> None:
        self.kept = "deleted"


def test_a_property_of_the_class_below_works(a: Simulator, router: Router) -> None:
    """The mixin shows attributes of its own only within attempts; otherwise they are the class's."""
    a.always("*", 503)
    session = routed(Guarded, router)
    session.auth = ("user", "password")
    post(session, a)

    assert (session.auth, session.kept) == (("user", "password"), ("user", "password"))
    assert "auth" not in vars(session)

    del session.auth
    assert session.auth == "deleted"


def test_attributes_are_attributes(router: Router) -> None:
    """Set, deleted and missing ones are those of any object; the class itself has none of them."""
    session = holyroute.Session(router=router)
    jar = session.cookies
    session.auth = ("user", "password")

    assert vars(session)["cookies"] is jar
    assert vars(session)["auth"] == ("user", "password")
    assert not hasattr(holyroute.Session, "cookies")

    del session.cookies
    with pytest.raises(AttributeError, match="cookies"):
        _ = session.cookies
    with pytest.raises(AttributeError, match="cookies"):
        del session.cookies


def test_a_class_that_sends_in_a_thread_is_routed_once(a: Simulator, b: Simulator, router: Router) -> None:
    """The thread starts with an empty context; the attempt is known by its request."""

    class Inner(holyroute.RoutingMixin):
        pass

    class Threaded(Inner):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(super().send, request, **options).result()

    class Outer(Threaded):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            return Sending(self, self, super().send, options).send(request)

    a.script("*", "307:/v1/chat/completions", "503")
    session = Outer()
    session._router = router
    response = post(session, a)

    assert response.json()["model"] == "mb"
    assert (a.attempts(), b.attempts()) == (2, 1)
    assert not [name for name in vars(response.request) if "holyroute" in name]
