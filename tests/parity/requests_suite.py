"""Run requests' own test suite, as it is and over holyroute, and compare test by test.

    python tests/parity/requests_suite.py [--keep FOLDER]

| variant | what is done to requests |
|---|---|
| plain | nothing |
| face | the import line of every test is changed: `import holyroute as requests` |
| installed | `install()` |
| routed | every request takes the whole way of a routed call |
| closed port first | the same, and each is first sent to a port where nobody listens |
| our adapters | the same, over the adapters that routed calls use instead of stock ones |
| control | routed, with four planted mistakes: this one must fail |

Each must end as plain requests ends. The suite comes from the source distribution of the installed version, its tools
from the package index; both are fetched with pip, and nothing else leaves the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests

MOST_SHOWN = 20
HERE = Path(__file__).parent
TOOLS = ("httpbin~=0.10.0", "pytest-httpbin==2.1.0", "pytest-mock>=3.14", "PySocks>=1.5.6", "trustme>=1.2")
VARIANTS = ("plain", "face", "installed", "routed", "closed port first", "our adapters", "control")
ROUTED = {"routed", "closed port first", "our adapters"}
REFUSED = ROUTED - {"routed"}  # each request meets the closed port

# Our adapters have pools of their own, and take the retries of a stock adapter out of what failover repeats anyway.
BY_DESIGN = {
    "our adapters": {
        "test_urllib3_retries",
        "test_different_connection_pool_for_tls_settings_verify_True",
        "test_different_connection_pool_for_tls_settings_verify_bundle_expired_cert",
        "test_different_connection_pool_for_tls_settings_verify_bundle_unexpired_cert",
    }
}
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
OPTIONS = ("-q", "-p", "suite_plugin", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=short", "-o", "timeout=60")


def main() -> int:
    """Fetch, run, compare."""
    parser = argparse.ArgumentParser(description="Run requests' own test suite over holyroute.")
    parser.add_argument("--keep", type=Path, help="Work in this folder, and use what is there already.")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as scratch:
        folder = (keep or Path(scratch)).absolute()
        fetch(folder)
        with ThreadPoolExecutor(len(VARIANTS)) as pool:
            results = dict(zip(VARIANTS, pool.map(lambda variant: run(folder, variant), VARIANTS), strict=True))
        for variant in VARIANTS:  # some tests have time limits of their own, which a busy machine does not meet
            if is_surprising(variant, results):
                print(f"{variant}: once more, by itself")
                results[variant] = run(folder, variant)
    return 0 if compare(results) else 1


def fetch(folder: Path) -> None:
    """The suite, and what it needs besides what is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tools").exists():
        installed = folder / "installed.txt"
        frozen = subprocess.run(
            [*PIP, "freeze", "--exclude-editable"], capture_output=True, check=True, text=True
        ).stdout
        installed.write_text(re.sub(r"^.* @ .*$", "", frozen, flags=re.MULTILINE))
        subprocess.run([*PIP, "install", "--target", folder / "tools", "-c", installed, *TOOLS], check=True)
    name = f"requests-{requests.__version__}"  # type: ignore[attr-defined]
    if not (folder / "suite").exists():
        wanted = name.replace("-", "==")
        subprocess.run([*PIP, "download", "--no-binary", ":all:", "--no-deps", "-d", folder, wanted], check=True)
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        (folder / name).rename(folder / "suite")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of each test, how many requests were routed, and how many connections refused."""

    outcomes: dict[str, str]
    routed: int
    refused: int

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(Counter(self.outcomes.values()).items()))
        return f"{counts}; {self.routed} requests routed, {self.refused} connections refused"


def run(folder: Path, variant: str) -> Result:
    """Run the suite once."""
    suite, told = folder / variant.replace(" ", "-"), folder / f"{variant}.json"
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(folder / "suite", suite, ignore=shutil.ignore_patterns("src"))
    if variant == "face":
        change_the_import_line(suite / "tests")
    told.unlink(missing_ok=True)
    paths = [HERE, folder / "tools", os.environ.get("PYTHONPATH", "")]
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOLYROUTE_")},
        "PYTHONPATH": os.pathsep.join(filter(None, map(str, paths))),
        "SUITE_VARIANT": variant,
        "SUITE_OUTCOMES": str(told),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS], cwd=suite, env=env, capture_output=True, text=True, check=False
    )
    (folder / f"{variant}.log").write_text(done.stdout + done.stderr)
    if not told.exists():
        sys.exit(f"{variant}: the suite did not run\n{done.stdout}{done.stderr}")
    found = json.loads(told.read_text())
    found["outcomes"] = {test.replace(str(suite), "SUITE"): outcome for test, outcome in found["outcomes"].items()}
    return Result(**found)


def change_the_import_line(tests: Path) -> None:
    """As a script would: `import requests` becomes `import holyroute as requests`."""
    for path in tests.rglob("*.py"):
        text = re.sub(r"^( *)import requests$", r"\1import holyroute as requests", path.read_text(), flags=re.MULTILINE)
        path.write_text(re.sub(r"^( *)from requests\b(?!\.help)", r"\1from holyroute", text, flags=re.MULTILINE))


def unlike_plain(variant: str, results: dict[str, Result]) -> list[str]:
    """The tests that end otherwise than with plain requests; of plain requests itself, those that fail."""
    plain, found = results["plain"].outcomes, results[variant].outcomes
    if variant == "plain":
        return sorted(test for test, outcome in plain.items() if outcome == "failed")
    return sorted(test for test in plain.keys() | found.keys() if plain.get(test) != found.get(test))


def is_surprising(variant: str, results: dict[str, Result]) -> bool:
    """Whether other tests fail than those that are meant to."""
    names = {test.split("::")[-1] for test in unlike_plain(variant, results)}
    return variant != "control" and names != BY_DESIGN.get(variant, set())


def compare(results: dict[str, Result]) -> bool:
    """Print a line per variant, and what is not as it should be; False if anything is."""
    plain = results["plain"].outcomes
    right = bool(plain)
    for variant, result in results.items():
        others = unlike_plain(variant, results)
        print(f"{variant}: {result}; {len(others)} tests unlike plain requests")
        if variant == "control":
            right &= bool(others)
            continue
        if (variant in ROUTED) != (result.routed > 0) or (variant in REFUSED and result.refused < result.routed):
            right = False
            print("  not every request took the way that was meant")
        if is_surprising(variant, results):
            right = False
            for test in others[:MOST_SHOWN]:
                print(f"  {test}: {result.outcomes.get(test)}, plain: {plain.get(test)}")
    return right


if __name__ == "__main__":
    sys.exit(main())
