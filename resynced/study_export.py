"""A study as one file to be cited: record, facts, judged raters, statistics, reasons, and a paragraph for the paper.

Also HEMVIP2's tables (the gesture community's kit): which videos to compare, read into and written from studies.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pandas as pd

from .ballots import OTHER
from .studies import Study, StudyError
from .study_results import Results

PAIRWISE = ("clip_name", "system_1", "system_2")
MISMATCHED = ("clip_name", "system", "mismatch_type", "mismatch_data")
SELECTED = {"left": "Left Better", "right": "Right Better", "tie": "Equal", "both_bad": "Equal"}
MOST_ROWS = 1_000_000
README = """What is in this file

study.json        the record: questions in words, plan and rule of exclusion, all fixed before data
ballots.csv       every ballot as it was laid out (variant: late = sound half a second off, other = other speech)
answers.csv       every answer, the corrected one where a rater corrected it, with the outcome of each check
raters.csv        every rater's checks, score, and the reason where the votes were set aside; rater is a hash
events.csv        when the study was opened and closed
results.json      all statistics; tables/ has each as CSV
methods.md        a paragraph for a paper
hemvip2.csv       the comparisons and answers in HEMVIP2's layout, where there are two videos
"""


def write_zip(results: Results, facts: dict[str, pd.DataFrame], out: Path) -> Path:
    """Write the whole study to `out` (.zip), which appears whole or not at all. Raises StudyError."""
    study = results.study
    files = {
        "README.txt": README,
        "study.json": study.to_json(),
        "ballots.csv": _csv(facts["ballots"]),
        "answers.csv": _csv(results.votes.all),
        "raters.csv": _csv(results.quality.table),
        "events.csv": _csv(facts["events"]),
        "results.json": results.as_json(),
        "methods.md": methods(results),
    }
    files |= {f"tables/{name}.csv": _csv(table) for name, table in results.tables.items()}
    if study.design != "questions":
        files["hemvip2.csv"] = _csv(hemvip2(results))
    part = out.with_name(f".{out.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(f"{study.name}/{name}", text)
        part.replace(out)
    except OSError as error:
        raise StudyError("{out} could not be written ({error}).", out=out.name, error=error.strerror) from error
    finally:
        part.unlink(missing_ok=True)
    return out


def _csv(table: pd.DataFrame) -> str:
    """CSV in which nothing is taken for a formula by a spreadsheet."""
    shown = table.copy()
    for column in shown.select_dtypes(include=["object", "string"]):
        shown[column] = shown[column].map(lambda v: f"'{v}" if isinstance(v, str) and v[:1] in "=+-@\t\r" and v else v)
    return shown.to_csv(index=False)


def methods(results: Results) -> str:
    """One paragraph on how the study was made and what it found, every figure from the facts."""
    study, facts, tables = results.study, results.facts, results.tables
    kind = {
        "preference": "saw two videos of the same speech side by side, unnamed and in random order, and chose the "
        "better one, a tie, or both bad",
        "questions": "saw one video at a time and scored sync accuracy, visual quality and overall experience from "
        "0 to 5",
        "side_by_side": "saw two videos of the same speech side by side, unnamed and in random order, scored sync "
        "accuracy, visual quality and overall experience of each from 0 to 5, and said which they preferred",
        "mismatching": "saw the same system twice, once with the right speech and once with other speech of the same "
        "speaker, and said in which video the mouth fits",
    }[study.design]
    said = [
        f"{facts['raters']} raters {kind}. {len(study.systems)} systems were shown on {len(study.items)} items of "
        f"{study.set_name}; pairs, items and sides were balanced, least seen first, and nobody saw the same "
        f"comparison twice but for repeats. Each rater saw {study.training} training, {study.per_rater} counted, "
        f"{study.gold} gold (sound half a second late), {study.traps} trap and {study.repeats} repeated ballots. "
        "All videos had the same size, codec, loudness (EBU R128) and stamp. The plan, with the rule of exclusion, was "
        f"fixed before data (SHA-256 {study.sha256}).",
        f"By that rule the votes of {facts['raters_set_aside']} raters were set aside; checks that could not be made "
        f"counted against nobody.",
    ]
    if "ranking" in tables:
        best = ", ".join(
            f"{r.system} {r.score:+.2f} [{r.low:+.2f}, {r.high:+.2f}] (rank {r.rank})"
            for r in tables["ranking"].itertuples()
        )
        said.append(
            "Strengths are Bradley-Terry scores with ties (log odds, mean 0) with 95 % intervals from a bootstrap "
            f"clustered by rater and by item; ranks by Holm's correction over all pairs: {best}."
        )
    if flip := facts.get("votes_to_flip"):
        flipped = "no number of" if flip["flipped"] is None else str(flip["flipped"])
        said.append(
            f"To take the first place from {flip['first']}, {flipped} votes for it would have to be against it."
        )
    if side := facts.get("side_effect"):
        said.append(
            f"The left side was worth {side['size']:+.2f} log odds [{side['low']:+.2f}, {side['high']:+.2f}], "
            f"p = {side['p']:.2g}."
        )
    for name, table in tables.items():
        if name.startswith("mos_"):
            means = ", ".join(f"{r.system} {r.mean:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in table.itertuples())
            alpha = facts.get(f"agreement_{name[4:]}")
            agreed = f" (Krippendorff's alpha {alpha['alpha']:.2f})" if alpha else ""
            said.append(f"Mean opinion scores of {name[4:]}, after screening by ITU-R BT.500{agreed}: {means}.")
    if "matched" in tables:
        found = ", ".join(
            f"{r.system} {r.share:.1%} [{r.low:.1%}, {r.high:.1%}]" for r in tables["matched"].itertuples()
        )
        said.append(f"The right speech was found in these shares of votes (50 % is blind): {found}.")
    said += [f"Not computed: {note}" for note in results.notes]
    return f"# {study.title}\n\n" + " ".join(said) + "\n"


def hemvip2(results: Results) -> pd.DataFrame:
    """Counted comparisons in HEMVIP2's layout, with `selected` (its words), rater and whether set aside."""
    study, votes = results.study, results.votes.all
    counted = votes[(votes["kind"] == "counted") & ~votes["cannot_play"].astype(bool)]
    more = {"rater": counted["rater"], "set_aside": counted["rater"].isin(results.quality.excluded)}
    if study.design == "mismatching":
        columns = {
            "clip_name": counted["item"],
            "system": counted["left"],
            "mismatch_type": "speech",
            "mismatch_data": "other speech of the same speaker",
            "mismatch_side": counted["left_variant"].eq(OTHER).map({True: "left", False: "right"}),
            "selected": counted["mismatching"].map(SELECTED) if "mismatching" in counted else None,
        }
        return pd.DataFrame({**columns, **more})
    selected = counted["preference"].map(SELECTED) if "preference" in counted else None
    columns = {"clip_name": counted["item"], "system_1": counted["left"], "system_2": counted["right"]}
    return pd.DataFrame({**columns, "selected": selected, **more})


