"""What belongs to the process that trains, and not to the job."""

from pathlib import Path

import msgspec


class Here(msgspec.Struct, frozen=True):
    store: str
    run_id: str
    device: str | None = None
    priced_as: str | None = None
    sign_key: Path | None = None
    is_quiet: bool = False
