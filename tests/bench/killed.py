"""`python -m tests.bench.killed [ROUNDS] [SEED]`: a gateway killed under load, 200 times in one container, and the bill afterwards.

It fails when ledger plus unattributed is not container-seconds times price to the pico-dollar, or a request is recorded twice.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.support import killing


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**6
    print(f"{rounds} kills with seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        proof = killing.rounds(Path(folder), rounds, seed)
    verdict = proof.verdict
    seconds = time.monotonic() - began
    print(f"{proof.lives} lives in {seconds:.0f} s, {verdict.segments} segments, {verdict.requests} requests recorded")
    print(f"{proof.receipts} receipts given out, {proof.missing} of them in no segment: what the kills took")
    print(f"posted       {verdict.charged_picousd:>20,} p$")
    print(
        f"unattributed {verdict.unattributed_picousd:>20,} p$ ({100 * verdict.unattributed_picousd / proof.bill_picousd:.1f} %)"
    )
    print(f"bill         {proof.bill_picousd:>20,} p$, exactly their sum")


if __name__ == "__main__":
    main()
