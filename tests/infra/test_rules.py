"""Every root is valid, and the rules in infra/terraform/tests hold: `terraform test` against a provider that only pretends."""

from pathlib import Path

import pytest

from tests.support import hcl, terraform

pytestmark = pytest.mark.e2e

ROOTS = [".", *(f"envs/{folder.name}" for folder in sorted((hcl.FOLDER / "envs").iterdir()))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_is_valid(root: str, folder: Path) -> None:
    terraform.copied(folder, root).run("validate", "-no-color")


@pytest.mark.parametrize("file", sorted(file.name for file in (hcl.FOLDER / "tests").glob("*.tftest.hcl")))
def test_rules_hold(file: str, folder: Path) -> None:
    done = terraform.copied(folder).run("test", "-no-color", f"-filter=tests/{file}")
    assert "0 failed" in done.stdout
    assert "Success! 0 passed" not in done.stdout


REFUSED = {
    "zones that are none": ('zones = ["eu-central-1"]', "zones must be at least"),
    "another region's zones": ('zones = ["us-east-1a", "us-east-1b"]', "zones must be at least"),
    "no account": ('account_id = "mine"', "account_id must be 12 digits"),
    "a region that is none": ('region = "Frankfurt"', "region must be one such as eu-central-1"),
    "a tag": ('gateway_image = "gateway:1"', "image must be named with its digest"),
    "a keeper by a tag": ('keeper = { image = "keeper:1" }', "image must be named with its digest"),
    "a keeper's budgets by the name of a file": (
        f'keeper = {{ image = "r/k@sha256:{"0" * 64}", budgets = {{ text = "b.toml" }} }}',
        "budgets.text has no [[budget]]: give the text of the file",
    ),
}
GOOD = """
region        = "eu-central-1"
account_id    = "123456789012"
bucket        = "steelyard-refused"
zones         = ["eu-central-1a", "eu-central-1b"]
gateway_image = "r/gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000"
allowed_cidrs = ["10.0.0.0/8"]
"""


@pytest.mark.parametrize("name", REFUSED)
def test_a_root_says_in_a_sentence_what_it_refuses(name: str, folder: Path) -> None:
    """Before the provider is asked for anything: there are no credentials here."""
    line, why = REFUSED[name]
    option = line.split(" ", 1)[0]
    kept = [good for good in GOOD.splitlines() if not good.startswith(option)]
    assert why in planned("\n".join([*kept, line]), folder)


def test_without_credentials_nothing_is_begun(folder: Path) -> None:
    assert "No valid credential sources found" in planned(GOOD, folder)


def planned(variables: str, folder: Path) -> str:
    """What a plan of envs/dev is refused with, in one line."""
    root = terraform.copied(folder, "envs/dev")
    (root.folder / "test.auto.tfvars").write_text(variables)
    override = root.folder / "backend_override.tf"
    if not override.exists():
        override.write_text('terraform {\n  backend "local" {}\n}\n')
        root.run("init", "-reconfigure", "-input=false", "-no-color")
    done = root.run("plan", "-input=false", "-no-color", codes=(1,))
    assert not (root.folder / "terraform.tfstate").exists()
    return " ".join(done.stderr.replace("│", " ").split())
