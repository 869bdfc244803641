"""A chat in a web app: one view that answers, one that streams. Both survive an outage of the first model.

    holyroute simulate                          # in another terminal; or set HOLYSHEEP_API_KEY and skip the next line
    export HOLYROUTE_CONFIG=holyroute.toml      # with the lines that `simulate` shows
    gunicorn -w 4 --preload examples.flask_app:app
    curl localhost:8000/chat --json '{"question": "hello"}' --no-buffer

How it does: http://localhost:8000/holyroute/dashboard, with CHAT_TOKEN as password, if that variable is set.
"""

import os
from collections.abc import Iterator

from flask import Flask, Response, abort, request

from holyroute.exceptions import AllTargetsFailed, StreamInterrupted
from holyroute.flask import HolyRoute, current_client

app = Flask(__name__)
app.config["HOLYROUTE_SETTINGS"] = {"time": {"deadline": 30}}  # seconds, whatever the providers do
if "CHAT_TOKEN" in os.environ:
    app.config["HOLYROUTE_TOKEN_ENV"] = "CHAT_TOKEN"  # noqa: S105 - the name of the variable
HolyRoute(app)


def question() -> str:
    """What was asked."""
    asked = request.get_json().get("question")
    if not isinstance(asked, str) or not asked:
        abort(400, 'expected {"question": "..."}')
    return asked


@app.post("/ask")
def ask() -> dict[str, str | None]:
    """Answer a question at once."""
    answer = current_client.ask(question())
    return {"answer": answer.content, "model": answer.model}


@app.post("/chat")
def chat() -> Response:
    """Answer a question while the model writes."""
    stream = current_client.ask(question(), stream=True)  # somebody has begun to answer

    def words() -> Iterator[str]:
        with stream:  # a browser that leaves ends the answer
            try:
                for delta in stream:
                    yield delta.text
            except StreamInterrupted:
                yield "\n[the answer broke off here]"

    return Response(words(), mimetype="text/plain")


@app.errorhandler(AllTargetsFailed)
def nobody(error: AllTargetsFailed) -> tuple[dict[str, str], int]:
    """Tell the browser; the log of the app has the whole story."""
    app.logger.error("%s", error)
    return {"error": "no model could answer, please try again"}, 503
