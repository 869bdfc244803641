"""One client in a process of its own. Started by the driver, with the driver's environment for clients.

python worker.py NAME URL CONNECTIONS serve          a block of calls for each line of standard input
python worker.py NAME URL CONNECTIONS run CALLS      so many calls and out, to be counted from outside
python worker.py NAME URL CONNECTIONS profile CALLS  where their time goes
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TextIO

from contestants import CLIENTS
from exchange import TEXT
from pinning import pin
from profiling import profiled

if TYPE_CHECKING:
    from exchange import Call


def block(call: Call, calls: int, threads: int) -> dict[str, float]:
    """Seconds of CPU (user and system, all threads) and of the clock on the wall."""
    pool = executor(threads) if threads else None
    many = getattr(call, "many", None)  # a client that brings threads of its own
    wall, cpu = time.perf_counter(), time.process_time()
    if threads and many is not None:
        many(calls, threads)
    elif pool is None:
        for _ in range(calls):
            call()
    else:
        for _ in pool.map(lambda _: call(), range(calls)):
            pass
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


@cache
def executor(threads: int) -> ThreadPoolExecutor:
    """Threads that stay, with the connections that some clients tie to them."""
    return ThreadPoolExecutor(threads)


def serve(call: Call, answers: TextIO) -> None:
    """Run blocks of calls as told."""
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(block(call, **json.loads(line))), file=answers, flush=True)


def main() -> None:
    """Make the client, see that it works, do what was asked."""
    name, url, connections, what, *more = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    pin(1)
    call = CLIENTS[name].build(url, int(connections))
    assert call() == TEXT
    if what == "serve":
        serve(call, answers)
    elif what == "run":
        block(call, int(more[0]), 0)
    else:
        block(call, 300, 0)
        print(profiled(call, int(more[0])), file=answers, flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # some libraries leave threads behind
