"""From a checkout to the page: what `make demo` says where something is missing, and what git never takes."""

import os
import shutil
import subprocess
import sys

import pytest
from filelock import FileLock

from demo.settings import Settings
from tests.helpers.live_server import ROOT


def test_a_missing_library_ends_the_start_with_one_sentence(tmp_path):
    for name, says in (("uname", "Linux"), ("id", "1000"), ("ldconfig", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    ran = subprocess.run(
        ["sh", "scripts/system_packages.sh", "demo"],
        cwd=ROOT,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1 and ran.stdout.startswith("Missing: libgl1") and ran.stdout.count("\n") == 1


def test_a_missing_python_ends_the_start_with_one_sentence(tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    ran = subprocess.run(["make", "demo", "PYTHON="], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode != 0 and "Python 3.11, 3.12 or 3.13 is needed" in ran.stdout


@pytest.mark.slow
def test_the_page_starts_without_what_it_may_never_need(tmp_path):
    """torch and statsmodels take seconds to import, and gradio would write into its own installed package."""
    code = """
import sys
from pathlib import Path
from demo import server
from demo.settings import Settings
server.build(Settings(work=Path(sys.argv[1])))
import gradio
assert not {"torch", "statsmodels"} & set(sys.modules), "imported at the start"
gradio.component_meta.create_or_modify_pyi(None, "", [])
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_two_pages_do_not_share_a_folder(tmp_path):
    """Each would sweep the other's jobs away."""
    with FileLock(tmp_path / "page.lock"):
        env = os.environ | {"LIPSYNC_WORK": str(tmp_path)}
        ran = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "Another page works in" in ran.stderr and ran.stderr.count("\n") == 1


def test_git_takes_no_visitors_files():
    ignored = (ROOT / ".gitignore").read_text().split()
    assert f"{Settings.model_fields['work'].default}/" in ignored  # where `make demo` puts faces and voices


def test_every_setting_is_documented_with_its_default():
    told = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default
        shown = f"| `{default}` |" if default else "| |"
        assert f"| `LIPSYNC_{name.upper()}` {shown}" in told, name
