"""What users install: a wheel, built from a source distribution, holds code and configurations and nothing else."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"nasflow", "searchspaces", "predictors", "proxies", "devices"}
SOURCES = [*PACKAGES, "conf", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]


def build(kind: str, source: Path, out: Path) -> Path:
    code = f"import setuptools.build_meta as backend; backend.build_{kind}({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, timeout=300)
    return next(out.iterdir())


def test_a_wheel_from_a_source_distribution_is_complete(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    archive = build("sdist", tree, tmp_path / "sdist")
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    wheel = build("wheel", next((tmp_path / "unpacked").iterdir()), tmp_path / "wheel")
    names = zipfile.ZipFile(wheel).namelist()
    expected = {f"nasflow/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    expected |= {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert expected <= set(names)
    assert all(f"{package}/py.typed" in names for package in PACKAGES)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
