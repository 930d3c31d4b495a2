"""The table of options: everything that offers them takes names, bounds and help from it."""

import inspect
from dataclasses import fields, replace

import pytest

from lipsync.__main__ import _parser
from lipsync.errors import InputError
from lipsync.options import OLD_NAMES, Options, bounds
from tests.conftest import ROOT

ROWS = {row.name: row for row in fields(Options)}


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row.metadata["bounds"]])
def test_bounds_are_allowed_and_what_lies_beyond_is_a_sentence(name):
    low, high = bounds(name)
    rest = {"start": -1e9} if name == "end" else {}
    for value in (low, high):
        if name == "end" and value == low:
            continue  # before the start
        Options(**{name: value})
    for value in (low - 1, high + max(1, abs(high) * 1e-6), float("nan")):
        with pytest.raises(InputError) as error:
            Options(**{name: value} | {k: v for k, v in rest.items() if name != "end"})
        assert str(error.value).endswith(".") and "{" not in str(error.value)


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row.metadata["choices"]])
def test_choices_are_allowed_and_others_are_a_sentence(name):
    for value in ROWS[name].metadata["choices"]:
        Options(**{name: value})
    with pytest.raises(InputError, match="'neither'"):
        Options(**{name: "neither"})


def test_the_command_line_has_every_option_with_its_default():
    args = _parser().parse_args(["sync", "a.mp4", "b.wav", "--out", "c.mp4"])
    assert Options(**{name: getattr(args, name) for name in ROWS}) == Options()


@pytest.mark.parametrize("old", OLD_NAMES)
def test_an_old_name_is_read_with_a_warning(old, caplog):
    new = OLD_NAMES[old]
    value = next(v for v in ROWS[new].metadata["choices"] or ROWS[new].metadata["bounds"] if v != ROWS[new].default)
    wanted = replace(Options(), **{new: value})
    assert not caplog.records and old not in ROWS
    assert Options(**{old: value}) == wanted == replace(Options(), **{old: value})
    said = f"The option {old} is called {new} now."
    assert said in caplog.messages
    caplog.clear()
    args = _parser().parse_args(["sync", "a.mp4", "b.wav", "--out", "c.mp4", f"--{old}", f"{value}"])
    assert Options(**{name: getattr(args, name) for name in ROWS}) == wanted
    assert caplog.messages == [f"The flag --{old} is called --{new.replace('_', '-')} now."]


def test_names_that_never_were_are_refused():
    with pytest.raises(TypeError, match="sharpness"):
        Options(sharpness=1)
    assert list(inspect.signature(Options).parameters) == list(ROWS)


def test_the_documentation_of_the_api_names_every_option():
    text = (ROOT / "docs" / "api.md").read_text()
    assert "lipsync/options.py" in text
