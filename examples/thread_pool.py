"""A batch on a thread pool: one client for all threads, failures as values, the bill at the end.

Runs against a simulated provider, so that it needs no key: the first model fails, and nobody notices.
"""

from concurrent.futures import ThreadPoolExecutor

import holyroute
from holyroute.simulator import Simulator, faults

QUESTIONS = [f"What is {number} + {number}?" for number in range(100)]

with Simulator() as provider:
    provider.always("first-choice", faults.status(503))
    client = holyroute.Client(
        providers={"simulated": {"base_url": provider.base_url}},
        models={
            "first-choice": {"provider": "simulated", "price": {"input": 8, "output": 32}},
            "substitute": {"provider": "simulated", "price": {"input": 1, "output": 4}},
        },
        routes={"general": {"normal": ["first-choice", "substitute"]}},
    )
    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = list(pool.map(lambda question: client.ask(question, on_failure="return"), QUESTIONS))

print(f"answered: {sum(answer.success for answer in answers)} of {len(answers)}")
print(f"asked the failing model: {provider.attempts('first-choice')} times")
print(f"spent: {client.balance().spent} USD, saved: {client.balance('first-choice').saved} USD")
