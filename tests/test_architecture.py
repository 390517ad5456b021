"""The house rules that a machine can hold: imports, homes, first lines, the top level."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("schemas", "models", "curate", "flows")
HOMES = {"ray": {"curate/engine.py"}, "duckdb": {"curate/query.py"}}
STAGES = (
    *("ingest", "download", "score", "filter", "recaption", "dedup"),
    *("compress", "export", "train", "validate", "ablate"),
)
FILES = sorted(f for package in ORDER for f in (ROOT / package).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; names under TYPE_CHECKING aside."""
    tree = ast.parse(file.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_imports_point_one_way(file: Path):
    """A package imports itself and those before it; only the command line reaches flows."""
    package = ORDER.index(file.relative_to(ROOT).parts[0])
    roots = {name.split(".")[0] for name in imported(file)}
    later = roots & set(ORDER[package + 1 :])
    allowed = {"flows"} if relative(file) == "curate/cli.py" else set()
    assert later <= allowed, f"{relative(file)} imports {later - allowed}"


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_each_engine_has_one_home(file: Path):
    """ray, duckdb and prefect are imported where design says and nowhere else."""
    roots = {name.split(".")[0] for name in imported(file)}
    for package, homes in HOMES.items():
        assert package not in roots or relative(file) in homes
    assert "prefect" not in roots or relative(file).startswith("flows/")
    if relative(file).startswith("schemas/"):
        assert roots <= {*sys.stdlib_module_names, "pyarrow", "pydantic", "yaml", "schemas"}


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage: str):
    """A stage knows tables, not other stages; ablate is train and validate over subsets."""
    others = {f"curate.{s}" for s in STAGES if s != stage}
    allowed = {"curate.train", "curate.validate"} if stage == "ablate" else set()
    assert not (imported(ROOT / f"curate/{stage}.py") & others) - allowed


@pytest.mark.parametrize("stage", STAGES)
def test_the_first_line_of_a_stage_is_its_map(stage: str):
    """`head -1 curate/*.py` prints verb, tables in and tables out."""
    first = (ROOT / f"curate/{stage}.py").read_text().splitlines()[0]
    assert re.fullmatch(rf'"""{stage.capitalize()}: .+ -> .+\.', first)


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_no_file_is_longer_than_400_lines(file: Path):
    """A file that has grown past one screenful of ideas is split."""
    assert len(file.read_text().splitlines()) <= 400


def test_the_top_level_is_fixed():
    """Nothing but the agreed names lies at the top of what is tracked."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    top = {name.split("/")[0] for name in tracked if name and not name.startswith(".")}
    fixed = {"pyproject.toml", "curate", "flows", "models", "schemas", "tests", "notebooks"}
    assert top <= fixed | {"README.md", "LICENSE"}


def test_the_package_and_its_help_answer_at_once():
    """`import curate` and `curate --help` take under a second: heavy imports are local."""
    heavy = ("torch", "ray", "duckdb", "prefect", "pandas", "transformers", "pyarrow")
    script = (
        "import sys; sys.argv = ['curate', '--help']; import curate, curate.cli\n"
        "try: curate.cli.main()\nexcept SystemExit: pass\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - began < 5  # seconds on a busy machine; alone it is 0.3


def test_the_readme_names_every_file_of_the_tree():
    """Its tree has each file of the packages' first level, or the folder that holds it."""
    tree = (ROOT / "README.md").read_text().split("## The tree")[1]
    files = [f.name for p in ORDER for f in (ROOT / p).glob("*.py") if f.name != "__init__.py"]
    folders = [f"{f.name}/" for p in ORDER for f in (ROOT / p).iterdir() if any(f.glob("*.py"))]
    assert [name for name in files + folders if name not in tree] == []
