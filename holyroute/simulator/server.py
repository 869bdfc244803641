"""A small threaded server on the loopback interface: one daemon thread per connection, pulled and put back at will."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from holyroute.core.clock import SYSTEM_CLOCK, Clock
from holyroute.simulator.wire import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
_BACKLOG = 1024
_PATIENCE = 1.0


class Server:
    """Accepts connections and hands each to `serve`, in a thread of its own.

    The port is bound from the first `start()` to `close()`, also while nothing listens on it: the system gives it to
    nobody else, and a client sees the connection refused.
    """

    def __init__(self, serve: Callable[[Connection], None], port: int, clock: Clock) -> None:
        self._serve = serve
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._accepted = 0
        self._acceptor: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self.port = port

    def start(self) -> None:
        """Listen; does nothing when it already listens."""
        with self._lock:
            if self._acceptor is not None:
                return
            listener = self._socket or self._bound()
            listener.listen(_BACKLOG)
            # Closing a listener does not wake its thread everywhere; where it does not, the thread looks up in time.
            listener.settimeout(_PATIENCE / 4)
            self._socket = listener
            name = f"simulator-{self.port}-accept"
            self._acceptor = threading.Thread(target=self._accept, args=[listener], name=name, daemon=True)
            self._acceptor.start()

    def stop(self) -> None:
        """Refuse connections and end the living ones; keep the port for the next `start()`."""
        self._stop_listening()
        self.drop()
        with self._lock:
            if self._socket is None and self.port:
                self._socket = self._bound()

    def drop(self) -> None:
        """End every living connection, and wait up to a second for their threads to end."""
        with self._lock:
            living = dict(self._connections)
        for connection in living:
            connection.interrupt()
        deadline = SYSTEM_CLOCK.now() + _PATIENCE
        for thread in living.values():
            # A fault may pull the plug of its own server.
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - SYSTEM_CLOCK.now()))

    def close(self) -> None:
        """Stop, and give the port back."""
        self._stop_listening()
        self.drop()
        with self._lock:
            held, self._socket = self._socket, None
        if held is not None:
            held.close()

    def _stop_listening(self) -> None:
        with self._lock:
            acceptor, self._acceptor = self._acceptor, None
            if acceptor is None:
                return
            listener, self._socket = self._socket, None
        assert listener is not None
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(_PATIENCE)
        listener.close()

    def _bound(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((HOST, self.port))
        except OSError:
            bound.close()
            raise
        self.port = bound.getsockname()[1]
        return bound

    def _accept(self, listener: socket.socket) -> None:
        while self._socket is listener:
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                # Unplugged, a connection lost before it was accepted, or no free file descriptor.
                if self._socket is listener:
                    SYSTEM_CLOCK.sleep(0.01)
                continue
            self._welcome(accepted, listener)

    def _welcome(self, accepted: socket.socket, listener: socket.socket) -> None:
        with self._lock:
            if self._socket is not listener:
                accepted.close()
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted += 1
            connection = Connection(accepted, self._accepted, self._clock)
            name = f"simulator-{self.port}-connection-{connection.number}"
            thread = threading.Thread(target=self._run, args=[connection], name=name, daemon=True)
            self._connections[connection] = thread
        thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            with suppress(OSError):
                self._serve(connection)
        finally:
            connection.hang_up()
            with self._lock:
                del self._connections[connection]
