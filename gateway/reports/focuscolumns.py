"""Which columns a FOCUS file has, by version of the FinOps Open Cost and Usage Specification (https://focus.finops.org).

1.2 was ratified on 2025-05-29, 1.4 on 2026-06-04: split cost allocation has columns there, and providers have other names.
The order is the file's; custom columns are last, as the specification wants it.
"""

from collections.abc import Mapping
from typing import Literal, get_args

Version = Literal["1.2", "1.4"]
VERSIONS: tuple[Version, ...] = get_args(Version)

TEXT = "VARCHAR"
TIME = "TIMESTAMPTZ"
COST = "DECIMAL(38,17)"  # of the community's 1.4 model; pico-dollars need 12
INTEGER = "BIGINT"
COUNT = "DECIMAL(38,0)"

BOTH: tuple[Version, ...] = ("1.2", "1.4")
ONLY_1_2: tuple[Version, ...] = ("1.2",)
ONLY_1_4: tuple[Version, ...] = ("1.4",)

_TABLE: tuple[tuple[str, str, tuple[Version, ...]], ...] = (
    ("AllocatedMethodDetails", TEXT, ONLY_1_4),
    ("AllocatedMethodId", TEXT, ONLY_1_4),
    ("AllocatedResourceId", TEXT, ONLY_1_4),
    ("AllocatedResourceName", TEXT, ONLY_1_4),
    ("AllocatedTags", TEXT, ONLY_1_4),
    ("AvailabilityZone", TEXT, BOTH),
    ("BilledCost", COST, BOTH),
    ("BillingAccountId", TEXT, BOTH),
    ("BillingAccountName", TEXT, BOTH),
    ("BillingAccountType", TEXT, BOTH),
    ("BillingCurrency", TEXT, BOTH),
    ("BillingPeriodEnd", TIME, BOTH),
    ("BillingPeriodStart", TIME, BOTH),
    ("CapacityReservationId", TEXT, BOTH),
    ("CapacityReservationStatus", TEXT, BOTH),
    ("ChargeCategory", TEXT, BOTH),
    ("ChargeClass", TEXT, BOTH),
    ("ChargeDescription", TEXT, BOTH),
    ("ChargeFrequency", TEXT, BOTH),
    ("ChargePeriodEnd", TIME, BOTH),
    ("ChargePeriodStart", TIME, BOTH),
    ("CommitmentDiscountCategory", TEXT, BOTH),
    ("CommitmentDiscountId", TEXT, BOTH),
    ("CommitmentDiscountName", TEXT, BOTH),
    ("CommitmentDiscountQuantity", COST, BOTH),
    ("CommitmentDiscountStatus", TEXT, BOTH),
    ("CommitmentDiscountType", TEXT, BOTH),
    ("CommitmentDiscountUnit", TEXT, BOTH),
    ("CommitmentProgramEligibilityDetails", TEXT, ONLY_1_4),
    ("ConsumedQuantity", COST, BOTH),
    ("ConsumedUnit", TEXT, BOTH),
    ("ContractApplied", TEXT, ONLY_1_4),
    ("ContractedCost", COST, BOTH),
    ("ContractedUnitPrice", COST, BOTH),
    ("EffectiveCost", COST, BOTH),
    ("HostProviderName", TEXT, ONLY_1_4),
    ("InvoiceDetailId", TEXT, ONLY_1_4),
    ("InvoiceId", TEXT, BOTH),
    ("InvoiceIssuerName", TEXT, BOTH),
    ("ListCost", COST, BOTH),
    ("ListUnitPrice", COST, BOTH),
    ("PricingCategory", TEXT, BOTH),
    ("PricingCurrency", TEXT, BOTH),
    ("PricingCurrencyContractedUnitPrice", COST, BOTH),
    ("PricingCurrencyEffectiveCost", COST, BOTH),
    ("PricingCurrencyListUnitPrice", COST, BOTH),
    ("PricingQuantity", COST, BOTH),
    ("PricingUnit", TEXT, BOTH),
    ("ProviderName", TEXT, ONLY_1_2),
    ("PublisherName", TEXT, ONLY_1_2),
    ("RegionId", TEXT, BOTH),
    ("RegionName", TEXT, BOTH),
    ("ResourceId", TEXT, BOTH),
    ("ResourceName", TEXT, BOTH),
    ("ResourceType", TEXT, BOTH),
    ("ServiceCategory", TEXT, BOTH),
    ("ServiceName", TEXT, BOTH),
    ("ServiceProviderName", TEXT, ONLY_1_4),
    ("ServiceSubcategory", TEXT, BOTH),
    ("SkuId", TEXT, BOTH),
    ("SkuMeter", TEXT, BOTH),
    ("SkuPriceDetails", TEXT, BOTH),
    ("SkuPriceId", TEXT, BOTH),
    ("SubAccountId", TEXT, BOTH),
    ("SubAccountName", TEXT, BOTH),
    ("SubAccountType", TEXT, BOTH),
    ("Tags", TEXT, BOTH),
    ("x_Activity", TEXT, BOTH),
    ("x_AllocatedMethodId", TEXT, ONLY_1_2),
    ("x_BillSha256", TEXT, BOTH),
    ("x_CarbonNanoGram", COUNT, BOTH),
    ("x_CorrectionReason", TEXT, BOTH),
    ("x_CostPicoUsd", COUNT, BOTH),
    ("x_EnergyNanoJoule", COUNT, BOTH),
    ("x_ModelName", TEXT, BOTH),
    ("x_ModelVersion", INTEGER, BOTH),
    ("x_OriginChargeId", TEXT, BOTH),
    ("x_Outcome", TEXT, BOTH),
    ("x_PriceBookSha256", TEXT, BOTH),
    ("x_Requests", COUNT, BOTH),
    ("x_TenantName", TEXT, BOTH),
)

COLUMNS: Mapping[Version, Mapping[str, str]] = {
    version: {name: kind for name, kind, versions in _TABLE if version in versions} for version in VERSIONS
}
"""DuckDB's type of each column."""
