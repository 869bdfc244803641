"""A provider with faults to order, on real sockets of the loopback interface, in OpenAI's, Azure's or Anthropic's form.

For tests and rehearsals: start one, point a client at its `base_url`, script an outage, read what the provider saw.
"""

from __future__ import annotations

from holyroute.simulator import faults
from holyroute.simulator.exchange import Exchange, Fault
from holyroute.simulator.journal import Seen
from holyroute.simulator.names import Names
from holyroute.simulator.profiles import Limit, Profile, benchmark_profiles
from holyroute.simulator.provider import Simulator
from holyroute.simulator.statistics import ModelStatistics

__all__ = [
    "Exchange",
    "Fault",
    "Limit",
    "ModelStatistics",
    "Names",
    "Profile",
    "Seen",
    "Simulator",
    "benchmark_profiles",
    "faults",
]
