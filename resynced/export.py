"""Rows and sets in the formats of others: Every Eval Ever 0.3.0, Hugging Face .eval_results and model-index, Croissant
1.1; and the card of a row, with what makes it again.

Ids, fixed: a benchmark is `resynced`, a measure `resynced.NAME` (NAME of leaderboard.COLUMNS), a task on Hugging Face
`SET-vVERSION.NAME`, with `.CATEGORY` behind it for a part of the set.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import func, not_, select

from lipsync.version import VERSION

from .leaderboard import COLUMNS, DRAWS, LEVEL, View, clips, leaderboard
from .records import BenchmarkError
from .scoring import pair_file
from .store import RunFact, ScoreFact, SetFact, Store, SystemFact, Withdrawal, digest

BENCHMARK = "resynced"
EEE_VERSION = "0.3.0"
ORGANISATION = "lipsync-lab"
RANGES = {  # of possible values, for Every Eval Ever
    "lse_d": (0, "Infinity"),
    "lse_c": (0, "Infinity"),
    "in_sync": (0, 1),
    "identity": (-1, 1),
    "sharpness": (0, "Infinity"),
    "movement": (0, "Infinity"),
    "coverage": (0, 1),
    "speed": (0, "Infinity"),
}
RELATION = {"ours": "first_party", "reproduced": "third_party", "self-reported": "first_party"}
LICENCES = {
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
}
_CROISSANT_TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet "
    "format includes isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated "
    "replace samplingRate separator source subField transform"
)
CONTEXT = {  # Croissant's own, which readers compare with
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _CROISSANT_TERMS.split()},
}
METHOD = "percentile bootstrap over speakers"


def measure_id(name: str) -> str:
    """The id of a measure for others."""
    return f"{BENCHMARK}.{name}"


def task_id(view: View, version: str, name: str, category: str = "") -> str:
    """The id of a task on Hugging Face: one a set and measure."""
    return ".".join(filter(None, (f"{pair_file(view.set_name)}-v{version}", name, category)))


# -------------------------------------------------------------------- Every Eval Ever


def every_eval_ever(store: Store, view: View, folder: Path) -> list[Path]:
    """Write each system of a view as one aggregate file and one of its clips, laid out as their datastore has it.

    A failed clip has no number and so no line; how many failed stands with each aggregate. Returns what was written.
    Raises OSError, BenchmarkError.
    """
    tables = {c: leaderboard(store, view, c) for c in ("", *_categories(store, view))}
    whole, written = tables[""], []
    for row in whole["rows"]:
        card = _card_of(store, row["fingerprint"])
        developer, model = _identity(row, card)
        data = clips(store, view, fingerprints=[row["fingerprint"]], most=10_000_000)
        data = data[data["tier"] == row["tier"]]
        name = _uuid(view.id, row["fingerprint"], row["tier"], len(data), _latest(store, view, row["fingerprint"]))
        stamp = str(_seconds(_latest(store, view, row["fingerprint"])))
        identity = f"{BENCHMARK}/{developer}_{model}/{stamp}"
        place = Path("data") / BENCHMARK / developer / model
        samples = [
            line
            for column in COLUMNS
            for line in _samples(data, column.name, identity, f"{developer}/{model}", whole, store, view)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in samples)
        aggregate = {
            "schema_version": EEE_VERSION,
            "evaluation_id": identity,
            "evaluation_timestamp": stamp,
            "retrieved_timestamp": stamp,
            "source_metadata": {
                "source_name": f"ReSyncED, set {whole['title']}",
                "source_type": "evaluation_run",
                "source_organization_name": ORGANISATION,
                "evaluator_relationship": RELATION.get(row["tier"], "other"),
                "additional_details": {"tier": row["tier"], "view": view.id},
            },
            "eval_library": {
                "name": "lipsync-lab",
                "version": VERSION,
                "additional_details": {
                    "measures": view.measure_version,
                    "evaluator": view.evaluator,
                    "evaluator_sha256": view.evaluator_sha256,
                    "protocol": view.protocol,
                    "protocol_hash": view.protocol_hash,
                },
            },
            "model_info": {
                "name": row["system"],
                "id": f"{developer}/{model}",
                "developer": developer,
                "additional_details": {
                    "deployment_type": "self_deployed",
                    "model_availability": _availability(card),
                    "fingerprint": row["fingerprint"],
                },
            },
            "evaluation_results": [
                result
                for category, table in tables.items()
                for other in table["rows"]
                if (other["fingerprint"], other["tier"]) == (row["fingerprint"], row["tier"])
                for result in _results(other, table, category, view)
            ],
        }
        if samples:
            path = folder / place / f"{name}_samples.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            written.append(path)
            aggregate["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": str(place / path.name),
                "hash_algorithm": "sha256",
                "checksum": _sha256(text),
                "total_rows": len(samples),
            }
        path = folder / place / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(aggregate, ensure_ascii=False, indent=1) + "\n", "utf-8")
        written.append(path)
    return written


def _results(row: Mapping[str, Any], table: Mapping[str, Any], category: str, view: View) -> list[dict[str, Any]]:
    found = []
    for column in COLUMNS:
        value = row["values"][column.name]
        if value["mean"] is None:
            continue
        low, high = RANGES[column.name]
        uncertainty: dict[str, Any] = {"num_bootstrap_samples": DRAWS}
        if value["n"] is not None:
            uncertainty["num_samples"] = value["n"]
        if value["low"] is not None:
            uncertainty["confidence_interval"] = {
                "lower": value["low"],
                "upper": value["high"],
                "confidence_level": LEVEL,
                "method": METHOD,
            }
        found.append(
            {
                "evaluation_result_id": _result_id(column.name, category),
                "evaluation_name": f"{BENCHMARK}.{view.set_name}" + (f".{category}" if category else ""),
                "source_data": {
                    "dataset_name": table["title"],
                    "source_type": "other",
                    "additional_details": {
                        "set": view.set_name,
                        "version": table["version"],
                        "sha256": view.set_sha256,
                        "category": category or "all",
                    },
                },
                "metric_config": {
                    "metric_id": measure_id(column.name),
                    "metric_name": column.title,
                    "metric_kind": column.name,
                    "metric_unit": column.unit or "points",
                    "lower_is_better": column.better == "lower",
                    "score_type": "continuous",
                    "min_score": low,
                    "max_score": high,
                    "evaluation_description": table["heading"],
                },
                "score_details": {
                    "score": value["mean"],
                    "details": {"tried": str(row["tried"]), "scored": str(row["scored"]), "failed": str(row["failed"])},
                    "uncertainty": uncertainty,
                },
            }
        )
    return found


def _result_id(name: str, category: str = "") -> str:
    return f"{measure_id(name)}:{category or 'all'}"


def _samples(
    data: pd.DataFrame, name: str, identity: str, model: str, table: Mapping[str, Any], store: Store, view: View
):
    """A line of each clip that has a value of a measure."""
    sources = _sources(store, view)
    for row in data.itertuples():
        if name == "in_sync":
            value = None if pd.isna(row.offset) else float(abs(row.offset) <= 1)
        elif name == "speed":
            value = None if pd.isna(row.seconds) or not row.seconds or not row.frames else row.frames / row.seconds
        else:
            value = getattr(row, name)
        if value is None or pd.isna(value):
            continue
        raw = sources.get(row.pair, row.pair)
        yield {
            "schema_version": EEE_VERSION,
            "evaluation_id": identity,
            "model_id": model,
            "evaluation_name": f"{BENCHMARK}.{view.set_name}",
            "evaluation_result_id": _result_id(name),
            "sample_id": row.pair,
            "sample_hash": _sha256(raw),
            "interaction_type": "single_turn",
            "input": {"raw": raw, "reference": []},
            "output": {"raw": [f"video sha256 {row.video_sha256}"]},
            "messages": None,
            "answer_attribution": [],
            # No right or wrong in a distance: true says that the clip was scored with its sound within a frame.
            "evaluation": {"score": float(value), "is_correct": bool(not pd.isna(row.offset) and abs(row.offset) <= 1)},
            "metadata": {"category": row.category, "language": row.language, "row": row.key},
        }


def _sources(store: Store, view: View) -> dict[str, str]:
    """What a pair is made of, by its id."""
    with store.read() as session:
        record = session.scalar(select(SetFact.record).where(SetFact.key == view.set_sha256))
    pairs = (record or {}).get("pairs", [])
    return {p["id"]: f"clip sha256 {p['video']['sha256']}, voice sha256 {p['voice']['sha256']}" for p in pairs}


def _categories(store: Store, view: View) -> list[str]:
    query = select(ScoreFact.category).where(view.where()).distinct()
    with store.read() as session:
        return sorted(session.scalars(query))


def _latest(store: Store, view: View, fingerprint: str) -> str:
    query = select(ScoreFact.date).where(view.where(), ScoreFact.fingerprint == fingerprint)
    with store.read() as session:
        return session.scalar(query.order_by(ScoreFact.id.desc()).limit(1)) or ""


def _card_of(store: Store, fingerprint: str) -> dict[str, Any]:
    query = select(SystemFact.card).where(SystemFact.fingerprint == fingerprint).order_by(SystemFact.id.desc())
    with store.read() as session:
        return session.scalar(query.limit(1)) or {}


def _identity(row: Mapping[str, Any], card: Mapping[str, Any]) -> tuple[str, str]:
    """Developer and model as parts of an id and a path."""
    said = str(card.get("developer") or card.get("organisation") or ORGANISATION)
    return _part(said), _part(row["label"])


def _part(name: str) -> str:
    """As a portable name of a folder."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-. ")[:80] or pair_file(name)


