"""Nanojoules and nanograms: the formula by hand, exact splits, ranges in order, tiers said, files refused by name."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting.footprint import share
from gateway.contract import energy
from gateway.contract.energy import Footprint, Span, Use
from gateway.errors import SettingsError

HOUR_NS = 3600 * 10**9
GB = 2**30


def hour(processor: str = "x86", *, cpu_ns: int = 0, **gpu: int | str) -> Use:
    return Use(processor, vcpu_milli=2000, memory_bytes=4 * GB, held_ns=HOUR_NS, cpu_ns=cpu_ns, **gpu)  # type: ignore[arg-type]


def test_an_idle_hour_is_its_watts_times_the_buildings():
    footprint = energy.idle(hour(), energy.load())
    watts = Fraction("2.072") + 4 * Fraction("0.392")
    assert footprint.energy_nj.value == watts * Fraction("1.14") * HOUR_NS
    grams = watts / 1000 * Fraction("1.14") * Fraction("415.8")
    assert footprint.operational_ng.value == round(grams * 10**9)
    assert footprint.embodied_ng.value == 240_000_000  # 0.24 g, as BoaviztAPI says of c7i.large
    assert footprint.tier == "modelled"


def test_work_costs_what_lies_between_idle_and_busy():
    footprint = energy.working(hour(cpu_ns=5_000_000), energy.load())
    assert footprint.energy_nj.value == round(5_000_000 * Fraction("3.124") * Fraction("1.14"))
    assert footprint.embodied_ng == energy.ZERO


def test_the_weakest_part_names_the_tier():
    assert energy.idle(hour("arm"), energy.load()).tier == "assumed"
    assert energy.idle(hour(gpu="T4", gpus=1), energy.load()).tier == "modelled"
    assert energy.working(hour(gpu="L4", gpus=1, gpu_busy_ns=HOUR_NS), energy.load()).tier == "assumed"


def test_a_gpu_burns_when_idle_and_more_when_busy():
    coefficients = energy.load()
    without, held = energy.idle(hour(), coefficients), energy.idle(hour(gpu="T4", gpus=2), coefficients)
    assert held.energy_nj.value - without.energy_nj.value == 16 * Fraction("1.14") * HOUR_NS
    busy = energy.working(hour(gpu="T4", gpus=2, gpu_busy_ns=HOUR_NS), coefficients)
    assert busy.energy_nj.value == 63 * Fraction("1.14") * HOUR_NS


spans = st.tuples(*[st.integers(0, 10**20)] * 3).map(lambda ends: Span(*sorted(ends)))
footprints = st.builds(Footprint, spans, spans, spans, st.just("modelled"))


@given(footprints, st.lists(st.integers(0, 10**15), min_size=1, max_size=30).filter(any))
def test_shares_add_up_to_the_last_nanojoule(total: Footprint, weights: list[int]):
    parts = share(total, weights)
    summed = parts[0]
    for part in parts[1:]:
        summed += part
    assert summed == total


@given(
    st.integers(0, 10**16), st.integers(0, 10**16), st.sampled_from(["x86", "arm"]), st.sampled_from(["", "T4", "H100"])
)
def test_low_is_never_above_high(held_ns: int, cpu_ns: int, processor: str, gpu: str):
    use = Use(processor, 4000, 16 * GB, held_ns, cpu_ns, gpu, int(bool(gpu)), cpu_ns if gpu else 0)  # type: ignore[arg-type]
    whole = energy.idle(use, energy.load()) + energy.working(use, energy.load())
    for span in (whole.energy_nj, whole.carbon_ng):
        assert span.low <= span.value <= span.high


def test_sci_is_carbon_per_thousand_and_nothing_without_predictions():
    footprint = Footprint(energy.ZERO, Span(1, 2, 3), Span(4, 5, 6), "modelled")
    assert energy.sci_per_thousand_ng(footprint, 500) == Span(10, 14, 18)
    assert energy.sci_per_thousand_ng(footprint, 0) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("region = 1", "region"),
        ("not toml", "energy coefficients"),
    ],
)
def test_refuses_a_file_by_its_name(tmp_path: Path, text: str, says: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says) as refused:
        energy.load(path)
    assert "mine.toml" in str(refused.value)


def test_refuses_a_value_outside_its_range_and_an_unknown_key(tmp_path: Path):
    shipped = (Path(__file__).parents[2] / "infra/energy/aws-us-east-1.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(shipped.replace('value = "1.14"', 'value = "1.4"'))
    with pytest.raises(SettingsError, match="not between"):
        energy.load(path)
    path.write_text(shipped.replace("region =", "colour = 1\nregion ="))
    with pytest.raises(SettingsError, match="colour"):
        energy.load(path)
    with pytest.raises(SettingsError, match=r"no energy coefficients for 'V100'; there are: T4"):
        energy.load().of_gpu("V100")
