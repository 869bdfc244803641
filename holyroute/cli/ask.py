"""`holyroute ask`: one question, answered by whoever can."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from holyroute.cli.output import (
    UNKNOWN,
    Failure,
    Misuse,
    config_option,
    how_to_get_a_key,
    json_option,
    show,
    show_json,
    usd,
)

if TYPE_CHECKING:
    from holyroute.core.completion import Completion
    from holyroute.core.trace import Trace


@click.command(short_help="Ask one question.")
@click.argument("question", required=False)
@click.option("--task", help="Such as simple_qa, code_generation; the route to take.")
@click.option("--priority", help="fast, normal or high.")
@click.option("--model", help="First choice: a model, or a route such as route:simple_qa/fast.")
@click.option("--system", help="Instructions that stand before the question.")
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="Seconds for the whole call.")
@click.option("--explain", is_flag=True, help="Print whom it asked, and what they said.")
@json_option
@config_option
def ask(question: str | None, path: str | None, *, explain: bool, as_json: bool, **options: Any) -> None:
    """Ask one QUESTION; "-", or nothing and a pipe, reads it from there.

    The answer goes to stdout, everything else to stderr.
    """
    from holyroute.client import Client

    with Client(path) as client:
        completion = client.ask(_read(question), on_failure="return", **options)
    if completion.error is not None:
        _explain_missing_key(completion)
    if as_json:
        show_json(_record(completion, explain=explain))
    elif completion.success:
        click.echo(completion.content)
    if completion.error is not None:
        raise Failure(_story(completion.error, completion.trace))
    if explain and not as_json:
        show(str(completion.trace), err=True)
    if not as_json:
        show(_summary(completion), style="dim", err=True)


def _read(question: str | None) -> str:
    if sys.stdin is not None and (question == "-" or (question is None and not sys.stdin.isatty())):
        question = sys.stdin.read()
    if not (question or "").strip():
        raise click.UsageError('a question is missing: holyroute ask "..."')
    return question or ""


def _explain_missing_key(completion: Completion) -> None:
    from holyroute.exceptions import ConfigurationError

    trace = completion.trace
    if trace is not None and isinstance(completion.error, ConfigurationError):
        raise Misuse(how_to_get_a_key([skip.target.provider for skip in trace.skipped]))


def _story(error: Exception, trace: Trace | None) -> str:
    message = str(error)
    return message if trace is None or str(trace) in message else f"{message}\n{trace}"


def _summary(completion: Completion) -> str:
    usage, trace = completion.usage, completion.trace
    where = f" at {trace.answered_by.provider.name}" if trace is not None and trace.answered_by else ""
    tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens" if usage else f"tokens {UNKNOWN}"
    cost = f"cost {UNKNOWN}" if completion.cost_usd is None else f"{usd(completion.cost_usd, 6)} USD"
    return f"{completion.model}{where}, {completion.latency_ms / 1_000:.2f} s, {tokens}, {cost}"


def _record(completion: Completion, *, explain: bool) -> dict[str, Any]:
    usage, trace = completion.usage, completion.trace
    answered_by = trace.answered_by if trace is not None else None
    return {
        "success": completion.success,
        "content": completion.content,
        "model": completion.model,
        "provider": answered_by.provider.name if answered_by else None,
        "model_asked": completion.model_asked,
        "latency_ms": round(completion.latency_ms, 1),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "cost_usd": completion.cost_usd,
        "finish_reason": completion.finish_reason,
        "error": str(completion.error).partition("\n")[0] if completion.error else None,
        "attempts": [str(attempt) for attempt in trace.attempts] if trace else [],
        "skipped": [str(skip) for skip in trace.skipped] if trace else [],
        **({"trace": trace.as_dict()} if explain and trace else {}),
    }
