"""`holyroute batch`: every row of a file is asked, whatever breaks; the same command goes on where it stopped."""

from __future__ import annotations

import math
import shlex
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from holyroute.batch.source import FORMATS
from holyroute.cli.output import config_option, json_option

COMMAND = "holyroute.command"  # under this name the context keeps what was typed


class Remembered(click.Command):
    """Remembers what was typed, to say how to go on."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        ctx.meta[COMMAND] = shlex.join(["holyroute", self.name or "", *(one for one in args if one != "--overwrite")])
        return super().parse_args(ctx, args)


def _usd(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Decimal | None:
    """An exact amount of money."""
    if value is None:
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"expected an amount in USD, got {value!r}")
    return amount


def _shard(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`2/8`: the second of eight parts."""
    if value is None:
        return None
    part, _, parts = value.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise click.BadParameter(f"expected K/N such as 2/8, got {value!r}")
    return int(part), int(parts)


class Finite(click.FloatRange):
    """A number, which NaN and infinity are not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        amount = super().convert(value, param, ctx)
        if not math.isfinite(amount):
            self.fail(f"expected a number, got {value!r}", param, ctx)
        return amount


positive = Finite(min=0, min_open=True)
number = click.IntRange(min=1)


@click.command(cls=Remembered, short_help="Ask every row of a file; goes on where it stopped.")
@click.argument("source", metavar="INPUT")
@click.argument("output", metavar="OUTPUT", required=False)
@click.option("--template", help='The prompt, with columns in braces: "Translate: {text}".')
@click.option("--system", help="Instructions before every prompt; columns as in the template.")
@click.option("--id", metavar="COLUMN", help="The column that names a row; no name may come twice.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of the input; by default its name tells.")
@click.option("--model", "models", multiple=True, help="Whom to ask; several: exactly these, in this order.")
@click.option("--task", help="Such as simple_qa; the route to take. Columns as in the template.")
@click.option("--priority", help="fast, normal or high. Columns as in the template.")
@click.option("--max-tokens", type=number, help="Length limit of an answer.")
@click.option("--temperature", type=Finite(0, 2), help="0 to 2.")
@click.option("--param", "parameters", multiple=True, metavar="NAME=JSON", help="Any other parameter of the endpoint.")
@click.option("--workers", type=click.IntRange(1, 1_000), default=50, show_default=True, help="Rows at a time.")
@click.option("--estimate", is_flag=True, help="Show what it will take, and send nothing; needs no key.")
@click.option("--canary", type=number, metavar="N", help="Ask N rows first; go on only if all are answered.")
@click.option("--limit", type=number, metavar="N", help="Only the first N rows.")
@click.option("--max-cost", callback=_usd, metavar="USD", help="Stop before more is spent, earlier runs included.")
@click.option("--deadline", type=positive, metavar="SECONDS", help="Stop after so long.")
@click.option("--shard", callback=_shard, metavar="K/N", help="Only the K-th of N parts; see batch-merge.")
@click.option("--dedupe", is_flag=True, help="Send equal rows once.")
@click.option("--resume", is_flag=True, help="Insist on going on with OUTPUT; done anyway where it fits.")
@click.option("--retry-failed", is_flag=True, help="Ask rows that failed again, where that may help.")
@click.option("--repair", is_flag=True, help="Drop damaged lines of OUTPUT; their rows are asked again.")
@click.option("--overwrite", is_flag=True, help="Forget the answers in OUTPUT and start anew.")
@click.option("--ordered", is_flag=True, help="Put the lines into the order of the input at the end.")
@click.option("--openai", is_flag=True, help="Write OUTPUT as OpenAI's Batch API does.")
@click.option("--raw", is_flag=True, help="Keep the whole answer of the provider in each line.")
@click.option("--errors", metavar="FILE", help="Write the failed rows there, with their causes.")
@click.option("--summary", metavar="FILE", help="Write the summary there, as JSON.")
@json_option
@config_option
@click.pass_context
def batch(ctx: click.Context, /, **options: Any) -> None:
    """Ask every row of INPUT, and write a line for each into OUTPUT.

    INPUT is JSON Lines (objects with a prompt, messages or columns for the template; lines of OpenAI's Batch API), CSV
    with a header, or plain lines; "-" is stdin. OUTPUT is JSON Lines and its own checkpoint: the same command goes on
    where it stopped, after Ctrl-C, a kill or a power cut. A name that ends in .csv is written as CSV at the end; "-" is
    stdout, which is no checkpoint. A row that fails is a line with its cause, and stops nothing.

    The first Ctrl-C (or SIGTERM) starts no further row and waits for those in flight; the second calls them off.

    Exit codes: 0 every row is answered; 1 some rows failed; 2 wrong usage or settings, or OUTPUT belongs to something
    else; 3 stopped early: --max-cost, --deadline, --canary, a rejected key, a full disk; 130 interrupted. After 3 and
    130 the same command goes on.
    """
    from holyroute.cli.batch_options import Wanted
    from holyroute.cli.batch_work import perform

    code = perform(Wanted(**options), ctx.meta[COMMAND])
    if code:
        raise click.exceptions.Exit(code)
