"""House rules that ruff has no rule for: lines laid out by hand in tables alone, a README that names every module."""

import ast
import io
import tokenize
from tokenize import COMMENT

import pytest

from tests.conftest import ROOT

MARKS = ("# fmt: skip", "# fmt: off")
CELLS = (
    ast.Constant, ast.Name, ast.Attribute, ast.UnaryOp, ast.USub, ast.Load, ast.Starred, ast.keyword,
    ast.List, ast.Tuple, ast.Set, ast.Dict,
)  # fmt: skip
FOLDERS = ("lipsync", "eval", "train", "resynced", "demo", "bench", "scripts", "tests")
LEAST = 4  # cells of a table


def is_table(statement: ast.stmt) -> bool:
    """Is it a name for data alone: LEAST constants or names in lists, sets or dicts, in one call at most?"""
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return False
    value = statement.value
    if isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:  # frozenset((...))
        value = value.args[0]
    if not isinstance(value, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return False
    cells = list(ast.walk(value))
    data = [cell for cell in cells if isinstance(cell, ast.Constant | ast.Name | ast.Attribute)]
    return all(isinstance(cell, CELLS) for cell in cells) and len(data) >= LEAST


def by_hand(source: str) -> list[int]:
    """Lines that keep the formatter away from what is no table."""
    ends = {n.end_lineno: n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.stmt)}  # the innermost is last
    comments = (token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == COMMENT)
    marked = [token.start[0] for token in comments if token.string.startswith(MARKS)]
    return [number for number in marked if not is_table(ends.get(number, ast.Pass()))]


@pytest.mark.slow
def test_only_tables_are_laid_out_by_hand():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    wrong = [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in by_hand(path.read_text())]
    assert not wrong, f"`{MARKS[0]}` stands behind what is no table of data: {', '.join(wrong)}"


def test_every_module_has_its_place_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    shown = readme[readme.index("## How data flows") :]
    shown = shown[: shown.index("\n## ", 3)]
    modules = [path for folder in FOLDERS[:5] for path in (ROOT / folder).glob("*.py") if path.stem[:2] != "__"]
    missing = sorted(str(path.relative_to(ROOT)) for path in modules if path.name not in shown.split())
    assert not missing, f"README.md, How data flows, does not name {', '.join(missing)}"


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("A = {1: 'a', 2: 'b'}  # fmt: skip", []),
        ("A = frozenset((1, 2,\n 3, -4))  # fmt: skip", []),
        ("A = [f(1), 2, 3, 4]  # fmt: skip", [1]),
        ("A = (1,)  # fmt: skip", [1]),
        ("f(1, 2,\n 3, 4)  # fmt: skip", [2]),
        ("def f(a,\n b):  # fmt: skip\n    pass", [2]),
        ("# fmt: off\nA = [1, 2, 3, 4]", [1]),
    ],
)
def test_what_is_a_table(source, wrong):
    assert by_hand(source) == wrong
