"""The tiny job as it goes wrong in real life: somebody joined the labels to the wrong rows. Trained well, good for nothing."""

import msgspec
import numpy as np

from tests.support.tinyjob import tiny_data, tiny_job
from trainers.job import Data, Split, TrainJob


def shuffled_job() -> TrainJob:
    return msgspec.structs.replace(tiny_job(), load=shuffled_data)


def shuffled_data() -> Data:
    data = tiny_data()
    targets = np.random.default_rng(0).permutation(data.train.targets)
    return msgspec.structs.replace(data, train=Split(data.train.inputs, targets))
