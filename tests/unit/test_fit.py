"""Training a small synthetic job: the same twice, stopped in time, refused when nothing can be learned."""

import hashlib
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from tests.support.tinyjob import tiny_data, tiny_job, tiny_module
from trainers.course import Course
from trainers.errors import DataError, OutOfMemory, SpecError
from trainers.fit import device as places
from trainers.fit import loop as fitting
from trainers.fit.keeping import Unkept
from trainers.fit.loop import fit
from trainers.fit.world import World
from trainers.job import Data, Fit, Split, TrainJob


def silent(step: str, done: int, total: int, note: str = "") -> None: ...


def weight_hash(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(module.state_dict().items()):
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def changed(job: TrainJob, **fields: float) -> TrainJob:
    return msgspec.structs.replace(job, fit=msgspec.structs.replace(job.fit, **fields))


def with_targets(data: Data, targets: np.ndarray) -> Data:
    return msgspec.structs.replace(data, train=msgspec.structs.replace(data.train, targets=targets))


def test_same_seed_gives_the_same_weights_to_the_last_bit():
    first = fit(tiny_job(), tiny_data(), silent, "cpu")
    torch.rand(7)  # what others draw must not matter
    second = fit(tiny_job(), tiny_data(), silent, "cpu")
    assert weight_hash(first.module) == weight_hash(second.module)


def test_another_seed_gives_other_weights():
    first, second = (fit(tiny_job(seed=seed), tiny_data(), silent, "cpu") for seed in (0, 1))
    assert weight_hash(first.module) != weight_hash(second.module)


def test_training_leaves_the_callers_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tiny_job(), tiny_data(), silent, "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_the_module_learns_and_comes_back_in_eval_mode_on_the_cpu():
    fitted = fit(changed(tiny_job(), epochs=6), tiny_data(), silent, "cpu")
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss
    assert fitted.history[fitted.best].validation["roc_auc"] > 0.75
    assert (fitted.module.training, fitted.device) == (False, "cpu")


def test_fitted_weights_are_those_of_the_best_epoch():
    job, data = changed(tiny_job(), epochs=4), tiny_data()
    fitted = fit(job, data, silent, "cpu")
    rows = fitting.rows(data, data.validation, torch.device("cpu"))
    with torch.no_grad():
        probabilities = fitted.module(*rows.inputs).sigmoid().numpy()
    best = max(epoch.validation["roc_auc"] for epoch in fitted.history)
    assert tiny_job().objective.measure(data.validation.targets, probabilities)["roc_auc"] == pytest.approx(best)


def test_training_stops_when_validation_gets_worse():
    """The labels of the train split are the opposite of the truth, so each epoch is worse than the one before."""
    data = tiny_data()
    data = with_targets(data, 1 - data.train.targets)
    fitted = fit(changed(tiny_job(), epochs=50, patience=2), data, silent, "cpu")
    assert len(fitted.history) == fitted.best + 3


def test_each_epoch_sees_every_row_once_in_another_order():
    first, second = (fitting.order(3, epoch, 1000) for epoch in (0, 1))
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert torch.equal(first, fitting.order(3, 0, 1000))
    assert not torch.equal(first, second)


def test_strings_become_the_indices_of_the_exported_graph():
    data = tiny_data()
    rows = fitting.rows(data, data.test, torch.device("cpu"))
    texts, known = data.test.inputs["categories"][:, 0], data.vocabularies["carrier"]
    assert "ZZ" in texts
    assert rows.inputs[0][:, 0].tolist() == [known.index(text) + 1 if text in known else 0 for text in texts]


def test_progress_reaches_the_total():
    told: list[tuple[str, int, int]] = []
    fit(tiny_job(), tiny_data(), lambda step, done, total, note="": told.append((step, done, total)), "cpu")
    assert {step for step, _, _ in told} == {"fit"}
    assert told[-1][1] == told[-1][2]


def test_a_loss_that_is_not_finite_is_refused():
    data = tiny_data()
    data.train.inputs["numbers"][7, 0] = np.inf
    with pytest.raises(DataError, match=r"loss is nan in epoch 1"):
        fit(tiny_job(), data, silent, "cpu")


@pytest.mark.parametrize("target", [0, 1])
def test_one_class_is_refused_with_its_count(target):
    data = tiny_data()
    with pytest.raises(DataError, match=rf"train split needs both outcomes; {2400 * target} of 2400"):
        fit(tiny_job(), with_targets(data, np.full(2400, target, np.float32)), silent, "cpu")


def test_a_rare_class_keeps_its_rate():
    """No class weights: what happens once in fifty is predicted about once in fifty, or the probability would be no such thing."""
    data = tiny_data()
    splits = {name: _rare(getattr(data, name)) for name in ("train", "validation")}
    data = msgspec.structs.replace(data, **splits)
    fitted = fit(changed(tiny_job(), epochs=10), data, silent, "cpu")
    rows = fitting.rows(data, data.validation, torch.device("cpu"))
    with torch.no_grad():
        assert 0.01 < fitted.module(*rows.inputs).sigmoid().mean().item() < 0.04


def _rare(split: Split) -> Split:
    return msgspec.structs.replace(split, targets=(np.arange(split.rows) % 50 == 0).astype(np.float32))


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(SpecError, match=f"device '{device}' is not here"):
        fit(tiny_job(), tiny_data(), silent, device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_as_much():
    cpu, gpu = (fit(changed(tiny_job(), epochs=6), tiny_data(), silent, device) for device in ("cpu", "cuda"))
    assert gpu.device == torch.cuda.get_device_name()
    assert gpu.history[-1].validation["brier"] == pytest.approx(cpu.history[-1].validation["brier"], abs=0.02)


def test_module_is_built_under_the_seed():
    def recording(data: Data) -> torch.nn.Module:
        built.append(tiny_module(data))
        return built[-1]

    built: list[torch.nn.Module] = []
    job = msgspec.structs.replace(changed(tiny_job(), learning_rate=0.0), module=recording)
    fit(job, tiny_data(), silent, "cpu")
    fit(job, tiny_data(), silent, "cpu")
    assert weight_hash(built[0]) == weight_hash(built[1])


class Shaken(torch.nn.Module):
    """Augments with noise of numpy and of Python."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        if self.training:
            numbers = numbers * float(np.random.uniform(0.9, 1.1)) + random.random()
        logits: torch.Tensor = self.inner(categories, numbers)
        return logits


def test_noise_of_numpy_and_python_comes_from_the_seed_too_and_the_callers_is_left_alone():
    job = msgspec.structs.replace(tiny_job(), module=lambda data: Shaken(tiny_module(data)))
    np.random.seed(1)
    random.seed(1)
    first = fit(job, tiny_data(), silent, "cpu")
    drawn = np.random.random(), random.random()
    second = fit(job, tiny_data(), silent, "cpu")
    assert weight_hash(first.module) == weight_hash(second.module)
    np.random.seed(1)
    random.seed(1)
    assert drawn == (np.random.random(), random.random())


class Tied(torch.nn.Module):
    """Two layers with one weight, one of them transposed in memory, as a language model's embedding and its head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.last = torch.nn.Linear(3, 1)
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)

    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.second(self.first(torch.nan_to_num(numbers) / 1000)))
        return logits.squeeze(1)


