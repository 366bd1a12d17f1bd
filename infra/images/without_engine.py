"""Carries out a Dockerfile's steps without a container engine, as root: `make rootfs`. For proof, not for shipping.

The external base is a Debian of the same release made by mmdebstrap, with Debian's Python 3.11 in place of the official image's,
which only an engine fetches. Knows the instructions that our Dockerfiles use, and refuses others.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

BASE_PACKAGES = "python3,python3-venv,ca-certificates"
BASE_RELEASE = "bookworm"
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy", "no_proxy")
"""How this machine reaches its package index."""

CERTIFICATES = "run/certificates.crt"
ONLY_SAID = ("LABEL", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD", "USER")


class Instruction(NamedTuple):
    """One line, continuations joined."""

    word: str
    rest: str


class Stage(NamedTuple):
    """From one FROM to the next."""

    base: str
    name: str
    steps: list[Instruction]


def main(dockerfile: Path, work: Path) -> Path:
    """Build all stages anew below `work`, where the base is kept; returns the last one's root, which has the image's name."""
    base = work / "base.tar"
    if not base.exists():
        make_base(base)
    roots: dict[str, Path] = {}
    for number, stage in enumerate(stages(dockerfile.read_text())):
        root = work / (f"{dockerfile.stem}-{stage.name}" if stage.name else dockerfile.stem)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        roots[stage.name or str(number)] = root
        if stage.base != "scratch":
            subprocess.run(["tar", "-xf", str(base), "-C", str(root)], check=True)
            _connect(root)
        _carry_out(stage, root, roots)
    return root


def make_base(tar: Path) -> None:
    """Debian's smallest system with Python; raises `SystemExit` that says what is missing."""
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        raise SystemExit("this needs root and mmdebstrap: apt-get install mmdebstrap")
    tar.parent.mkdir(parents=True, exist_ok=True)
    made = tar.with_suffix(".part.tar")
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BASE_PACKAGES}", BASE_RELEASE, str(made)],
        check=True,
    )
    made.rename(tar)


def stages(text: str) -> list[Stage]:
    """A Dockerfile's stages. Raises `ValueError` for an instruction that is not known here."""
    found: list[Stage] = []
    for line in instructions(text):
        if line.word == "FROM":
            base, *alias = re.split(r"\s+[Aa][Ss]\s+", line.rest)
            found.append(Stage(base, alias[0] if alias else "", []))
        elif found:
            if line.word not in {"ARG", "COPY", "ENV", "RUN", "WORKDIR", *ONLY_SAID}:
                raise ValueError(f"{line.word} is not known here")
            found[-1].steps.append(line)
        elif line.word != "ARG":
            raise ValueError(f"{line.word} before FROM")
    return found


def instructions(text: str) -> list[Instruction]:
    """Comments left out, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [
        Instruction(word.upper(), rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines())
    ]


def configuration(stage: Stage) -> dict[str, list[str] | dict[str, str] | str]:
    """What an image would carry beside its files: Env, Entrypoint, Cmd, User, Labels, StopSignal."""
    said: dict[str, list[str] | dict[str, str] | str] = {"Env": {}, "Labels": {}}
    for step in stage.steps:
        if step.word in {"ENV", "LABEL"}:
            held = said["Env" if step.word == "ENV" else "Labels"]
            assert isinstance(held, dict)
            held.update(dict(pair.split("=", 1) for pair in shlex.split(step.rest)))
        elif step.word in {"ENTRYPOINT", "CMD"}:
            said[step.word.title()] = json.loads(step.rest)
        elif step.word in {"USER", "STOPSIGNAL"}:
            said[{"USER": "User", "STOPSIGNAL": "StopSignal"}[step.word]] = step.rest
    return said


def _carry_out(stage: Stage, root: Path, roots: dict[str, Path]) -> None:
    folder, environ = (
        Path("/"),
        {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
    )
    for step in stage.steps:
        if step.word == "WORKDIR":
            folder = folder / step.rest
            (root / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
        elif step.word == "COPY":
            _copy(step.rest, root, folder, roots)
        elif step.word == "RUN":
            print(f"RUN {step.rest}", flush=True)
            given = environ | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            if (root / CERTIFICATES).exists():
                given["PIP_CERT"] = f"/{CERTIFICATES}"
            script = f"cd {shlex.quote(str(folder))} && {step.rest}"
            subprocess.run(["chroot", str(root), "/bin/sh", "-ec", script], env=given, check=True)
        elif step.word == "ENV":
            environ |= dict(pair.split("=", 1) for pair in shlex.split(step.rest))


def _copy(rest: str, root: Path, folder: Path, roots: dict[str, Path]) -> None:
    words = rest.split()
    source = Path()
    if words[0].startswith("--from="):
        source = roots[words.pop(0).removeprefix("--from=")]
    *given, target = words
    to = root / (folder / target).relative_to("/")
    for name in given:
        path = source / name.lstrip("/") if source != Path() else Path(name)
        if path.is_dir() and source != Path():
            shutil.copytree(path, to, symlinks=True, dirs_exist_ok=True)
        elif path.is_dir():
            shutil.copytree(path, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (to if target.endswith("/") else to.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to)


def _connect(root: Path) -> None:
    """Lets pip in the stage find its index as this machine does."""
    shutil.copy2("/etc/resolv.conf", root / "etc/resolv.conf")
    certificates = os.environ.get("PIP_CERT")
    if certificates:
        shutil.copy2(certificates, root / CERTIFICATES)


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
