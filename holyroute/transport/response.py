"""Answers whose plain heads were read in one go, on the way from the socket to requests."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from holyroute.transport import wire

if TYPE_CHECKING:
    from collections.abc import Generator


AT_ONCE = 1_048_576  # bytes of a body that are asked for in one go: room for them is taken before a byte has come


class Reply(http.client.HTTPResponse):
    """http.client's side of an answer.

    It looks at the bytes that came first without taking them, so that http.client finds everything in place if there
    is no plain head among them.
    """

    head: wire.Head | None = None
    _message: Any = None

    def look(self) -> bool:
        """Wait for the first bytes; whether they begin with a plain head."""
        self.head = wire.head_of_answer(self.fp.peek())
        return self.head is not None

    def begin(self) -> None:
        """Read the head."""
        head = self.head
        if head is None:
            super().begin()
            return
        self.fp.read(head.size)
        self.code = self.status = head.status
        self.reason = head.reason
        self.version = 11
        self.chunked = head.length == wire.CHUNKED
        self.chunk_left = None
        self.length = None if self.chunked else head.length
        self.will_close = head.will_close

    @property
    def msg(self) -> Any:
        """The headers as http.client has them; made when somebody asks, as cookie jars do."""
        if self._message is None and self.head is not None:
            self._message = http.client.HTTPMessage()
            for name, value in self.head.pairs:
                self._message.set_raw(name, value)
            self._message.set_payload("")
        return self._message

    @msg.setter
    def msg(self, message: Any) -> None:
        self._message = message

    headers = msg


class Answer(HTTPResponse):
    """urllib3's side of an answer: reads a body of known length that is not encoded in one go."""

    fields: dict[str, list[str]]  # as the head has them
    _broken: Exception | None = None  # what reading met, for whoever reads on

    @classmethod
    def to(cls, options: Any, reply: Any, **more: Any) -> Answer:
        """The answer to a request with some options of urllib3's."""
        headers = HTTPHeaderDict()
        headers._container = reply.head.fields  # noqa: SLF001 - adding one by one costs more than parsing them
        answer = cls(
            body=reply,
            headers=headers,
            status=reply.status,
            version=reply.version,
            version_string="HTTP/1.1",
            reason=reply.reason,
            preload_content=False,
            decode_content=options.decode_content,
            original_response=reply,
            enforce_content_length=options.enforce_content_length,
            request_method=options.request_method,
            request_url=options.request_url,
            **more,
        )
        answer.fields = reply.head.fields
        return answer

    def _init_length(self, request_method: str | None) -> int | None:
        """As the head says it; nothing else is plain."""
        del request_method
        length: int | None = self._original_response.length  # type: ignore[union-attr]
        return length

    def whole(self) -> bytes | None:
        """The body in one go, if it is plain; None: it is to be read as ever, which also tells what broke it."""
        rest = self.length_remaining
        if not rest or rest > AT_ONCE or not self._is_plain():
            return None
        try:
            data = self._read_plain(rest)
        except (HTTPError, OSError) as error:
            self._broken = error
            return None
        if len(data) < rest:
            return None
        self.release_conn()
        return data

    def stream(self, amt: int | None = 65_536, decode_content: bool | None = None) -> Generator[bytes, None, None]:
        """As urllib3's; what broke before is told here."""
        if self._broken is not None:
            raise self._broken
        return super().stream(amt, decode_content)

    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:
        """As urllib3's; the rest of a body at once, which is how requests reads most bodies, takes the shortcut."""
        rest = self.length_remaining
        if amt and rest and rest <= amt and decode_content and self._is_plain():
            data = self._read_plain(amt)
            if len(data) == rest:
                self.release_conn()
                return data
        return super().read(amt, decode_content, cache_content)

    def _is_plain(self) -> bool:
        """Whether nothing is to be decoded, and a body that ends early is an error."""
        return "content-encoding" not in self.headers and self.enforce_content_length

    def _read_plain(self, amt: int) -> bytes:
        """A piece; if it is short, urllib3 finds out why when it reads on."""
        assert self._fp is not None
        assert self.length_remaining is not None
        try:
            data = self._fp.read(amt)
        except BaseException:
            with self._error_catcher():  # turns it into an exception of urllib3's
                raise
        self._fp_bytes_read += len(data)
        self.length_remaining -= len(data)
        return data
