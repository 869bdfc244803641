"""How far token estimates are off, for recorded texts with real counts, and how fast they are made.

    python benchmarks/tokens.py --data DIR

DIR holds the recordings as JSON lines: `token_counts_languages.jsonl` (`src`, `text`, counts of several tokenizers),
`token_counts_provider.jsonl` (`text`, billed input tokens) and, for code and JSON, `zeroeval_raw_sample.jsonl` with
`zeroeval_mix.jsonl` (outputs with their o200k counts). Prints Markdown. In the first table an estimator learns from the
first 50 rows of a source (half of them where there are fewer than 100) and is judged by the others; in the second one
estimator per tokenizer sees all languages in random order and is judged by each text before it learns from it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import timeit
from collections import defaultdict
from pathlib import Path

from holyroute.core.completion import Usage
from holyroute.cost.tokens import RawEstimate, TokenEstimator, count

Request = dict | RawEstimate
Recordings = dict[tuple[str, str], list[tuple[Request, int]]]

TOKENIZERS = {
    "o200k": "o200k",
    "cl100k": "cl100k",
    "deepseek": "DeepSeek",
    "claude2": "Claude 2",
    "claude_3_haiku_input": "Claude 3 Haiku, billed",
    "gemini_2_flash_input": "Gemini 2.0 Flash, billed",
}
CALIBRATION = 50
SPEED = {
    "English": "The quick brown fox jumps over the lazy dog, and 42 others. ",
    "Korean": "모든 국민은 법 앞에 평등하다. 이것은 예문입니다. ",
    "Chinese": "中华人民共和国公民在法律面前一律平等。这是一个例子。",
    "Python": "def total(values: list[int]) -> int:\n    return sum(value for value in values if value > 0)\n",
}


def lines(path: Path) -> list[dict]:
    """The rows of a file, none where it is missing."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def outputs(data: Path) -> list[tuple[str, str, str, int]]:
    """Recorded outputs of models: JSON around arithmetic, code and LaTeX."""
    mix = lines(data / "zeroeval_mix.jsonl")
    counts = {(row["task"], row["id"]): row["m"] for row in mix[1:]}
    rows = []
    for row in lines(data / "zeroeval_raw_sample.jsonl"):
        tokens = counts[row["task"], row["id"]][mix[0]["models"].index(row["model"])][3]
        if row["output"] and tokens:
            rows.append((f"output_{row['task']}", "o200k", row["output"], tokens))
    random.Random(1).shuffle(rows)
    return rows


def recordings(data: Path) -> Recordings:
    """All rows, by source and tokenizer. What was billed was a message; the other counts are of bare texts."""
    found = defaultdict(list)
    for row in lines(data / "token_counts_languages.jsonl"):
        for name in TOKENIZERS:
            if name in row:
                found[row["src"], name].append((RawEstimate(count(row["text"])), row[name]))
    for row in lines(data / "token_counts_provider.jsonl"):
        for name in TOKENIZERS:
            if name in row:
                body = {"messages": [{"role": "user", "content": row["text"]}]}
                found["prompts", name].append((body, row[name]))
    for source, name, text, tokens in outputs(data):
        found[source, name].append((RawEstimate(count(text)), tokens))
    return found


def error(estimator: TokenEstimator, request: Request, tokens: int) -> float:
    """How far an estimate is off, as a share of the truth."""
    return abs(estimator.prompt(request, "model") / tokens - 1)


def summary(errors: list[float]) -> str:
    """Median and 95th percentile, as two cells."""
    return f"{100 * statistics.median(errors):.1f} % | {100 * sorted(errors)[int(0.95 * len(errors))]:.0f} %"


def by_source(found: Recordings) -> None:
    """One estimator for each source and tokenizer."""
    print("| source | counted by | rows | before: median | p95 | after: median | p95 |\n|---|---|---|---|---|---|---|")
    medians = []
    for (source, name), rows in sorted(found.items()):
        estimator = TokenEstimator()
        learnt = min(CALIBRATION, len(rows) // 2)
        before = summary([error(estimator, *row) for row in rows[learnt:]])
        for request, tokens in rows[:learnt]:
            estimator.learn(request, "model", Usage(tokens, 0))
        errors = [error(estimator, *row) for row in rows[learnt:]]
        medians.append((statistics.median(errors), source, name))
        print(f"| {source} | {TOKENIZERS[name]} | {len(errors)} | {before} | {summary(errors)} |")
    within = sum(median <= 0.12 for median, *_ in medians)
    print(f"\n{within} of {len(medians)} medians are within 12 %; the mean of the medians is ", end="")
    print(f"{100 * statistics.mean(median for median, *_ in medians):.1f} %.\n")


def all_together(found: Recordings) -> None:
    """One estimator for each tokenizer, which meets all languages."""
    print("| all languages, counted by | rows | median | p95 |\n|---|---|---|---|")
    for name, title in TOKENIZERS.items():
        rows = [row for (_, counted_by), some in sorted(found.items()) if counted_by == name for row in some]
        random.Random(3).shuffle(rows)
        estimator, errors = TokenEstimator(), []
        for request, tokens in rows:
            errors.append(error(estimator, request, tokens))
            estimator.learn(request, "model", Usage(tokens, 0))
        if rows:
            print(f"| {title} | {len(rows)} | {summary(errors)} |")


def speed() -> None:
    """What counting takes."""
    print("\n| text | 100 kB | MB/s |\n|---|---|---|")
    for name, sample in SPEED.items():
        text = sample * (100_000 // len(sample.encode()))
        seconds = min(timeit.repeat(lambda text=text: count(text), number=20, repeat=5)) / 20
        print(f"| {name} | {seconds * 1e3:.2f} ms | {len(text.encode()) / seconds / 1e6:.0f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings")
    found = recordings(parser.parse_args().data)
    by_source(found)
    all_together(found)
    speed()


if __name__ == "__main__":
    main()
