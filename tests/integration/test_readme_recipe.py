"""The recipe that trainers/README.md prints, run as the README says: from a folder with a package, by name, with a parameter."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_recipe_of_the_readme_trains_and_answers_with_its_parameter(tmp_path: Path):
    text = (REPOSITORY / "trainers/README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/recipes.py").write_text(code)
    options = ["--set", "width=16", "--epochs", "3", "--store", "./store", "--quiet"]
    ran = subprocess.run(
        [sys.executable, "-m", "gateway", "train", "my_package.recipes:diabetes", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split()[:2] == ["diabetes", "1"]