def _availability(card: Mapping[str, Any]) -> str:
    said = card.get("availability")
    return said if said in ("open_weights", "closed_weights") else "unknown"


def _uuid(*parts: Any) -> str:
    """A version 4 form, the same for the same content."""
    return str(uuid.UUID(bytes=bytes.fromhex(digest(*parts)[:32]), version=4))


def _sha256(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()


def _seconds(date: str) -> int:
    return int(datetime.fromisoformat(date).timestamp()) if date else 0


# ------------------------------------------------------------------------ Hugging Face


def eval_results(store: Store, view: View, dataset: str, source_url: str | None = None) -> dict[str, str]:
    """A system's `.eval_results/resynced.yaml` by the system's label: one task a set and measure.

    dataset  id of the set's repository on the hub, OWNER/NAME
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise BenchmarkError("{dataset!r} is no dataset of the hub: give OWNER/NAME.", dataset=dataset)
    tables = {c: leaderboard(store, view, c) for c in ("", *_categories(store, view))}
    found: dict[str, list] = {}
    for category, table in tables.items():
        for row in table["rows"]:
            for column in COLUMNS:
                value = row["values"][column.name]
                if value["mean"] is None:
                    continue
                span = "" if value["low"] is None else f"; 95 % {value['low']:.4g} to {value['high']:.4g}"
                found.setdefault(row["label"], []).append(
                    EvalResultEntry(
                        dataset_id=dataset,
                        task_id=task_id(view, table["version"], column.name, category),
                        value=round(value["mean"], 6),
                        date=_latest(store, view, row["fingerprint"]),
                        source_url=source_url,
                        notes=f"{row['scored']} of {row['tried']} clips{span}; {table['heading']}",
                    )
                )
    return {
        name: yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        for name, entries in found.items()
    }


def model_index(store: Store, view: View, dataset: str) -> dict[str, list[dict[str, Any]]]:
    """A system's `model-index` metadata by the system's label, for a README that has no .eval_results beside it."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    table = leaderboard(store, view)
    found = {}
    for row in table["rows"]:
        results = [
            EvalResult(
                task_type="video-to-video",
                task_name="Lip synchronisation",
                dataset_type=dataset,
                dataset_name=f"{table['title']} {table['version']}",
                metric_type=measure_id(column.name),
                metric_name=column.title,
                metric_value=round(row["values"][column.name]["mean"], 6),
                metric_args={"view": view.id, "n": row["scored"]},
            )
            for column in COLUMNS
            if row["values"][column.name]["mean"] is not None
        ]
        if results:
            found[row["label"]] = eval_results_to_model_index(row["label"], results)
    return found


# --------------------------------------------------------------------------- Croissant


def croissant(store: Store, set_sha256: str, url: str, folder: str = "") -> dict[str, Any]:
    """A set as Croissant 1.1 (JSON-LD): its files with their sums, its pairs with speaker, consent, licence and source.

    url     where the set is described
    folder  of the files, relative to that
    Raises BenchmarkError where the store has no such set.
    """
    with store.read() as session:
        fact = session.scalars(select(SetFact).where(SetFact.key == set_sha256)).first()
    if fact is None:
        raise BenchmarkError("The store has no set {sha256}.", sha256=set_sha256[:16])
    pairs = fact.record["pairs"]
    files = {m["sha256"]: m for pair in pairs for m in (pair["video"], pair["voice"])}
    media = [
        {
            "@type": "cr:FileObject",
            "@id": sha,
            "name": m["file"],
            "contentUrl": f"{folder}{m['file']}",
            "encodingFormat": _format(m["file"]),
            "sha256": sha,
        }
        for sha, m in files.items()
    ]
    kinds = ("id", "category", "video", "voice", "language", "speaker", "consent", "licence", "source")
    fields = [{"@type": "cr:Field", "@id": f"pairs/{k}", "name": k, "dataType": "sc:Text"} for k in kinds]
    data = [
        {
            f"pairs/{k}": v
            for k, v in {
                "id": p["id"],
                "category": p["category"],
                "video": p["video"]["sha256"],
                "voice": p["voice"]["sha256"],
                "language": p["voice"]["language"],
                **{
                    k: " | ".join(dict.fromkeys(filter(None, (p["video"][k], p["voice"][k])))) or "-"
                    for k in ("speaker", "consent", "licence", "source")
                },
            }.items()
        }
        for p in pairs
    ]
    consents = sorted({m["consent"] for m in files.values() if m["consent"]})
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"{BENCHMARK}-{pair_file(fact.name)}",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "description": f"{fact.title}. {fact.footer}".strip(),
        "license": LICENCES.get(fact.licence, fact.licence) or "unknown",
        "url": url,
        "version": _version(fact.version),
        "citeAs": fact.footer or fact.title,
        "datePublished": fact.date[:10],
        "rai:personalSensitiveInformation": [
            "Faces and voices of people who can be recognised.",
            *(f"Consent: {c}" for c in consents),
        ],
        "distribution": media,
        "recordSet": [{"@type": "cr:RecordSet", "@id": "pairs", "name": "pairs", "field": fields, "data": data}],
    }


