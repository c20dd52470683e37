"""`python -m tests.fuzz`: the long campaign. First in process, then against a real pvcd, with and without TLS."""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import time

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.any_request import AnyRequest, any_request
from tests.fuzz.asked import Asked
from tests.fuzz.campaign import Report, Round, new_folder, run_campaign

IN_PROCESS = 0.25
"""Of the time; the rest is for real connections."""


def main() -> int:
    """Run it; 1 where something that must hold does not."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all of it together (5)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", choices=("requests", "plain", "tls"), help="this part alone")
    given_ = parser.parse_args()
    seconds, failures = given_.minutes * 60, list[str]()
    say(f"seed {given_.seed}")
    parts = [given_.only] if given_.only else ["requests", "plain", "tls"]
    share = {"requests": seconds * IN_PROCESS, "plain": seconds * 0.4, "tls": seconds * 0.35}
    for part in parts:
        time_s = seconds if given_.only else share[part]
        failures += fuzz_requests(time_s, given_.seed) if part == "requests" else fuzz_daemon(part, time_s, given_.seed)
    for failure in failures:
        say(f"FAILED {failure}")
    say(f"{len(failures)} failures; again with: ./dev fuzz --minutes {given_.minutes:g} --seed {given_.seed}")
    return 1 if failures else 0


def fuzz_requests(seconds: float, number: int) -> list[str]:
    """Any requests to the app in this process."""
    logging.disable(logging.CRITICAL)
    folder, end, failures, batch = new_folder(), time.monotonic() + seconds, list[str](), 0
    asked = Asked(folder)
    try:
        while time.monotonic() < end and not failures:
            batch += 1
            failures += _batch(asked, number + batch)
        asked.still_well()
    finally:
        asked.close()
        shutil.rmtree(folder, ignore_errors=True)
        logging.disable(logging.NOTSET)
    told = " ".join(f"{status}:{count}" for status, count in sorted(asked.seen.items()))
    say(f"requests   {asked.seen.total():>9,} tried, {len(asked.codes)} codes of problems, replies {told}")
    return failures


def _batch(asked: Asked, number: int) -> list[str]:
    @seed(number)
    @settings(
        max_examples=500,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(request_made=any_request())
    def ask(request_made: AnyRequest) -> None:
        asked.ask(request_made)

    try:
        ask()
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        return [f"requests (seed {number}): {type(error).__name__} {error} {notes}"[:2_000]]
    return []


def fuzz_daemon(part: str, seconds: float, number: int) -> list[str]:
    """Attacks on a daemon."""
    folder = new_folder()
    try:
        report = run_campaign(folder, tls=part == "tls", seconds=seconds, seed=number, tell=tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summed_up(part, report)
    return [f"{part}: {failure}" for failure in report.failures]


def tell(one: Round) -> None:
    """A line of the table."""
    good = one.good
    replies = " ".join(f"{status}:{count}" for status, count in sorted(one.replies.items()))
    say(
        f"{'tls' if one.tls else 'plain':5} {one.attack:22} {one.tried:>8,} tried  good client: {good['asked']} asked, "
        f"{good['failures']} failed, median {good['median_ms']} ms, p99 {good['p99_ms']}, worst {good['worst_ms']}, "
        f"on a kept connection {good['worst_kept_ms']}  "
        f"files {one.files}, {one.memory_mib:.0f} MiB  {replies}"
    )


def summed_up(part: str, report: Report) -> None:
    """The last line of a part."""
    last = report.rounds[-1]
    say(
        f"{part}: {report.tried:,} inputs; files {report.files_before} -> {last.files}, "
        f"memory {report.memory_before_mib:.0f} -> {last.memory_mib:.0f} MiB; {report.verified:,} records verified"
    )


def say(text: str) -> None:
    """A line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
