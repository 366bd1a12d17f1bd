"""`steelyard sign`, `models download` and `models show` as people use them, and OpenSSF's own command on what they leave."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.models import models as models_command
from gateway.contract import codec, layout
from gateway.contract.manifest import Manifest
from gateway.errors import DigestMismatch, InvalidInput, ManifestInvalid, ModelNotFound, SettingsError, SignatureInvalid
from gateway.objectstore.local import LocalStore
from gateway.registry.reading import Registry
from tests.support import models, signingkeys
from tests.support.signingkeys import KeyFiles
from trainers.countersign import sign as sign_command


@pytest.fixture
def key(tmp_path: Path) -> KeyFiles:
    return signingkeys.make(tmp_path, "sign")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with `tiny@1`, unsigned, its champion."""
    return models.tiny_store(tmp_path / "store")


def steelyard_models(root: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(models_command, [*map(str, arguments), "--store", str(root)])


def said(root: Path, *arguments: str | Path) -> str:
    result = steelyard_models(root, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def sign(root: Path, key: KeyFiles, version: str = "1", name: str = "tiny") -> Result:
    return CliRunner().invoke(sign_command, [name, version, "--key", str(key.private), "--store", str(root)])


def openssf_verify(folder: Path, signature: Path, key: KeyFiles) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(signature), "--public_key", str(key.public)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def blob(root: Path, name: str) -> Path:
    async def find() -> Path:
        registry = Registry(LocalStore(root))
        _, sha256 = await registry.resolve("tiny")
        return root / layout.blob("tiny", (await registry.manifest("tiny", sha256)).file(name).sha256)

    return asyncio.run(find())


def test_openssf_verifies_what_was_signed_here_and_downloaded(root: Path, key: KeyFiles, tmp_path: Path) -> None:
    assert sign(root, key).output == f"tiny@1 is now signed by key {key.signer.key_id}\n"
    folder = tmp_path / "new" / "tiny"
    out = said(root, "download", "tiny", folder, "--public-key", key.public).splitlines()
    signature = folder.with_name(f"tiny.{key.signer.key_id}.sig")
    assert re.fullmatch(
        rf"tiny@1 is in {folder}: 2 files, [\d,]+ bytes; signed by {key.signer.key_id} \(verified\)", out[0]
    )
    assert out[1:] == [f"signature: {signature}"]

    done = openssf_verify(folder, signature, key)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr

    (folder / "examples.json").write_bytes(b"{}")
    assert openssf_verify(folder, signature, key).returncode == 1


def test_a_download_is_the_artifact_and_nothing_else(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said(root, "download", "tiny", tmp_path / "empty", "--version", "1")
    manifest = codec.decode((tmp_path / "empty" / layout.MANIFEST).read_bytes(), Manifest)
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {
        layout.MANIFEST,
        *(file.name for file in manifest.files),
    }
    for file in manifest.files:
        assert codec.sha256((tmp_path / "empty" / file.name).read_bytes()) == file.sha256


def test_a_download_into_a_folder_with_something_in_it_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    result = steelyard_models(root, "download", "tiny", tmp_path / "full")
    assert isinstance(result.exception, InvalidInput)
    assert "is not empty; name a folder that does not exist yet" in str(result.exception)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("damage", ["altered", "short", "long", "missing"])
def test_a_damaged_file_leaves_no_folder(root: Path, tmp_path: Path, damage: str) -> None:
    path = blob(root, "examples.json")
    body = path.read_bytes()
    path.chmod(0o644)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"altered": b"?" + body[1:], "short": body[:-1], "long": body + b" "}[damage])
    before = sorted(tmp_path.iterdir())
    result = steelyard_models(root, "download", "tiny", tmp_path / "here")
    assert isinstance(result.exception, DigestMismatch)
    assert "'examples.json'" in str(result.exception)
    assert sorted(tmp_path.iterdir()) == before


def test_a_download_of_what_the_given_key_did_not_sign_leaves_no_folder(
    root: Path, key: KeyFiles, tmp_path: Path
) -> None:
    result = steelyard_models(root, "download", "tiny", tmp_path / "here", "--public-key", key.public)
    assert isinstance(result.exception, SignatureInvalid)
    assert not (tmp_path / "here").exists()


def test_what_is_not_there_is_named(root: Path, key: KeyFiles, tmp_path: Path) -> None:
    result = steelyard_models(root, "download", "tiny", tmp_path / "here", "--version", "7")
    assert isinstance(result.exception, ModelNotFound)
    result = steelyard_models(root, "download", "tiny", tmp_path / "here", "--public-key", tmp_path / "no.pub")
    assert isinstance(result.exception, SettingsError)
    assert isinstance(sign(root, key, version="7").exception, ModelNotFound)
    result = sign(root, KeyFiles(key.public, key.public))
    assert result.exit_code == 2
    assert "no PEM file of a private key" in result.output


def test_signing_a_version_whose_files_are_not_what_was_published_is_refused(root: Path, key: KeyFiles) -> None:
    path = blob(root, "fp32.onnx")
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    assert isinstance(sign(root, key).exception, DigestMismatch)
    assert "unsigned" in said(root, "show", "tiny").splitlines()


def test_signing_a_version_without_its_manifest_is_refused(root: Path, key: KeyFiles) -> None:
    [manifest] = (root / "models/tiny/manifests/sha256").iterdir()
    manifest.unlink()
    assert isinstance(sign(root, key).exception, ManifestInvalid)


def test_show_says_who_signed_and_what_was_verified(root: Path, key: KeyFiles, tmp_path: Path) -> None:
    assert "unsigned" in said(root, "show", "tiny").splitlines()
    new = signingkeys.make(tmp_path, "new")
    for one in (key, new):
        sign(root, one)
    assert sign(root, key, version="champion").output == f"tiny@1 is already signed by key {key.signer.key_id}\n"
    ids = sorted([key.signer.key_id, new.signer.key_id])
    assert f"signed by {ids[0]} (not verified), {ids[1]} (not verified)" in said(root, "show", "tiny").splitlines()
    out = said(root, "show", "tiny", "--public-key", new.public)
    assert f"{new.signer.key_id} (verified)" in out
    assert f"{key.signer.key_id} (not verified)" in out