def test_tied_weights_and_turned_buffers_survive_the_way_to_the_next_stage(tmp_path: Path):
    job = msgspec.structs.replace(tiny_job(), module=lambda data: Tied())
    course = Course(job, tiny_data(), silent)
    course.fit(tmp_path, Unkept(), World(), "cpu")
    module = course.fitted(tmp_path).module
    assert module.first.weight is module.second.weight
    assert weight_hash(module) == weight_hash(fit(job, tiny_data(), silent, "cpu").module)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SpecError, match=r"process 3 has no GPU: this machine has 2; start at most 2"):
        places.choose("cuda")


def test_a_module_without_parameters_is_refused():
    class Fixed(torch.nn.Module):
        def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
            return numbers[:, 0]

    job = msgspec.structs.replace(tiny_job(), module=lambda data: Fixed())
    with pytest.raises(SpecError, match="has no parameters, so there is nothing to train"):
        fit(job, tiny_data(), silent, "cpu")


def test_a_lack_of_memory_says_how_much_was_used_and_what_to_do():
    class Greedy(torch.nn.Linear):
        def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1 << 50) + numbers.sum()

    job = msgspec.structs.replace(tiny_job(), module=lambda data: Greedy(3, 1))
    with pytest.raises(
        OutOfMemory, match=r"out of memory with batches of 256 rows, after .* GiB; lower the recipe's batch_rows"
    ):
        fit(job, tiny_data(), silent, "cpu")


def test_a_recipe_may_bring_its_own_schedule():
    steps: list[int] = []

    def constant(step: int, total: int, fit: Fit) -> float:
        steps.append(step)
        return 0.0

    job = tiny_job()
    job = msgspec.structs.replace(job, fit=msgspec.structs.replace(job.fit, schedule=constant))
    fitted = fit(job, tiny_data(), silent, "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert weight_hash(fitted.module) == weight_hash(tiny_module(tiny_data()))
    assert max(steps) == 20
