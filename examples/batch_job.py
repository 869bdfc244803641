"""A batch job: rows in, answers out as they come, failures as values, and a limit to what may be spent.

Runs against a simulated provider, so that it needs no key: the first model dies in the middle, and nobody notices. For
files there is a command that does the same and goes on where it stopped: `holyroute batch in.jsonl out.jsonl`.
"""

from collections import Counter

import holyroute
from holyroute.simulator import Simulator, faults

ROWS = [{"messages": [{"role": "user", "content": f"What is {number} + {number}?"}]} for number in range(200)]
ROWS[7] = {"question": "a row that nobody can read"}

with Simulator() as provider:
    client = holyroute.Client(
        providers={"simulated": {"base_url": provider.base_url}},
        models={
            "first-choice": {"provider": "simulated", "price": {"input": 8, "output": 32}},
            "substitute": {"provider": "simulated", "price": {"input": 1, "output": 4}},
        },
        routes={"general": {"normal": ["first-choice", "substitute"]}},
    )
    answered: Counter[str | None] = Counter()
    with client.batch(ROWS, max_workers=16, max_tokens=100, max_cost="5.00") as job:
        for result in job:  # in the order in which they come; ordered=True waits for the order of the rows
            if result.ok:
                answered[result.model] += 1
            else:
                print(f"row {result.index}: {result.error.cause}: {result.error.message}")
            if result.index == 100:
                provider.always("first-choice", faults.status(503))

print(f"answered: {answered.total()} of {len(ROWS)}, stopped: {job.stopped}")
print(f"by both models: {set(answered) == {'first-choice', 'substitute'}}")
print(f"spent: {job.progress.spent} USD")
