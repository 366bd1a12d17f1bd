"""The figures a variant is chosen by: paired accuracy, calibration, ratios, cold loads, prices; the front and its picture."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import codec, prices
from gateway.contract.manifest import Gate, Latency, Manifest, Ratio, Tradeoff
from tests.support import models
from trainers.errors import ExportError, SpecError
from trainers.evaluate import coldload, host, paired, pareto, paretoplot, pricing, timing


def test_the_same_answers_lose_nothing():
    targets = np.arange(100) % 3
    assert paired.accuracy_loss_bound(targets, targets, targets) == 0
    assert paired.accuracy_loss_bound(targets, targets[::-1], targets[::-1]) == 0


def test_the_bound_is_above_the_loss_and_closes_in_with_rows():
    """2 % of labels become wrong, 1 % become right: one point is lost, and how surely depends on the rows."""
    bounds = []
    for rows in (1000, 100_000):
        targets = np.zeros(rows, np.int64)
        reference, own = targets.copy(), targets.copy()
        own[: rows // 50] = 1
        reference[-rows // 100 :] = 1
        bounds.append(paired.accuracy_loss_bound(targets, reference, own))
    assert bounds[0] > bounds[1] > 0.01
    assert bounds[1] == pytest.approx(0.01 + 1.645 * np.sqrt(0.03 / 100_000), rel=0.02)


def test_more_right_answers_are_no_loss():
    targets = np.zeros(1000, np.int64)
    worse = targets.copy()
    worse[:100] = 1
    assert paired.accuracy_loss_bound(targets, worse, targets) < -0.05


def test_calibration_error_is_what_confidence_and_truth_differ_by():
    targets = np.array([1] * 7 + [0] * 3)
    assert paired.calibration_error(targets, np.full(10, 0.7)) == pytest.approx(0)
    assert paired.calibration_error(targets, np.full(10, 0.9)) == pytest.approx(0.2)
    assert paired.calibration_error(targets, np.full(10, 1.0)) == pytest.approx(0.3)
    several = np.array([[0.9, 0.1, 0.0]] * 10)
    assert paired.calibration_error(np.array([0] * 8 + [1, 2]), several) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=50))
def test_calibration_error_is_a_share(rows: list[tuple[int, float]]):
    targets, answers = np.array([t for t, _ in rows]), np.array([a for _, a in rows])
    assert 0 <= paired.calibration_error(targets, answers) <= 1


def cell(ns: float, *, rows: int = 1, spread: float = 0.05, second: float | None = None, seed: int = 0) -> timing.Cell:
    """Runs around `ns`, in two passes; the second may be around something else."""
    rng = np.random.default_rng(seed)
    passes = tuple(np.asarray(around * rng.lognormal(0, spread, 150)).astype(np.int64) for around in (ns, second or ns))
    return timing.Cell(batch_rows=rows, length=1, wall_ns=passes, cpu_ns=tuple(taken * 9 // 10 for taken in passes))


def test_a_ratio_comes_with_an_interval_that_holds_it():
    timed = timing.timed([cell(6e5, seed=1)], [cell(1e6)], {1: 1.0})
    assert timed.ratio.low < timed.ratio.median < timed.ratio.high
    assert timed.ratio.median == pytest.approx(0.6, rel=0.03)
    assert timed.ratio.high - timed.ratio.low < 0.05
    assert timed.latency[0].ratio is not None
    assert timed.latency[0].ratio.median == pytest.approx(timed.ratio.median)
    assert timed.row_cpu_ns == pytest.approx(0.9 * timed.row_ns, rel=0.01)
    assert timed.latency[0].p50_ns == pytest.approx(6e5, rel=0.03)
    assert not timed.is_noisy


def test_the_reference_has_no_ratio_to_itself():
    own = [cell(1e6)]
    timed = timing.timed(own, own, {1: 1.0})
    assert timed.ratio == Ratio(1.0, 1.0, 1.0)
    assert timed.latency[0].ratio is None


def test_equal_graphs_are_not_told_apart():
    timed = timing.timed([cell(1e6, spread=0.3, seed=1)], [cell(1e6, spread=0.3, seed=2)], {1: 1.0})
    assert timed.ratio.low < 1 < timed.ratio.high


def test_passes_that_disagree_are_noisy():
    assert timing.timed([cell(6e5, second=9e5, seed=1)], [cell(1e6)], {1: 1.0}).is_noisy
    both = timing.timed([cell(6e5, second=9e5, seed=1)], [cell(1e6, second=1.5e6)], {1: 1.0})
    assert not both.is_noisy  # the machine slowed down for both


def test_batches_count_by_their_weight_in_the_mix():
    own = [cell(1e6, spread=0), cell(8e5, rows=8, spread=0)]
    reference = [cell(1e6, spread=0), cell(16e5, rows=8, spread=0)]
    assert timing.timed(own, reference, {1: 1.0, 8: 1.0}).ratio.median == pytest.approx(1.1 / 1.2, rel=1e-3)
    assert timing.timed(own, reference, {1: 1.0, 8: 9.0}).ratio.median == pytest.approx(1.9 / 2.8, rel=1e-3)
    assert timing.timed(own, reference, {1: 3.0, 8: 1.0}).row_ns == pytest.approx((3e6 + 1e5) / 4, rel=1e-3)


def test_a_load_is_timed_in_processes_of_its_own(tmp_path: Path):
    openings = {}
    for name, hidden in (("small", 64), ("large", 4096)):
        (tmp_path / f"{name}.onnx").write_bytes(models.mlp_graph(256, hidden, 256))
        openings[name] = coldload.Opening(str(tmp_path / f"{name}.onnx"), "", only_rows_vary=True)
    loads = coldload.measure(openings)
    assert list(loads) == ["small", "large"]
    assert 0 < loads["small"] < loads["large"]


def test_a_file_that_cannot_be_loaded_is_said_to(tmp_path: Path):
    with pytest.raises(ExportError, match="cannot be loaded in a process of its own"):
        coldload.measure({"none": coldload.Opening(str(tmp_path / "none.onnx"), "", only_rows_vary=True)})


def test_a_thousand_rows_cost_their_cpu_at_the_platforms_price():
    book = prices.load()
    rate = book.price(book.platform("fargate-x86").vcpu_sku)
    assert rate is not None
    expected = float(rate.usd) / 3600 * 0.002 * 1000 * 1e12  # 2 ms of a vCPU, a thousand times
    assert pricing.thousand_picousd(book, "fargate-x86", 2e6) == pytest.approx(expected, rel=1e-6)


def test_an_unknown_platform_is_refused_with_those_there_are():
    with pytest.raises(SpecError, match="no platform 'mainframe'; it has: fargate-x86"):
        pricing.thousand_picousd(prices.load(), "mainframe", 1.0)


@given(st.dictionaries(st.text(max_size=3), st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8))
def test_the_front_is_never_empty_and_everybody_else_is_beaten_by_it(figures: dict[str, tuple[int, ...]]):
    front = pareto.front(figures)
    assert front
    for name in figures.keys() - front:
        assert any(pareto._dominates(figures[other], figures[name]) for other in front)
    for name in front:
        assert not any(pareto._dominates(other, figures[name]) for other in figures.values())


def test_flags_are_read_as_linux_writes_them(tmp_path: Path):
    for text, expected in (
        ("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n", {"fpu", "avx2", "avx512_vnni"}),
        ("Features : fp asimd asimddp\n", {"fp", "asimd", "asimddp"}),
        ("", set()),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        assert host.cpu_flags(tmp_path / "cpuinfo") == expected
    assert host.cpu_flags(tmp_path / "none") == frozenset()


def traded() -> Manifest:
    """fp32, a cheap int8 that is served, one that fails a gate."""
    graphs = {"fp32": models.mlp_graph(), "int8": models.mlp_graph(hidden=16), "bad": models.mlp_graph(hidden=32)}
    manifest, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, graphs)
    variants = []
    for variant, median in zip(manifest.variants, (1.0, 0.5, 0.4), strict=True):
        ratio = Ratio(median, median * 0.97, median * 1.02) if median < 1 else Ratio(1, 1, 1)
        line = Tradeoff(
            row_ns=20_000 * median,
            row_cpu_ns=19_000 * median,
            thousand_picousd=round(227_000 * median),
            ratio=ratio,
            is_pareto=variant.id == "int8",
        )
        variants.append(msgspec.structs.replace(variant, tradeoff=line))
    failed = Gate(name="nan", variant="bad", passed=False, measured=1, limit=0)
    return msgspec.structs.replace(manifest, variants=tuple(variants), serve="int8", gates=(*manifest.gates, failed))


def test_the_table_of_trade_offs_survives_the_manifest():
    manifest = traded()
    assert codec.decode(codec.encode(manifest), Manifest) == manifest
    plain, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": models.mlp_graph()})
    for word in (b"tradeoff", b"skipped", b"ratio"):
        assert word in codec.encode(msgspec.structs.replace(manifest, skipped={"gather": "nothing"})) or word == b""
        assert word not in codec.encode(plain)  # as manifests of before were written


def test_the_picture_is_the_same_bytes_every_time():
    image = paretoplot.draw(traded())
    assert image is not None
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert image == paretoplot.draw(traded())
    assert image != paretoplot.draw(msgspec.structs.replace(traded(), serve="fp32"))


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=8))
def test_no_name_lies_on_another(places: list[tuple[float, float]]):
    heights = paretoplot.names_y(places, 10, 10)
    names = [(x, height) for (x, _), height in zip(places, heights, strict=True)]
    for index, (x, y) in enumerate(names):
        for other_x, other_y in names[:index]:
            is_beside = abs(x - other_x) >= paretoplot.NAME_WIDTH * 10
            assert is_beside or abs(y - other_y) >= paretoplot.NAME_HEIGHT * 10 * 0.999


def test_a_manifest_without_trade_offs_has_no_picture():
    plain, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": models.mlp_graph()})
    assert paretoplot.draw(plain) is None


def test_old_latencies_are_read_without_a_ratio():
    assert msgspec.json.encode(Latency(1, 2, 3, 4)) == b'{"batch_rows":1,"p50_ns":2,"p99_ns":3,"runs":4}'
