"""Which appliance draws this current? 1,074 recordings of 11 kinds of appliances in 56 households, of 100 to 1,344 samples each.

Data: PLAID, the Plug Load Appliance Identification Dataset of Gao et al., 2014, edited by Schaefer and Leser, from
`sktime/datasets/data/PLAID` in the package sktime 1.2.0 (BSD-3-Clause); sha256 of the files 40deb3bc6bd1... and
aa6da0dc1461..., in the manifest whole. The data's own division into training and test is kept, but for the training rows that the
test has too.

The series go in as they are, of any length, and not as a window of a fixed one: what tells appliances apart is the shape of a
period, which is five samples long, and the start, which is somewhere; both survive pooling over all of it.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gateway.contract import codec
from gateway.contract.manifest import Cell, Column, DataSource, Examples, Signature, Tensor
from trainers import metrics, objectives
from trainers.arrays import Array
from trainers.errors import DataError
from trainers.job import Baseline, Data, Fit, Split, Target, TrainJob
from trainers.objectives import Objective
from trainers.recipes import packaged, splitting
from trainers.recipes.appliances_module import AppliancesModule

PACKAGE, FOLDER = "sktime", "sktime/datasets/data/PLAID"
FILES = ("PLAID_TRAIN.ts", "PLAID_TEST.ts")
LABELS = (
    "air conditioner",
    "compact fluorescent lamp",
    "fan",
    "fridge",
    "hairdryer",
    "heater",
    "incandescent light bulb",
    "laptop",
    "microwave",
    "vacuum",
    "washing machine",
)
VALIDATION_SHARE = 0.15
EXAMPLE_ROWS = 12
SPECTRUM = 512
"""Samples that the baseline's spectrum is made of: 95 % of the series have fewer."""

ITERATIONS_MAX = 5000


def appliances() -> TrainJob:
    """Time series: a 1-D convolutional network over recordings of any length against logistic regression on their spectrum."""
    return TrainJob(
        model="appliances",
        description="Which kind of appliance is it that draws this current?",
        objective=_objective(),
        load=load,
        module=AppliancesModule,
        fit=Fit(
            epochs=80,
            batch_rows=32,
            learning_rate=3e-3,
            weight_decay=0.05,
            patience=80,
            warmup_steps=100,
            average_decay=0.98,
        ),
        baseline=Baseline("logistic-spectrum", _baseline),
        target=Target(mix={1: 3.0, 8: 1.0}),
        lengths=(1, 100, 333),
    )


def _objective() -> Objective:
    """The validation rows are 80: the best of so many epochs by accuracy is the luckiest, by log loss it is a good one."""
    usual = objectives.multiclass(len(LABELS), smoothing=0.05)
    return msgspec.structs.replace(usual, metrics=(metrics.LOG_LOSS, metrics.ACCURACY, metrics.MACRO_F1))


def load() -> Data:
    """The data's own training rows, 15 % of each kind for validation, and its own test rows. Shorter series end in NaN.

    Raises `DataError` when the data is not installed or not what it should be.
    """
    contents = [packaged.read(PACKAGE, f"{FOLDER}/{file}") for file in FILES]
    (series, kinds), (test_series, test_kinds) = (parsed(content.decode()) for content in contents)
    tested = {values.tobytes() for values in test_series}
    fresh = np.array([values.tobytes() not in tested for values in series])
    length = max(map(len, (*series, *test_series)))
    samples, test_samples = padded(series, length)[fresh], padded(test_series, length)
    kept, stopping = splitting.stratified(kinds[fresh], (1 - VALIDATION_SHARE, VALIDATION_SHARE))
    return Data(
        train=Split({"samples": samples[kept]}, kinds[fresh][kept]),
        validation=Split({"samples": samples[stopping]}, kinds[fresh][stopping]),
        test=Split({"samples": test_samples}, test_kinds),
        sources=tuple(
            DataSource(f"{PACKAGE}/{file}", codec.sha256(content), rows)
            for file, content, rows in zip(FILES, contents, (len(series), len(test_series)), strict=True)
        ),
        examples=_examples(test_series, test_kinds),
        signature=_signature(),
        split="the data's own, without training rows that the test has too; 15 % of each kind in training to stop",
        labels=LABELS,
    )


def parsed(text: str) -> tuple[list[Array], Array]:
    """A `.ts` file as float32 series and their kinds int64 [rows]. Raises `DataError` naming the line it cannot read."""
    series, kinds = [], []
    is_data = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not is_data:
            is_data = line.strip().lower() == "@data"
            continue
        values, _, kind = line.rpartition(":")
        try:
            series.append(np.array(values.split(","), np.float32))
            kinds.append(int(kind))
        except ValueError as error:
            raise DataError(f"line {number} of the series cannot be read: {error}") from error
        if not 0 <= kinds[-1] < len(LABELS) or not np.isfinite(series[-1]).all():
            raise DataError(f"line {number} of the series has kind {kinds[-1]} or a value that is not finite")
    if not series:
        raise DataError("the file of series has no rows after '@data'")
    return series, np.array(kinds, np.int64)


def padded(series: Sequence[Array], length: int) -> Array:
    """Float32 [rows, length], NaN after the end of each."""
    made = np.full((len(series), length), np.nan, np.float32)
    for row, values in zip(made, series, strict=True):
        row[: len(values)] = values[:length]
    return made


def _signature() -> Signature:
    probabilities = tuple(Column(label, "number", f"probability of this being a {label}", "", 0, 1) for label in LABELS)
    return Signature(
        inputs=(Tensor("samples", "FP32", ("batch", "length")),),
        outputs=(Tensor("probabilities", "FP32", ("batch", len(LABELS)), probabilities),),
    )


def _examples(series: Sequence[Array], kinds: Array) -> Examples:
    """Of one length, as rows of one request have to be: the most usual one."""
    lengths = [len(values) for values in series]
    usual = max(set(lengths), key=lengths.count)
    rows = [row for row, length in enumerate(lengths) if length == usual]
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, EXAMPLE_ROWS).astype(int)]
    return Examples(tuple(_row(series[row]) for row in chosen), tuple(LABELS[kinds[row]] for row in chosen))


def _row(values: Array) -> dict[str, Cell]:
    return {"samples": [float(str(value)) for value in values]}


def _baseline(data: Data) -> Array:
    """Logistic regression on the logarithm of the spectrum, the mean, the spread and the length."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS_MAX, C=1.0))
    model.fit(spectra(data.train.inputs["samples"]), data.train.targets)
    answers: Array = model.predict_proba(spectra(data.test.inputs["samples"]))
    return answers


def spectra(samples: Array) -> Array:
    """Float64 [rows, features] of series that end in NaN."""
    made = []
    for row in samples:
        values = row[~np.isnan(row)].astype(np.float64)
        mean, std = values.mean(), values.std()
        spectrum = np.abs(np.fft.rfft((values - mean)[:SPECTRUM], SPECTRUM)) / len(values)
        made.append([*np.log(spectrum + 1e-4), np.log(std + 1e-4), np.log(abs(mean) + 1e-4), np.log(len(values))])
    return np.array(made)
