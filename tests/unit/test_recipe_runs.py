"""Images, series of any length and texts through every stage of a run, and what each network promises about padding."""

import asyncio
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from gateway.contract import codec, layout
from gateway.contract.manifest import UNSET, Examples, File, Manifest
from gateway.objectstore.opening import open_store
from tests.support import smalljobs
from trainers.job import TrainJob
from trainers.recipes import texts
from trainers.recipes.appliances_module import AppliancesModule
from trainers.run import Run, run

JOBS = {"images": smalljobs.image_job, "series": smalljobs.series_job, "texts": smalljobs.text_job}


def silent(step: str, done: int, total: int, note: str = "") -> None:
    pass


def published(job: TrainJob, folder: Path) -> Manifest:
    spec = Run(recipe="small", run_id="first", folder=folder / "run", actor="anna")

    async def trained() -> Manifest:
        store = open_store(str(folder / "store"), create=True)
        try:
            return (await run(job, spec, store, silent)).manifest
        finally:
            await store.aclose()

    return asyncio.run(trained())


@pytest.fixture(scope="module", params=list(JOBS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainJob, Path, Manifest]:
    job, folder = JOBS[request.param](), tmp_path_factory.mktemp(request.param)
    return job, folder, published(job, folder)


def stored(folder: Path, manifest: Manifest, file: File) -> bytes:
    return asyncio.run(open_store(str(folder / "store")).get(layout.blob(manifest.model, file.sha256))).body


def test_the_run_learns_and_publishes(made):
    job, _, manifest = made
    served = next(e for e in manifest.evaluations if e.subject == manifest.serve)
    assert manifest.model == job.model
    assert manifest.labels == smalljobs.LABELS
    assert served.metrics["accuracy"] > 0.9
    assert served.gains["accuracy"][0] > 0


def test_every_variant_answers_as_the_signature_says(made):
    job, folder, manifest = made
    data = job.load()
    for variant in manifest.variants:
        session = ort.InferenceSession(stored(folder, manifest, manifest.file(variant.file)))
        (answers,) = session.run(None, dict(data.test.thinned(5).inputs))
        assert answers.shape == (5, 3)
        assert answers.sum(axis=1) == pytest.approx(1, abs=1e-4)


def test_examples_are_rows_of_the_input_that_a_client_sends(made):
    job, folder, manifest = made
    (file,) = [file for file in manifest.files if file.role == "examples"]
    rows = codec.decode(stored(folder, manifest, file), Examples).rows
    names = {"texts": {"text"}}.get(job.model) or {tensor.name for tensor in manifest.signature.inputs}
    assert all(set(row) == names for row in rows)


def test_only_a_model_of_texts_says_how_they_become_tokens(made):
    job, folder, manifest = made
    if job.model != "texts":
        assert manifest.text is UNSET
        return
    assert manifest.text == job.load().text
    (file,) = [file for file in manifest.files if file.role == "tokenizer"]
    assert stored(folder, manifest, file) == smalljobs.tokenizer_json()


@pytest.fixture
def text_network() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    data = smalljobs.text_data()
    torch.manual_seed(0)
    inputs = {name: torch.from_numpy(values) for name, values in data.test.inputs.items()}
    return smalljobs.text_module(data).eval(), inputs


def test_padding_does_not_change_what_a_text_means(text_network):
    network, inputs = text_network
    torch.nn.init.normal_(network.head.words.weight[1:])
    with torch.no_grad():
        together = network(*inputs.values())
        for row in range(5):
            length = int(inputs["attention_mask"][row].sum())
            alone = network(*(values[row : row + 1, :length] for values in inputs.values()))
            assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_what_stands_where_a_text_is_over_is_not_read(text_network):
    network, inputs = text_network
    torch.nn.init.normal_(network.head.words.weight[1:])
    ids, mask = inputs.values()
    other = ids.where(mask != 0, 9)
    with torch.no_grad():
        assert torch.equal(network(ids, mask), network(other, mask))


def test_a_text_of_padding_alone_has_an_answer(text_network):
    network, _ = text_network
    with torch.no_grad():
        assert network(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64)).isfinite().all()


def test_the_frozen_encoder_keeps_its_weights_and_the_head_learns():
    from trainers.fit import loop

    job = smalljobs.text_job()
    data = job.load()
    fitted = loop.fit(job, data, silent, "cpu").module
    with torch.random.fork_rng():
        torch.manual_seed(job.fit.seed)
        fresh = smalljobs.text_module(data)
    assert not any(parameter.requires_grad for parameter in fitted.encoder.parameters())
    assert fitted.head.words.weight.abs().max() > fresh.head.words.weight.abs().max() == 0


@pytest.fixture
def series_network() -> tuple[AppliancesModule, torch.Tensor]:
    data = smalljobs.series_data()
    torch.manual_seed(0)
    return AppliancesModule(data).eval(), torch.from_numpy(data.test.inputs["samples"])


def test_how_long_a_tensor_goes_on_after_a_series_changes_nothing(series_network):
    network, samples = series_network
    longer = torch.cat([samples, torch.full((len(samples), 30), torch.nan)], dim=1)
    with torch.no_grad():
        answers = network(samples)
        assert torch.allclose(answers, network(longer), atol=1e-5)
        length = int((~samples[0].isnan()).sum())
        assert torch.allclose(answers[:1], network(samples[:1, :length]), atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_series_of_next_to_nothing_has_an_answer(series_network, length):
    network, samples = series_network
    few = samples[:3, :8].clone()
    few[:, length:] = torch.nan
    with torch.no_grad():
        assert network(few).isfinite().all()


def test_training_sees_other_stretches_of_a_series_each_time(series_network):
    from trainers.recipes import appliances_module

    channels = torch.arange(500.0).repeat(64, 3, 1)
    torch.manual_seed(0)
    seen = appliances_module._stretch(channels, torch.full((64, 1), 300.0))
    starts = seen[:, 0, 0]
    assert seen.shape == (64, 3, appliances_module.STRETCH)
    assert len(set(starts.tolist())) > 20
    assert (seen[:, 0, -1] < 300).all()


def test_tokens_end_where_the_mask_does():
    read = texts.tokens(["ball goal", "the " * 100], smalljobs.tokenizer_json(), 8)
    assert read["attention_mask"].sum(axis=1).tolist() == [4, 8]
    assert read["input_ids"][0, 4:].tolist() == [0] * 4
    assert read["input_ids"].dtype == np.int64
