"""`make lock`: writes the hashed lists of what the images install, from pyproject.toml and within constraints.txt. Needs `uv`.

Hashes of every file of a release are listed, so that one list serves both architectures.
"""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
EXTRAS = {
    "gateway": ("gateway", "text", "docs", "tracing"),
    "keeper": ("reports",),
    "trainer": ("trainers", "signing"),
}
"""What each image is. tests/contract/test_images.py holds the lists against the installed metadata."""

OPTIONS = (
    "--python-version=3.11",
    "--python-platform=x86_64-manylinux_2_28",
    "--generate-hashes",
    "--no-header",
    "--no-annotate",
    "--quiet",
)


def main() -> None:
    """Write all of them."""
    for image, extras in EXTRAS.items():
        asked = [f"--extra={extra}" for extra in extras]
        _compile("pyproject.toml", *asked, "--constraints=constraints.txt", into=HERE / f"{image}.lock")
    _compile(str(HERE / "build.in"), into=HERE / "build.lock")


def _compile(source: str, *options: str, into: Path) -> None:
    subprocess.run(["uv", "pip", "compile", source, *options, *OPTIONS, f"--output-file={into}"], check=True)


if __name__ == "__main__":
    main()
