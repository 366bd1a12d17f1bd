"""Labelled texts: read from a file, cleaned of repetitions, and turned into the tokens that a graph takes.

What turns text into tokens is a `tokenizer.json` of Hugging Face's `tokenizers`, which is data and goes into the artifact: the
gateway reads the same texts with the same file.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from trainers.arrays import Array
from trainers.errors import DataError

TOKENIZER = "tokenizer.json"
HEADER_LINES = 3
"""Of an Orange `.tab` file: names, types and roles of the columns."""

LABEL_ROWS_MIN = 10
"""Fewer of a label cannot be split three ways."""


class Texts(msgspec.Struct, frozen=True):
    """`labels[i]` is what `texts[i]` is about."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def picked(self, rows: Array) -> "Texts":
        return Texts(tuple(self.texts[row] for row in rows), tuple(self.labels[row] for row in rows))

    def without(self, others: "Texts") -> "Texts":
        """Each text once, and none that `others` has."""
        first = {text: row for row, text in reversed(list(enumerate(self.texts)))}
        return self.picked(np.array(sorted(first[text] for text in first.keys() - set(others.texts)), np.int64))


NONE = Texts((), ())


def from_tab(content: bytes) -> Texts:
    """Lines of a label, a tab and a text, after a header. Raises `DataError` naming the line it cannot read."""
    texts, labels = [], []
    for number, line in enumerate(content.decode().split("\n"), start=1):
        if number <= HEADER_LINES or not line:
            continue
        label, tab, text = line.partition("\t")
        if not (label and tab and text.strip()):
            raise DataError(f"line {number} of the texts has no label or no text")
        texts.append(text)
        labels.append(label)
    return Texts(tuple(texts), tuple(labels))


def from_csv(content: bytes, name: str) -> Texts:
    """The columns `text` and `label` of a CSV file with a header. Raises `DataError` naming what is missing, and where."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        missing = {"text", "label"} - set(reader.fieldnames or ())
        if missing:
            there_are = ", ".join(reader.fieldnames or ()) or "none"
            raise DataError(f"{name} has no column {' and no '.join(sorted(missing))}; its columns are: {there_are}")
        rows = [(row["text"] or "", row["label"] or "") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} is not a CSV file in UTF-8: {error}") from error
    for number, (text, label) in enumerate(rows, start=1):
        if not text.strip() or not label.strip():
            raise DataError(f"row {number} of {name} has no {'label' if text.strip() else 'text'}")
    counts = Counter(label for _, label in rows)
    if len(counts) < 2:
        raise DataError(f"{name} needs at least two labels; it has {len(counts)} in {len(rows)} rows")
    rare = sorted(label for label, count in counts.items() if count < LABEL_ROWS_MIN)
    if rare:
        raise DataError(f"{name} has fewer than {LABEL_ROWS_MIN} rows of: {', '.join(rare)}")
    return Texts(tuple(text for text, _ in rows), tuple(label for _, label in rows))


def of_letters_only(tokenizer: bytes) -> bytes:
    """The same tokenizer for texts whose training data had lost everything but letters, so that it reads others alike."""
    settings = msgspec.json.decode(tokenizer)
    others = {"type": "Replace", "pattern": {"Regex": r"[^\p{L}]+"}, "content": " "}
    normalizers = [settings["normalizer"], others] if settings.get("normalizer") else [others]
    settings["normalizer"] = {"type": "Sequence", "normalizers": normalizers}
    return msgspec.json.encode(settings)


def without_limits(tokenizer: bytes) -> bytes:
    """The same tokenizer without the truncation and padding that some ship with: how long a text may be, the manifest says."""
    return msgspec.json.encode(msgspec.json.decode(tokenizer) | {"truncation": None, "padding": None})


def tokens(texts: Sequence[str], tokenizer: bytes, length_max: int) -> dict[str, Array]:
    """`input_ids` and `attention_mask`, int64 [texts, length_max], the mask 0 where a text is over."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_buffer(tokenizer)
    reader.enable_truncation(length_max)
    ids = np.zeros((len(texts), length_max), np.int64)
    mask = np.zeros_like(ids)
    for row, encoding in enumerate(reader.encode_batch(list(texts))):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask}