def read_hemvip2(path: Path) -> pd.DataFrame:
    """A table of HEMVIP2: comparisons to be made, or made where it has `selected`.

    returns  pairwise: clip_name system_1 system_2, and where answers are there rater item left right answer, as
             eval.ratings has preferences; mismatched: clip_name system mismatch_type mismatch_data
    Raises StudyError where it is neither.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, nrows=MOST_ROWS + 1, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise StudyError("{file} cannot be read as a table: {error}.", file=path.name, error=error) from error
    if len(table) > MOST_ROWS:
        raise StudyError("{file} has more than {most:,} rows.", file=path.name, most=MOST_ROWS)
    table = table.loc[:, ~table.columns.str.startswith("Unnamed")]  # its own examples end lines with a comma
    table = table.apply(lambda column: column.str.strip())  # "NA" is a system there: natural motion
    if not (set(PAIRWISE) <= set(table) or set(MISMATCHED) <= set(table)):
        raise StudyError(
            "{file} is no table of HEMVIP2: it needs {these} or {those}.",
            file=path.name,
            these=", ".join(PAIRWISE),
            those=", ".join(MISMATCHED),
        )
    if set(PAIRWISE) <= set(table) and "selected" in table:
        answers = {"Left Better": "left", "Right Better": "right", "Equal": "tie"}
        odd = set(table["selected"]) - set(answers)
        if odd:
            raise StudyError(
                "{file} has the answer {answer!r}: HEMVIP2 knows {choices}.",
                file=path.name,
                answer=sorted(odd)[0],
                choices=", ".join(answers),
            )
        table["answer"] = table["selected"].map(answers)
        table = table.assign(item=table["clip_name"], left=table["system_1"], right=table["system_2"])
    return table


def study_of_hemvip2(path: Path, name: str, title: str, set_name: str, set_sha256: str, **more: object) -> Study:
    """A study that compares the systems and clips that a table of HEMVIP2 names. Raises StudyError."""
    table = read_hemvip2(path)
    pairwise = set(PAIRWISE) <= set(table)
    systems = sorted(set(table["system_1"]) | set(table["system_2"]) if pairwise else set(table["system"]))
    items = tuple(dict.fromkeys(table["clip_name"]))
    design = "preference" if pairwise else "mismatching"
    return Study(name, title, design, set_name, set_sha256, tuple(systems), items, **more)
