"""Assembles an image's root filesystem from an installed environment: Python, what is imported, the libraries for both.

No shell, no package manager, no compiler, nothing setuid. A Dockerfile's build stage runs it with the environment's own Python
and copies the result into an empty image; `make rootfs` does so without an engine. Needs Debian's ldd, ldconfig and dpkg-query.
"""

import compileall
import json
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import sbom

NEVER_IMPORTED = (
    # Litestar's requirement for inventing examples, the hub client of the tokenizers library, rich's coloured source code, and the
    # web framework that the package with Swagger UI's files names.
    "polyfactory*", "faker*", "Faker*", "huggingface_hub*", "hf_xet*", "fsspec*", "filelock*", "tqdm*", "httpx2*", "httpcore2*",
    "pygments*", "flask", "flask-*", "werkzeug*", "jinja2*", "itsdangerous*", "markupsafe*", "blinker*",
    "pip*", "setuptools*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth",
    # Tools for who makes models.
    "onnxruntime/transformers", "onnxruntime/tools", "onnxruntime/quantization", "onnxruntime/datasets",
    "numpy/f2py", "numpy/distutils",
)  # fmt: skip
"""Below site-packages. The tests start the result and ask it for everything, so what is missed is seen."""

NEVER_READ = ("*.c", "*.cpp", "*.h", "*.hpp", "*.pyx", "*.pxd", "*.pxi", "*.pyi", "*.a", "*.exe")
NEVER_READ_FOLDERS = ("tests", "test", "testing/tests", "include")

SERVICES = ("s3", "sts", "sso", "sso-oidc", "signin")
"""Of the several hundred that botocore describes: the store, and the ways to a role."""

UNUSED_STDLIB = (
    "test", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3", "pydoc_data", "distutils", "venv",
    "site-packages", "dist-packages", "sitecustomize.py", "EXTERNALLY-MANAGED",
)  # fmt: skip

USER = 65532
FOLDERS = ("dev", "proc", "sys", "tmp", "etc/steelyard", "var/cache/steelyard")
"""Where a container's mounts go; the last two are the chart's."""


