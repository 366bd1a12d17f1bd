"""Every option of the gateway, each owned by the room that uses it, gathered under one root.

STEELYARD_SERVER__PORT=80  sets  server.port;  STEELYARD_STORE  and  STEELYARD_PRELOAD  set top-level options.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway import config
from gateway.access.gate import AccessOptions
from gateway.accounting.options import LedgerOptions
from gateway.features.options import FeatureOptions
from gateway.http.options import CompressionOptions, HttpOptions, SageMakerOptions
from gateway.repository.residents import RepositoryOptions
from gateway.runtime.admission import AdmissionOptions
from gateway.runtime.model import RuntimeOptions
from gateway.telemetry.logs import LogOptions
from gateway.telemetry.measures import TelemetryOptions

PREFIX = "STEELYARD_"


class AccountingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this container is billed as. 0 means: what the platform says, else the cgroup's limit, else the machine's size.

    `platform` is one of the price book's; "auto" asks ECS, Lambda or Cloud Run, whichever it runs on, and assumes Fargate where
    nothing answers. `usd_per_hour` ("0.12") prices the platform `machine`, which "auto" then is. `price_book` is a TOML file like
    those in infra/prices; empty means the store's current one (`steelyard prices update`), else the one shipped.
    `container_id` names the container in the ledger; empty means the ECS task's, elsewhere a random id. Full costs are estimated
    from the last window of `window_s`: an hour has seen a service's idle time, and is recent. `energy_book` is a TOML file like
    that in infra/energy, for the energy and carbon of `/costs?energy=yes`; empty means the one shipped, which is of us-east-1.
    """

    platform: str = "auto"
    usd_per_hour: str = ""
    vcpus: Annotated[float, Meta(ge=0, le=4096)] = 0
    memory_gb: Annotated[float, Meta(ge=0, le=1_000_000)] = 0
    price_book: str = ""
    energy_book: str = ""
    container_id: str = ""
    window_s: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`timeout_s` bounds one request after its body has arrived. `preload` models are loaded before the process is ready.

    `insecure_no_auth` lets an address that others reach be open while the store holds no key. Keys that exist are needed.
    """

    store: str = "./.steelyard/store"
    preload: tuple[str, ...] = ()
    timeout_s: config.Timeout = 30.0
    insecure_no_auth: bool = False
    server: HttpOptions = HttpOptions()
    access: AccessOptions = AccessOptions()
    compression: CompressionOptions = CompressionOptions()
    sagemaker: SageMakerOptions = SageMakerOptions()
    runtime: RuntimeOptions = RuntimeOptions()
    admission: AdmissionOptions = AdmissionOptions()
    repository: RepositoryOptions = RepositoryOptions()
    accounting: AccountingOptions = AccountingOptions()
    ledger: LedgerOptions = LedgerOptions()
    features: FeatureOptions = FeatureOptions()
    telemetry: TelemetryOptions = TelemetryOptions()
    log: LogOptions = LogOptions()


def load(
    path: Path | None = None, *, environ: Mapping[str, str] = os.environ, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """File, then environment, then overrides. Raises `SettingsError` naming the source and the key."""
    return config.load(Settings, path=path, environ=environ, prefix=PREFIX, overrides=overrides)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. Any other needs keys, which `gateway.bootstrap` sees to."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
