"""Which variant a host runs, and what a session refuses to be built from."""

from pathlib import Path

import msgspec
import pytest

from gateway.contract.manifest import Gate, Manifest
from gateway.errors import UnsupportedModel
from gateway.runtime.session import Session, cpu_flags, pick_variant
from tests.support import models


def manifest_of(*variants: str) -> Manifest:
    graphs = {name: models.tiny_graph(number) for number, name in enumerate(variants)}
    manifest, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, graphs)
    return manifest


def requiring(manifest: Manifest, **requires: tuple[str, ...]) -> Manifest:
    return msgspec.structs.replace(
        manifest,
        variants=tuple(
            msgspec.structs.replace(variant, requires=requires.get(variant.id, ())) for variant in manifest.variants
        ),
    )


def test_the_variant_the_manifest_serves_is_preferred() -> None:
    manifest = msgspec.structs.replace(manifest_of("fp32", "int8"), serve="int8")
    assert pick_variant(manifest, frozenset()).id == "int8"


def test_a_host_without_the_flags_takes_another_variant() -> None:
    manifest = requiring(msgspec.structs.replace(manifest_of("fp32", "int8"), serve="int8"), int8=("avx512_vnni",))
    assert pick_variant(manifest, frozenset({"avx512_vnni"})).id == "int8"
    assert pick_variant(manifest, frozenset({"avx2"})).id == "fp32"


def test_a_variant_that_failed_a_gate_is_never_the_fallback() -> None:
    manifest = requiring(msgspec.structs.replace(manifest_of("int8", "fp32"), serve="fp32"), fp32=("avx2",))
    assert pick_variant(manifest, frozenset()).id == "int8"
    failed = msgspec.structs.replace(manifest, gates=(Gate("drift", "int8", False, 1.0, 0.1),))
    with pytest.raises(UnsupportedModel, match=r"no variant runs on this .* CPU: fp32 needs avx2"):
        pick_variant(failed, frozenset())


def test_cpu_flags_are_read_by_flag_not_by_family(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : Xeon\nflags\t\t: fpu avx2 avx512_vnni\n\nflags : fpu\n")
    assert cpu_flags(cpuinfo) == {"fpu", "avx2", "avx512_vnni"}
    assert cpu_flags(tmp_path / "none") == frozenset()


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x80\x04pickle", b"\x00" * 1000])
def test_bytes_that_are_no_graph_are_refused_with_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(UnsupportedModel, match=r"onnxruntime refuses 'model\.onnx'"):
        Session(path, manifest_of("fp32"))


def test_a_graph_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.mlp_graph())
    with pytest.raises(UnsupportedModel, match=r"the graph's inputs are .*features.* declares .*categories"):
        Session(path, manifest_of("fp32"))