def main(into: Path, image: str) -> None:
    """Write everything below `into`, which must not exist, and say how large it is."""
    into.mkdir(parents=True)
    copy_interpreter(into)
    copy_environment(into)
    for folder in FOLDERS:
        (into / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/cache/steelyard"):
        (into / folder).chmod(0o1777)  # not the user's own: how an engine copies owners is its business
    copied = copy_libraries(into)
    write_system_files(into)
    packages = write_packages(into, copied)
    bom = into / f"usr/share/sbom/steelyard-{image}.cdx.json"
    bom.parent.mkdir(parents=True)
    bom.write_text(json.dumps(sbom.document(_site_packages(into), packages), indent=1) + "\n")
    print(f"{into}: {size_bytes(into) / 1e6:.0f} MB unpacked")


def copy_interpreter(into: Path) -> None:
    """The base Python's binary and library. A virtual environment only points at them, by way of other links."""
    path = Path(sys.executable)
    while path.is_symlink():
        path = path.parent / path.readlink()
        if path.is_symlink() and not path.is_relative_to(sys.prefix):
            (into / path.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
            (into / path.relative_to("/")).symlink_to(path.readlink())
    _copy_file(Path(sys.executable).resolve(), into)
    stdlib = Path(sysconfig.get_path("stdlib"))
    unused = shutil.ignore_patterns("__pycache__", "config-*", *UNUSED_STDLIB, *NEVER_READ)
    shutil.copytree(stdlib, into / stdlib.relative_to("/"), symlinks=True, ignore=unused)
    _remove(link for link in (into / stdlib.relative_to("/")).rglob("*") if link.is_symlink() and not link.exists())
    _compile(into / stdlib.relative_to("/"), stdlib)


def copy_environment(into: Path) -> None:
    """The virtual environment, less what is never imported or read."""
    home = Path(sys.prefix)
    shutil.copytree(home, into / home.relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    packages = _site_packages(into)
    for pattern in NEVER_IMPORTED:
        _remove(packages.glob(pattern))
    for pattern in NEVER_READ:
        _remove(packages.rglob(pattern))
    for name in NEVER_READ_FOLDERS:
        _remove(packages.rglob(name))
    described = packages / "botocore/data"
    _remove(each for each in described.iterdir() if each.is_dir() and each.name not in SERVICES)
    scripts = into / home.relative_to("/") / "bin"
    _remove(each for each in scripts.iterdir() if each.name != "steelyard" and not each.name.startswith("python"))
    _compile(packages, Path("/") / packages.relative_to(into))


def copy_libraries(into: Path) -> set[Path]:
    """Every shared library that something copied needs, and the loader; returns where they came from."""
    home, stdlib = Path(sys.prefix), Path(sysconfig.get_path("stdlib"))
    binaries = [Path(sys.executable).resolve(), *_elves(into, home), *_elves(into, stdlib)]
    asked = subprocess.run(["/usr/bin/ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    lines = [line.split() for line in asked.stdout.splitlines() if line.startswith(("\t", " "))]
    missing = {words[0] for words in lines if "not" in words and "found" in words}
    if missing:
        raise SystemExit(f"these libraries are nowhere on this machine: {', '.join(sorted(missing))}")
    found = {Path(word) for words in lines for word in words if word.startswith("/")}
    wanted = sorted(each for each in found if not _is_inside(each, home) and not _is_inside(each, stdlib))
    for library in wanted:
        _copy_file(library.resolve(), into, as_path=library)
    # Python's own library may lie where the loader does not look by itself.
    subprocess.run(["/sbin/ldconfig", "-r", str(into), *sorted({str(each.parent) for each in wanted})], check=True)
    shutil.rmtree(into / "var/cache/ldconfig", ignore_errors=True)
    return {each.resolve() for each in [*wanted, Path(sys.executable)]} | {stdlib / "os.py"}


def write_system_files(into: Path) -> None:
    """Who runs, how names are found, whom to trust."""
    etc = into / "etc"
    (etc / "passwd").write_text(f"root:x:0:0:root:/:/none\nnonroot:x:{USER}:{USER}:nonroot:/tmp:/none\n")
    (etc / "group").write_text(f"root:x:0:\nnonroot:x:{USER}:\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        _copy_file(bundle, into)


def write_packages(into: Path, copied: Iterable[Path]) -> list[sbom.Package]:
    """Which Debian packages the copied files are from, where scanners of images look for it."""
    owners = sorted({name for path in copied if (name := _owner(path))})
    status = into / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    packages = []
    for name in owners:
        shown = subprocess.run(["/usr/bin/dpkg-query", "-s", name], capture_output=True, text=True, check=True)
        (status / name.partition(":")[0]).write_text(shown.stdout)
        fields = dict(line.split(": ", 1) for line in shown.stdout.splitlines() if ": " in line and line[0] != " ")
        packages.append(sbom.Package(fields["Package"], fields["Version"], fields["Architecture"]))
    return packages


def size_bytes(root: Path) -> int:
    """What the files hold, each once."""
    return sum({each.lstat().st_ino: each.lstat().st_size for each in root.rglob("*") if not each.is_dir()}.values())


def _owner(path: Path) -> str:
    for asked in (
        path,
        Path("/", *path.parts[2:]) if path.parts[1] == "usr" else path,
    ):  # /lib is /usr/lib, and dpkg knows one
        done = subprocess.run(["/usr/bin/dpkg-query", "-S", str(asked)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.rpartition(": ")[0].splitlines()[0]
    return ""


def _elves(into: Path, original: Path) -> Iterator[Path]:
    """Binaries below `original` that were copied, at their own place: there the loader finds what lies beside them."""
    copy = into / original.relative_to("/")
    for path in sorted(copy.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield original / path.relative_to(copy)


def _compile(folder: Path, as_folder: Path) -> None:
    """The root is read-only: what is not compiled now would be compiled at every start. Unchecked, for no source will change."""
    compileall.compile_dir(
        folder, maxlevels=100, stripdir=str(folder), prependdir=str(as_folder), quiet=2, workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


def _site_packages(into: Path) -> Path:
    return into / Path(sysconfig.get_path("purelib")).relative_to("/")


def _copy_file(source: Path, into: Path, as_path: Path | None = None) -> None:
    target = into / (as_path or source).relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2])
