"""The layout that keeps Python's imports honest: flat folders, no shadowed modules, and who may import whom."""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("bench", "profile", "kernels", "models")
FORBIDDEN = {
    "bench": ("profile",),
    "profile": ("bench",),
    "kernels": ("bench", "profile"),
    "models": ("bench", "profile"),
}
TAKEN = set(sys.stdlib_module_names) | {"torch", "triton", "numpy", "kernels", "cuda"}


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def on_path(folder: str) -> list[Path]:
    """Files that can be imported by their stem, since their folder is on sys.path."""
    return sorted((ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_scripts_is_no_package(folder: str) -> None:
    assert not [file for file in files(folder) if file.name == "__init__.py"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_script_is_named_after_a_module_that_somebody_imports(folder: str) -> None:
    assert on_path(folder)
    assert not [file.name for file in on_path(folder) if file.stem in TAKEN]


def test_no_python_file_lies_in_the_root_where_it_could_shadow_one() -> None:
    assert not [file.name for file in ROOT.glob("*.py")]


def test_a_stem_means_one_file_whichever_folders_are_on_the_path() -> None:
    stems = [file.stem for folder in FOLDERS for file in on_path(folder)]
    assert sorted(stems) == sorted(set(stems))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_from_those_below_it(folder: str) -> None:
    foreign = {file.stem: other for other in FORBIDDEN[folder] for file in on_path(other)}
    found = [(file.name, name) for file in files(folder) for name in imported(file) if name in foreign]
    assert not found


def test_the_standard_profilers_still_import_with_every_folder_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(str(ROOT / folder))
    monkeypatch.syspath_prepend(str(ROOT))
    for name in ("profile", "cProfile", "statistics"):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None and not Path(spec.origin).is_relative_to(ROOT)


def imported(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module.split(".")[0])
    return names
