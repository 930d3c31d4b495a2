"""Imports go one way: demo on resynced, that on eval and lipsync; train and eval on lipsync; lipsync on libraries."""

import ast

import pytest

from tests.conftest import ROOT

ALLOWED = {
    "lipsync": set(),
    "eval": {"lipsync"},
    "train": {"lipsync"},
    "resynced": {"lipsync", "eval"},
    "demo": {"lipsync", "eval", "resynced"},
}


@pytest.mark.slow
@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_stands_below_it(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top not in ALLOWED or top == package or top in ALLOWED[package], f"{path}: imports {name}"
