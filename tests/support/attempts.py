"""Stands in for a training process: does what STEELYARD_TEST_PLAN says for its attempt, and writes down what it was given.

Run as `python -m tests.support.attempts FOLDER`. A plan is a JSON list with one step per attempt, the last for all later ones:
an exit code, "save" (wait for SIGTERM, then exit 143), "hang" (ignore SIGTERM for ever) or "kill" (SIGKILL itself).
"""

import json
import os
import signal
import sys
from pathlib import Path

PLAN = "STEELYARD_TEST_PLAN"


def main(folder: Path) -> int:
    attempt = int(os.environ["STEELYARD_ATTEMPT"])
    plan = json.loads(os.environ[PLAN])
    step = plan[min(attempt, len(plan)) - 1]
    given = {name: value for name, value in os.environ.items() if name.startswith("STEELYARD_")}
    if step == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if step == "save":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    draft = folder / f".{attempt}"
    draft.write_text(json.dumps(given | {"pid": os.getpid()}))
    draft.rename(folder / f"{attempt}.json")  # whole, for whoever waits for it
    if step == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while step in {"save", "hang"}:
        signal.pause()
    return int(step)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
