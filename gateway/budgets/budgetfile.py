"""The file of budgets: what may be spent on which models and tenants in which period, and whom to tell. Read strictly.

[webhook]
url = "https://hooks.example.com/steelyard"
secret_env = "STEELYARD_WEBHOOK_SECRET"

[[budget]]
id = "search-month"
tenant = "search-*"
period = "month"
usd = "250.00"
thresholds = [0.5, 0.8, 1.0]
forecast = [1.0]
"""

import ipaddress
import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any  # Any: a TOML value before it is checked
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from gateway.contract import codec
from gateway.contract.budgets import BudgetId
from gateway.contract.prices import PICO_PER_USD
from gateway.errors import SettingsError
from gateway.reports.query import View

HOURS_MAX = 31 * 24
"""Of a rolling period: as long as a month."""

BUDGETS_MAX = 1000
"""Each is a sum over the ledger's cells: some seconds for all of them."""

THRESHOLDS_MAX = 16
FACTOR_MAX = 1000
"""Of the amount: a threshold beyond is a slip of the pen."""

_ROLLING = re.compile(r"^hours:([1-9][0-9]{0,3})$")

Word = Annotated[str, Meta(min_length=1, max_length=256)]
Timeout = Annotated[float, Meta(gt=0, le=60)]


class Webhook(msgspec.Struct, frozen=True):
    """`secret_env` names the environment variable that holds the secret of the signature; "": not signed."""

    url: str
    secret_env: Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$(?!\n)")] = ""
    timeout_s: Timeout = 10.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not self.url.isascii() or any(not character.isprintable() or character == " " for character in self.url):
            raise ValueError("'url' of the webhook has characters that no URL has; write them as %XX, a host as xn--")
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError("'url' of the webhook must be https://host/..., or http:// to this machine")
        if parts.username is not None or parts.password is not None:
            raise ValueError("'url' of the webhook must not carry a password; sign with 'secret_env'")
        if parts.scheme == "http" and not _is_here(parts.hostname):
            raise ValueError(f"'url' of the webhook: http only to this machine, not to {parts.hostname}; use https")
        _ = parts.port  # raises ValueError for one that is none


class Budget(msgspec.Struct, frozen=True):
    """`model` and `tenant` are patterns (`*`, `?`); both `*`: the whole bill. Thresholds are factors of the amount, as decimals.

    `view` says whether shared costs count (`full`), as in cost reports.
    """

    id: BudgetId
    period: str
    usd: str
    model: Word = "*"
    tenant: Word = "*"
    view: View = "full"
    thresholds: tuple[str, ...] = ("0.8", "1")
    forecast: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", self.usd, re.ASCII):  # here, so that the budget is named
            raise ValueError(
                f"budget '{self.id}': 'usd' is '{self.usd[:32]}', not a decimal above zero, such as \"250.00\""
            )
        if Fraction(self.usd) == 0:
            raise ValueError(f"budget '{self.id}' allows nothing: 'usd' must be above 0")
        if self.limit_picousd != Fraction(self.usd) * PICO_PER_USD:
            raise ValueError(f"budget '{self.id}': 'usd' has more than 12 decimals")
        if self.period not in {"day", "month"} and not 0 < self.hours <= HOURS_MAX:
            raise ValueError(
                f"budget '{self.id}': 'period' is day, month or hours:N with N up to {HOURS_MAX}, not '{self.period[:32]}'"
            )
        for name in ("thresholds", "forecast"):
            factors = getattr(self, name)
            if len(factors) > THRESHOLDS_MAX:
                raise ValueError(f"budget '{self.id}': '{name}' has more than {THRESHOLDS_MAX} entries")
            if len(set(factors)) != len(factors):
                raise ValueError(f"budget '{self.id}': '{name}' names a factor twice")
        if not self.thresholds and not self.forecast:
            raise ValueError(f"budget '{self.id}' has no threshold: it would never say anything")

    @property
    def limit_picousd(self) -> int:
        return int(Fraction(self.usd) * PICO_PER_USD)

    @property
    def hours(self) -> int:
        """Of a rolling period; 0 for a day or a month."""
        rolling = _ROLLING.match(self.period)
        return int(rolling[1]) if rolling else 0


class BudgetFile(msgspec.Struct, frozen=True):
    """The TOML file as written."""

    budget: tuple[Budget, ...]
    webhook: Webhook | None = None
    schema_version: int = 1

    def __post_init__(self) -> None:
        if not self.budget:
            raise ValueError("no [[budget]] is there")
        if len(self.budget) > BUDGETS_MAX:
            raise ValueError(f"more than {BUDGETS_MAX:,} budgets")
        ids = [budget.id for budget in self.budget]
        for one in ids:
            if ids.count(one) > 1:
                raise ValueError(f"two budgets have the id '{one}'")


def load(path: Path) -> BudgetFile:
    """Raises `SettingsError` naming the file and what is wrong in it."""
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError(f"budgets {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"budgets {path}: {error}") from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str) -> BudgetFile:
    """What such a file says. Raises `SettingsError` naming `source` and what is wrong in it."""
    try:
        raw = tomllib.loads(text, parse_float=str)  # 0.8 is eight tenths, and not a double near it
        return codec.convert_strict(_with_factors(raw), BudgetFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"budgets {source}: {error}") from error


def _with_factors(raw: dict[str, Any]) -> dict[str, Any]:
    """Factors as the shortest decimal texts, so that 0.5 and 0.50 are one; and a time-out as the number it is."""
    budgets = raw.get("budget")
    for budget in budgets if isinstance(budgets, list) else ():
        for name in ("thresholds", "forecast"):
            factors = budget.get(name) if isinstance(budget, dict) else None
            if isinstance(factors, list):
                budget[name] = [_factor(name, factor) for factor in factors]
    webhook = raw.get("webhook")
    if isinstance(webhook, dict) and isinstance(webhook.get("timeout_s"), str):
        webhook["timeout_s"] = float(webhook["timeout_s"])
    return raw


def _factor(name: str, value: object) -> str:
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6})?", text) or not 0 < Fraction(text) <= FACTOR_MAX:
        raise ValueError(f"'{name}' has {text[:32]!r}: a factor above 0 and up to {FACTOR_MAX} with at most 6 decimals")
    whole, _, decimals = text.partition(".")
    return f"{int(whole)}.{decimals}".rstrip("0").rstrip(".") if decimals else str(int(whole))


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