def _version(said: str) -> str:
    """As MAJOR.MINOR.PATCH, which Croissant asks for."""
    parts = re.findall(r"\d+", said)[:3]
    return ".".join([*parts, "0", "0", "0"][:3])


def _format(name: str) -> str:
    import mimetypes

    return mimetypes.guess_type(name)[0] or "application/octet-stream"


# --------------------------------------------------------------------------- one row


def row_card(store: Store, key: str) -> dict[str, Any]:
    """Everything known of a row: numbers, set, system's card, run, and the commands that make it again.

    key  of the row, or its first digits (8 or more)
    Raises BenchmarkError where there is none, or more than one.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", key):
        raise BenchmarkError("{key!r} is no key of a row: give 8 to 64 hexadecimal digits.", key=key[:80])
    with store.read() as session:
        rows = session.scalars(select(ScoreFact).where(ScoreFact.key.startswith(key)).limit(2)).all()
        if len(rows) != 1:
            if rows:
                raise BenchmarkError("More than one row begins with {key}.", key=key)
            raise BenchmarkError("No row of the store begins with {key}.", key=key)
        row = rows[0]
        made_by = session.scalars(select(RunFact).where(RunFact.key == row.run)).first()
        withdrawn = session.scalar(
            select(Withdrawal.reason).where(Withdrawal.target.in_([row.key, row.fingerprint])).limit(1)
        )
    commit = made_by.commit if made_by else ""
    columns = {c.name: getattr(row, c.name) for c in ScoreFact.__table__.columns if c.name != "id"}
    return {
        "row": columns,
        "system_card": _card_of(store, row.fingerprint),
        "withdrawn": withdrawn,
        "again": _again(made_by),
        "changed_files": commit.endswith("+changes"),
        "commit": commit,
        "environment": made_by.environment if made_by else {},
        "settings": made_by.settings if made_by else {},
    }


# ------------------------------------------------------------ one row of the leaderboard


def entry_card(store: Store, view: View, fingerprint: str) -> dict[str, Any]:
    """What makes a leaderboard's row again: the system's card, the runs that made its scores, and their commands.

    fingerprint  of the system, or its first digits (8 or more)
    system, fingerprint, tier, card, withdrawn (why, or None), scores, and runs, the latest first: key, date, scores,
    commit, changed_files, command, again (the commands in order), environment, settings
    Raises BenchmarkError where the view has no such system, or more than one.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", fingerprint):
        raise BenchmarkError(
            "{fingerprint!r} is no fingerprint: give 8 to 64 hexadecimal digits.", fingerprint=fingerprint[:80]
        )
    this = (view.where(), ScoreFact.fingerprint.startswith(fingerprint))
    names = (ScoreFact.system, ScoreFact.fingerprint, ScoreFact.tier)
    with store.read() as session:
        found = session.execute(select(*names, func.count()).where(*this).group_by(*names).limit(50)).all()
        if len({row[1] for row in found}) != 1:
            if found:
                raise BenchmarkError("More than one system begins with {fingerprint}.", fingerprint=fingerprint)
            raise BenchmarkError("No system of this table begins with {fingerprint}.", fingerprint=fingerprint)
        system, whole, tier, _ = found[0]
        void = select(Withdrawal.target).where(Withdrawal.kind == "score")
        by_run = select(ScoreFact.run, func.count()).where(*this, not_(ScoreFact.key.in_(void))).group_by(ScoreFact.run)
        scores = dict(session.execute(by_run).all())
        made = session.scalars(select(RunFact).where(RunFact.key.in_(scores)).order_by(RunFact.id.desc())).all()
        gone = select(Withdrawal.reason).where(Withdrawal.kind == "system", Withdrawal.target == whole).limit(1)
        withdrawn = session.scalar(gone)
    return {
        "system": system,
        "fingerprint": whole,
        "tier": tier,
        "card": _card_of(store, whole),
        "withdrawn": withdrawn,
        "scores": sum(scores.values()),
        "runs": [
            {
                "key": run.key,
                "date": run.date,
                "scores": scores[run.key],
                "commit": run.commit,
                "changed_files": run.commit.endswith("+changes"),
                "command": run.command,
                "again": _again(run),
                "environment": run.environment,
                "settings": run.settings,
            }
            for run in made
        ],
    }


def _again(run: RunFact | None) -> list[str]:
    """The commands that make a run's rows again, as far as they are known."""
    if run is None:
        return []
    checkout = [f"git checkout {run.commit.removesuffix('+changes')}"] if run.commit else []
    return checkout + ([run.command] if run.command else [])
