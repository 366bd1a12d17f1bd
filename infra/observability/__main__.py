"""Write the dashboards and the alert rules: `python -m infra.observability`; `--check` only says whether they are up to date."""

import sys
from pathlib import Path

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from infra.observability import alerts, dashboards

HERE = Path(__file__).parent
_NOTE = "# Written by `python -m infra.observability` from gateway/telemetry/definitions.py; edit infra/observability/alerts.py.\n"


def files() -> dict[Path, str]:
    """Every generated file and what must be in it."""
    boards = {"gateways": dashboards.gateways(), "costs": dashboards.costs()}
    grafana = {
        HERE / "grafana" / f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n"
        for name, board in boards.items()
    }
    groups = [{"name": name, "rules": [alert.rule() for alert in group]} for name, group in alerts.GROUPS.items()]
    rules = _NOTE + yaml.safe_dump({"groups": groups}, sort_keys=False, width=130)
    return grafana | {HERE / "alerts.yaml": rules}


def main(arguments: list[str]) -> int:
    """Write what differs, or with `--check` name it and fail."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(
                f"{path.relative_to(HERE.parent.parent)} is not what the definitions say: python -m infra.observability"
            )
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files()[path])
        print(f"wrote {path.relative_to(HERE.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
