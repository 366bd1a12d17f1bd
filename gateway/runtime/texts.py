"""Text to tokens: the one door to the `tokenizers` package, which belongs to the extra `text` and is imported with the first model.

A tokenizer.json is data, and is read as such: nothing is looked up on the network. Called by `gateway.runtime.model`, which builds
one for each model of text, and by the doors through `LoadedModel.texts`.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.contract.manifest import TOKENIZER_RESIDENT_RATIO_MAX, Manifest, TextInput
from gateway.errors import InvalidInput, UnsupportedModel
from gateway.runtime import memory
from gateway.runtime.parts import Ragged
from gateway.runtime.tensors import DTYPES, ELEMENTS_MAX, Array, Tensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_MAX = 100_000
"""Of one text: some 25,000 tokens, more than encoders take. At worst 0.2 s of a thread (`python -m tests.bench.text`): reading
goes on to the end of a text, since what is cut off is only known then."""

TEXTS_MAX = 4096
"""Of one request: each is a run, or a share of one, and thousands of them take minutes."""

LOOP_CHARACTERS_MAX, LOOP_CHARACTERS_PER_TEXT = 2048, 24
"""Of a request's texts together, that are read on the event loop: 0.4 ms of English there, 1.6 ms of the slowest script, each text
counting for so many more. What is longer is read in a thread."""

TOKENIZER_BYTES_MAX = 32 << 20
"""Those of XLM-R and of Llama 3 have 17 MB. What one takes in memory cannot be stopped once it is being built."""

_RESIDENT_RATIOS = {"WordPiece": 20, "BPE": 24}
"""Bytes in memory for each byte of tokenizer.json where the kind of model is known: see `TOKENIZER_RESIDENT_RATIO_MAX`."""

ENCODE_BYTES, ENCODE_BYTES_PER_CHARACTER = 1 << 16, 1024
"""What reading a text takes at most, until it is read; measured 50 to 460 a character."""

_PROBES = ("", "a b")


class Texts:
    """What reads the texts of one model. Any thread may use it."""

    def __init__(self, manifest: Manifest, text: TextInput, tokenizer: "Tokenizer", resident_bytes: int) -> None:
        self.text = text
        self.resident_bytes = resident_bytes
        self._tokenizer = tokenizer
        self._pad_id = _configure(tokenizer, text)
        inputs = {tensor.name: DTYPES[tensor.datatype] for tensor in manifest.signature.inputs}
        self._dtypes = {name: inputs[name] for name in text.tensors}

    def read(self, texts: Sequence[str], is_over: Callable[[], bool] = lambda: False) -> tuple[Tensors, Ragged] | None:
        """The tensors, padded to the longest of these texts, and how long each is. Raises `InvalidInput` naming the row.

        None when `is_over`, asked before each text, says that nobody waits any more.
        """
        ids, types = [], []
        longest = 0
        for row, text in enumerate(texts):
            if is_over():
                return None
            memory.require(ENCODE_BYTES + ENCODE_BYTES_PER_CHARACTER * len(text))
            found = self._encode(row, text)
            ids.append(np.array(found.ids, np.int64))
            if self.text.type_ids:
                types.append(np.array(found.type_ids, np.int64))
            longest = max(longest, len(found.ids))
            if len(texts) * longest > ELEMENTS_MAX:
                raise InvalidInput(
                    f"{len(texts)} texts as long as row {row}, of {longest} tokens, are too many at once; send fewer rows"
                )
        tensors = {self.text.ids: self._padded(self.text.ids, ids, longest, self._pad_id)}
        if self.text.mask:
            tensors[self.text.mask] = self._padded(self.text.mask, [np.ones_like(one) for one in ids], longest)
        if self.text.type_ids:
            tensors[self.text.type_ids] = self._padded(self.text.type_ids, types, longest)
        return tensors, Ragged(self.text.tensors, tuple(map(len, ids)))

    def check(self) -> None:
        """Raises what is better found out at the load than by every caller."""
        for found in self._tokenizer.encode_batch_fast(list(_PROBES)):
            if len(found.ids) > self.text.length_max:
                raise ValueError(
                    f"it makes {len(found.ids)} tokens of next to nothing; length_max is {self.text.length_max}"
                )

    def _encode(self, row: int, text: str) -> Any:  # Any: `tokenizers.Encoding`
        # A batch of one: without offsets, which take a third of the time, and without the interpreter's lock.
        try:
            [found] = self._tokenizer.encode_batch_fast([text])
        except TypeError:
            raise InvalidInput(f"row {row}, column '{self.text.column}': half of a surrogate pair is no text") from None
        except Exception:  # it raises bare ones; they may quote the text
            raise InvalidInput(
                f"row {row}, column '{self.text.column}': the model's tokenizer refuses this text"
            ) from None
        if not found.ids:
            raise InvalidInput(
                f"row {row}, column '{self.text.column}': the model's tokenizer finds no token in this text"
            )
        return found

    def _padded(self, name: str, rows: Sequence[Array], longest: int, pad: int = 0) -> Array:
        padded = np.full((len(rows), longest), pad, self._dtypes[name])
        for at, row in enumerate(rows):
            padded[at, : len(row)] = row
        return padded


def is_long(texts: Sequence[str]) -> bool:
    """Whether to read these in a thread. Raises `InvalidInput` when they are too many for one request."""
    if len(texts) > TEXTS_MAX:
        raise InvalidInput(
            f"the request has {len(texts)} texts; at most {TEXTS_MAX} are taken at once, send fewer rows"
        )
    return sum(map(len, texts)) + LOOP_CHARACTERS_PER_TEXT * len(texts) > LOOP_CHARACTERS_MAX


def require(manifest: Manifest) -> None:
    """Raises `UnsupportedModel` when a model of text can be seen, before anything of it is fetched, not to work here."""
    file = manifest.tokenizer
    if file is None:
        return
    if file.size > TOKENIZER_BYTES_MAX:
        raise UnsupportedModel(
            f"model '{manifest.model}': '{file.name}' is {file.size:,} bytes; a tokenizer has at most {TOKENIZER_BYTES_MAX:,}"
        )
    if importlib.util.find_spec("tokenizers") is None:
        raise UnsupportedModel(
            f"model '{manifest.model}' reads text: pip install 'steelyard[text]' where the gateway runs"
        )


def build(manifest: Manifest, path: Path) -> Texts:
    """From a verified file, in some 30 ms for a megabyte: not on the event loop. Raises `UnsupportedModel`."""
    text = manifest.text
    assert isinstance(text, TextInput)
    data = path.read_bytes()
    try:
        kind = json.loads(data)["model"].get("type", "")
        texts = Texts(
            manifest, text, _tokenizer(data), len(data) * _RESIDENT_RATIOS.get(kind, TOKENIZER_RESIDENT_RATIO_MAX)
        )
        texts.check()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UnsupportedModel(f"model '{manifest.model}': '{text.file}' is no tokenizer of use: {reason}") from None
    return texts


def _tokenizer(data: bytes) -> "Tokenizer":
    # Its own threads would work on nobody's bill, and not survive a fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer  # noqa: PLC0415 - 13 ms that a gateway without texts does not spend

    return Tokenizer.from_buffer(data)


def _configure(tokenizer: "Tokenizer", text: TextInput) -> int:
    """Cut at the model's length and do not pad; what a padded place holds."""
    padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
    if padding.get("direction", "right") != "right":
        raise ValueError("it pads on the left; publish one that pads on the right")
    tokenizer.no_padding()
    tokenizer.enable_truncation(text.length_max, direction=truncation.get("direction", "right"))
    return int(padding.get("pad_id", 0))
