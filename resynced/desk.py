"""The desk of studies: opens and closes them, lets raters in, hands out ballots, takes one answer for each.

Made for a page and for a command line alike. Every call is one transaction; nothing is held between calls, so a page
may be closed, and the server killed, at any moment: what was acknowledged is on disk, and the rater comes back to the
same ballot. What is told to a rater before the vote names no system.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Connection, RowMapping, bindparam, delete, exists, func, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from . import raters
from .ballots import FAILED, NOT_MADE, PASSED, TOKEN_S, Ballot, Seen, Stimulus, Tokens, check_answer, session
from .ballots_tables import BallotRow, Database, RaterFact, RaterRow, StudyEvent, StudyRow, VoteRow
from .store import Store
from .studies import Question, Study, StudyError, now

JOINS_A_MINUTE = 600  # of one study; more at once are no crowd but a script
LEAST_SECONDS = 1.0  # from serving to answering: nobody has watched a video in less
LONGEST_JSON = 4000
MOST_FACTS = 200  # of one rater, besides votes
# What a page may report with an answer; numbers in seconds or counts, `muted` and `smooth` true or false.
TIMINGS = (
    "answer_s",
    "left_played_s",
    "right_played_s",
    "left_heard_s",
    "right_heard_s",
    "left_length_s",
    "right_length_s",
    "left_replays",
    "right_replays",
    "rate",
    "muted",
    "smooth",
    "width",
    "height",
    "hidden_s",
)
SLOWEST = 1.15  # a video may take so many times its length to play (P.910's gate for stalls)


@dataclass(frozen=True)
class Served:
    """A ballot as the page gets it: nothing here tells which systems are compared, or which ballots are checks.

    token        to be given back with the answer; good for two hours
    number, of   for "4 of 20", training counted apart
    training     explained and not counted
    instruction  "" or what a trap asks for: "left", "right" or a digit
    questions    as the rater reads them
    videos       {"left": name, "right": name} ("left" alone where one is shown): names that are good until answered
    coming       the videos of the ballot after this one, to be loaded meanwhile; empty at the end
    ballot, coming_ballot  random names by which a page knows the two again
    """

    token: str
    number: int
    of: int
    training: bool
    instruction: str
    questions: tuple[Question, ...]
    videos: dict[str, str]
    coming: dict[str, str] = field(default_factory=dict)
    ballot: str = ""
    coming_ballot: str = ""


@dataclass(frozen=True)
class Standing:
    """How far a rater is: the study, how many of the ballots are answered, and what else was said (`facts`)."""

    study: str
    answered: int
    ballots: int
    facts: frozenset[str]


@dataclass(frozen=True)
class Saved:
    """An answer is on disk. `explanation`: in training, the side (or "low") that was right; else ""."""

    number: int
    of: int
    explanation: str
    finished: bool


def playback(timings: Mapping[str, Any], sides: tuple[str, ...]) -> str:
    """Were the videos watched as they must be: to the end, at normal speed, with sound, without stalls?

    "not_made" where the page could not tell: counted, and reported.
    """
    if any(timings.get(f"{side}_{what}_s") is None for side in sides for what in ("played", "length")):
        return NOT_MADE
    for side in sides:
        played, length = float(timings[f"{side}_played_s"]), float(timings[f"{side}_length_s"])
        times = 1 + int(timings.get(f"{side}_replays") or 0)
        if played < 0.95 * length or played > SLOWEST * length * times + 1:
            return FAILED
        if float(timings.get(f"{side}_heard_s", length)) < 0.9 * length:  # of its length, with its own sound
            return FAILED
    return FAILED if timings.get("muted") or abs(float(timings.get("rate", 1.0)) - 1) > 0.01 else PASSED


def secret_key(path: Path) -> bytes:
    """The key that signs ballots: 32 bytes in a file that only its owner may read, made at first use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    found = path.read_bytes()
    if len(found) != 32:
        raise StudyError(
            "{file} is no key of ours: remove it, and a new one is made (open ballots lapse).", file=path.name
        )
    return found


def open_desk(store: Store, folder: Path) -> StudyDesk:
    """The desk of a store's studies; `folder` is the data folder, which holds the key."""
    return StudyDesk(Database(store), secret_key(folder / "keys" / "ballots"))


CLOSED = "This study is closed. Thank you for coming."
WITHDRAWN = "You have withdrawn from this study, and your answers were deleted."

# Statements of every vote, made once: SQLAlchemy takes longer to build them than SQLite to run them.
_VOTED = exists().where(VoteRow.ballot == BallotRow.id)
_EVENT = (
    select(StudyEvent.event)
    .where(StudyEvent.study == BallotRow.study, StudyEvent.event.in_(("opened", "closed")))
    .order_by(StudyEvent.id.desc())
    .limit(1)
)
_GONE = exists().where(RaterFact.rater == BallotRow.rater, RaterFact.fact == "withdrawn")
_OTHERS = aliased(BallotRow)
_UNANSWERED = (
    select(func.count())
    .select_from(_OTHERS)
    .where(_OTHERS.rater == BallotRow.rater, ~exists().where(VoteRow.ballot == _OTHERS.id))
)
_STATE = select(
    BallotRow,
    _EVENT.scalar_subquery().label("event"),
    _GONE.label("withdrawn"),
    _UNANSWERED.scalar_subquery().label("unanswered"),
)
BALLOT_STATE = _STATE.where(BallotRow.id == bindparam("ballot"))
NEXT_BALLOT = _STATE.where(BallotRow.rater == bindparam("rater"), ~_VOTED).order_by(BallotRow.position).limit(2)
INSERT_VOTE = insert(VoteRow)


class StudyDesk:
    """All that a page or a command needs of studies.

    database       from ballots_tables
    key            secret, 16 bytes or more (secret_key): signs ballots, panel tokens and completion codes
    least_seconds  an answer that comes sooner after serving is refused
    """

    def __init__(self, database: Database, key: bytes, least_seconds: float = LEAST_SECONDS) -> None:
        self.database, self._key, self._least = database, key, least_seconds
        self._tokens = Tokens(key)
        self._studies: dict[str, Study] = {}  # records never change
        self._joining = threading.Lock()

    # For the operator

    def create(self, study: Study) -> str:
        """Write down a study, closed. Returns the hash to be published before data. Raises StudyError."""
        try:
            with self.database.write() as connection:
                row = {"name": study.name, "record": study.to_json(), "sha256": study.sha256, "date": _date()}
                connection.execute(insert(StudyRow).values(row))
        except IntegrityError as error:
            raise StudyError(
                "There is a study {study} already: it cannot be changed, take another name.", study=study.name
            ) from error
        return study.sha256

    def open(self, name: str) -> None:
        """Let raters in. Raises StudyError."""
        self._event(name, "opened")

    def close(self, name: str) -> None:
        """Take no more answers; the study may be opened again. Raises StudyError."""
        self._event(name, "closed")

    def publish(self, name: str, shown: bool = True) -> None:
        """Show the results to everybody, or no more. Raises StudyError."""
        self._event(name, "published" if shown else "unpublished")

    def is_published(self, name: str) -> bool:
        """May everybody see the results? Raises StudyError where there is no such study."""
        self.study(name)
        with self.database.read() as connection:
            return self._latest(connection, name, ("published", "unpublished")) == "published"

    def _event(self, name: str, event: str) -> None:
        self.study(name)
        with self.database.write() as connection:
            connection.execute(insert(StudyEvent).values(study=name, event=event, date=_date()))

    def study(self, name: str) -> Study:
        """The record of a study. Raises StudyError where there is none."""
        if name not in self._studies:
            with self.database.read() as connection:
                record = connection.scalar(select(StudyRow.record).where(StudyRow.name == name))
            if record is None:
                raise StudyError("There is no study {name!r}.", name=str(name)[:63])
            self._studies[name] = Study.from_json(record)
        return self._studies[name]

    def studies(self) -> list[dict[str, Any]]:
        """All studies: name, title, design, open, raters, votes, date, sha256; oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(select(StudyRow).order_by(StudyRow.date, StudyRow.name)).mappings().all()
            counted = {
                table: dict(connection.execute(select(table.study, func.count()).group_by(table.study)).all())
                for table in (RaterRow, VoteRow)
            }
            return [
                {
                    "name": row["name"],
                    "title": self.study(row["name"]).title,
                    "design": self.study(row["name"]).design,
                    "open": self._open(connection, row["name"]),
                    "raters": counted[RaterRow].get(row["name"], 0),
                    "votes": counted[VoteRow].get(row["name"], 0),
                    "date": row["date"],
                    "sha256": row["sha256"],
                }
                for row in rows
            ]

    def is_open(self, name: str) -> bool:
        """May raters answer? Raises StudyError where there is no such study."""
        self.study(name)
        with self.database.read() as connection:
            return self._open(connection, name)

    def tables(self, name: str, token: str | None = None) -> dict[str, pd.DataFrame]:
        """Every fact of a study: ballots, votes, raters, facts, events (columns as in ballots_tables).

        token  of a rater: that one's ballots and votes alone
        A vote that was under way while its rater withdrew is not among them.
        """
        self.study(name)
        gone = select(RaterFact.rater).where(RaterFact.fact == "withdrawn")
        facts = select(RaterFact).join(RaterRow, RaterRow.id == RaterFact.rater).where(RaterRow.study == name)
        wanted = {
            "ballots": select(BallotRow).where(BallotRow.study == name).order_by(BallotRow.rater, BallotRow.position),
            "votes": select(VoteRow).where(VoteRow.study == name, VoteRow.rater.not_in(gone)).order_by(VoteRow.id),
            "raters": select(RaterRow).where(RaterRow.study == name).order_by(RaterRow.date, RaterRow.id),
            "facts": facts.order_by(RaterFact.id),
            "events": select(StudyEvent).where(StudyEvent.study == name).order_by(StudyEvent.id),
        }
        if token is not None:
            rater = raters.rater_id(token)
            wanted = {
                "ballots": wanted["ballots"].where(BallotRow.rater == rater),
                "votes": wanted["votes"].where(VoteRow.rater == rater),
            }
        with self.database.read() as connection:
            found = {}
            for key, query in wanted.items():
                result = connection.execute(query)
                found[key] = pd.DataFrame(result.all(), columns=list(result.keys()))
        return found

    # For raters

    def join(self, name: str, consent: bool, panel: Mapping[str, str] | None = None) -> str:
        """Let a rater in who has consented, and lay out the session. Returns the rater's token, to be kept by them.

        panel  what a panel put into the address (PROLIFIC_PID and the like): kept as a hash; the same again comes back
               to the same session
        Raises StudyError: closed, no consent, full, withdrawn, or too many at once.
        """
        study = self.study(name)
        if not consent:
            raise StudyError("Please read the text and agree to it, or close this page: nothing was stored.")
        token = raters.panel_token(self._key, name, panel) if panel else raters.new_token()
        rater = raters.rater_id(token)
        with self._joining:  # one at a time, so that each sees what the last was given; votes do not wait for it
            with self.database.read() as connection:
                self._check_open(connection, name)
                if connection.scalar(select(RaterRow.id).where(RaterRow.id == rater)):
                    self._check_present(connection, rater)
                    return token
                self._check_rush(connection, name)
                seen = self._seen(connection, study)
            if seen.full:
                raise StudyError("This study has all the answers it needs. Thank you for coming.")
            date = _date()
            rows = [_row(ballot, date) for ballot in session(study, rater, seen)]
            said = hashlib.sha256(study.consent.encode()).hexdigest()
            try:
                with self.database.write() as connection:
                    connection.execute(insert(RaterRow).values(id=rater, study=name, panel=bool(panel), date=date))
                    connection.execute(insert(RaterFact).values(rater=rater, fact="consent", value=said, date=date))
                    connection.execute(insert(BallotRow), rows)
            except IntegrityError:
                return token  # the same person of a panel came twice at once, through another server
        return token

    def tell(self, token: str, fact: str, value: Mapping[str, Any]) -> None:
        """Keep what a rater says besides voting: "description" (all optional), "sound_check", "pause", "problem".

        Raises StudyError.
        """
        if fact not in ("description", "sound_check", "pause", "problem"):
            raise StudyError("{fact!r} is nothing that is kept.", fact=fact)
        kept = json.dumps(raters.description(value) if fact == "description" else dict(value), sort_keys=True)
        if len(kept) > LONGEST_JSON:
            raise StudyError("That is too long to be kept.")
        rater = raters.rater_id(token)
        with self.database.write() as connection:
            self._rater(connection, rater)
            said = select(func.count()).select_from(RaterFact).where(RaterFact.rater == rater)
            if connection.scalar(said) >= MOST_FACTS:
                return  # nobody says so much: the rest is not kept
            connection.execute(insert(RaterFact).values(rater=rater, fact=fact, value=kept, date=_date()))

    def next_ballot(self, token: str) -> Served | None:
        """The first ballot that this rater has not answered, the same again after a pause; None at the end.

        Raises StudyError: no such rater, withdrawn, or the study is closed.
        """
        rater = raters.rater_id(token)
        with self.database.read() as connection:
            rows = connection.execute(NEXT_BALLOT, {"rater": rater}).mappings().all()
            if not rows:  # the end, or nobody we know: this says which
                self._check_open(connection, self._rater(connection, rater))
                return None
            row, after = rows[0], rows[1] if len(rows) > 1 else None
            if row["event"] != "opened":
                raise StudyError(CLOSED)
            if row["withdrawn"]:
                raise StudyError(WITHDRAWN)
            return self._served(self.study(row["study"]), row, after)

    def previous_ballot(self, token: str) -> Served | None:
        """The last answered ballot, for its one correction; None where there is none left to correct."""
        rater = raters.rater_id(token)
        with self.database.read() as connection:
            study = self.study(self._rater(connection, rater))
            self._check_open(connection, study.name)
            row = self._last(connection, rater)
            return self._served(study, row) if row else None

    def submit(
        self,
        ballot_token: str,
        answer: Mapping[str, Any],
        timings: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> Saved:
        """Take one answer: on disk when this returns.

        answer   by question: {"preference": "left"}, {"sync": 4, "quality": 3, "experience": 4}, with "left_" and
                 "right_" before the scales where two stand side by side; or {"cannot_play": True}
        timings  what the page measured (TIMINGS); what it could not measure is left out
        again    correct the last answer, once
        Raises StudyError: forged, too old, answered already, not all answered, too soon, closed, withdrawn.
        """
        ballot, rater, age = self._tokens.read_ballot(ballot_token)
        kept = _timings(timings or {})
        with self.database.read() as connection:
            row = connection.execute(BALLOT_STATE, {"ballot": ballot}).mappings().first()
            if row is None or row["rater"] != rater:
                raise StudyError("This ballot is not one of ours: reload the page.")
            study = self.study(row["study"])
            if row["event"] != "opened":
                raise StudyError(CLOSED)
            if row["withdrawn"]:
                raise StudyError(WITHDRAWN)
            said = check_answer(study, answer)
            if age < self._least and "cannot_play" not in said and not again:  # who corrects has watched
                raise StudyError("Please watch to the end before you answer.")
            width = kept.get("width")
            if width is not None and float(width) < study.least_width_px and "cannot_play" not in said:
                raise StudyError(
                    "This window is too narrow: make it {width} pixels wide or more.", width=study.least_width_px
                )
            if again:
                last = self._last(connection, rater)
                if last is None or last["id"] != ballot:
                    raise StudyError("Only the last answer can be corrected, and once.")
        vote = {
            "study": study.name,
            "rater": rater,
            "ballot": ballot,
            "revision": int(again),
            "answer": json.dumps(said, sort_keys=True),
            "timings": json.dumps(kept, sort_keys=True),
            "elapsed_s": round(age, 3),
            "date": _date(),
        }
        try:
            self.database.add(INSERT_VOTE, vote)
        except IntegrityError as error:  # the unique index, which no two can pass
            raise StudyError("This was answered already: your first answer is kept.") from error
        number, of = self._progress(study, row["position"])
        finished = row["unanswered"] - (not again) <= 0
        return Saved(number, of, row["expected"] if row["kind"] == "training" else "", finished)

    def video(self, name: str) -> Stimulus:
        """Which video a name stands for, while its ballot is open. Raises StudyError."""
        ballot, side = self._tokens.read_video(name)
        with self.database.read() as connection:
            row = connection.execute(select(BallotRow).where(BallotRow.id == ballot)).mappings().first()
            if row is None:
                raise StudyError("There is no such video.")
            answered = connection.scalar(select(func.count()).select_from(VoteRow).where(VoteRow.ballot == ballot))
            last = self._last(connection, row["rater"]) if answered else None
            if answered and (last is None or last["id"] != ballot):
                raise StudyError("This video was answered already.")
        return _ballot(row).stimulus(side)

    def finished(self, token: str) -> str:
        """The completion code of a rater who has answered everything. Raises StudyError before that."""
        rater = raters.rater_id(token)
        with self.database.read() as connection:
            study = self.study(self._rater(connection, rater))
            voted = exists().where(VoteRow.ballot == BallotRow.id)
            if connection.scalar(select(func.count()).select_from(BallotRow).where(BallotRow.rater == rater, ~voted)):
                raise StudyError("There are videos left to answer: the code comes after the last.")
        return study.completion_code or raters.completion_code(self._key, study.name, rater)

    def standing(self, token: str) -> Standing:
        """How far a rater is. Raises StudyError: no such rater, or withdrawn."""
        rater = raters.rater_id(token)
        with self.database.read() as connection:
            study = self._rater(connection, rater)
            laid = select(func.count()).select_from(BallotRow).where(BallotRow.rater == rater)
            facts = connection.scalars(select(RaterFact.fact).where(RaterFact.rater == rater))
            ballots, said = connection.scalar(laid), frozenset(facts)
            return Standing(study, connection.scalar(laid.where(_VOTED)), ballots, said)

    def withdraw(self, token: str) -> int:
        """Delete everything that a rater said, until the study is closed. Returns how many votes went."""
        rater = raters.rater_id(token)
        with self.database.write() as connection:
            name = self._rater(connection, rater)
            self._check_open(connection, name)
            gone = connection.execute(delete(VoteRow).where(VoteRow.rater == rater)).rowcount
            connection.execute(delete(RaterFact).where(RaterFact.rater == rater))
            connection.execute(
                insert(RaterFact).values(rater=rater, fact="withdrawn", value=json.dumps({"votes": gone}), date=_date())
            )
        return gone

    # Within

    def _rater(self, connection: Connection, rater: str) -> str:
        """The study of a rater who is there and has not withdrawn."""
        name = connection.scalar(select(RaterRow.study).where(RaterRow.id == rater))
        if name is None:
            raise StudyError("This browser has no rater's token: begin again from the study's address.")
        self._check_present(connection, rater)
        return name

    def _check_present(self, connection: Connection, rater: str) -> None:
        query = select(RaterFact.id).where(RaterFact.rater == rater, RaterFact.fact == "withdrawn")
        if connection.scalar(query.limit(1)) is not None:
            raise StudyError(WITHDRAWN)

    def _open(self, connection: Connection, name: str) -> bool:
        return self._latest(connection, name, ("opened", "closed")) == "opened"

    def _latest(self, connection: Connection, name: str, kinds: tuple[str, ...]) -> str | None:
        of = select(StudyEvent.event).where(StudyEvent.study == name, StudyEvent.event.in_(kinds))
        return connection.scalar(of.order_by(StudyEvent.id.desc()).limit(1))

    def _check_open(self, connection: Connection, name: str) -> None:
        if not self._open(connection, name):
            raise StudyError(CLOSED)

    def _check_rush(self, connection: Connection, name: str) -> None:
        since = (now() - timedelta(minutes=1)).isoformat()
        query = select(func.count()).select_from(RaterRow).where(RaterRow.study == name, RaterRow.date > since)
        if connection.scalar(query) >= JOINS_A_MINUTE:
            raise StudyError("Too many people come at once: please try again in a minute.")

    def _seen(self, connection: Connection, study: Study) -> Seen:
        """What was laid out and answered, or may still be: ballots of raters who left long ago do not count."""
        seen = Seen(study)
        fresh = (now() - timedelta(seconds=TOKEN_S)).isoformat()
        voted = exists().where(VoteRow.ballot == BallotRow.id)
        columns = (
            BallotRow.item,
            BallotRow.left_system,
            BallotRow.left_variant,
            BallotRow.right_system,
            BallotRow.right_variant,
        )
        query = select(*columns, func.count()).where(
            BallotRow.study == study.name, BallotRow.kind == "counted", or_(BallotRow.date > fresh, voted)
        )
        for item, left, left_variant, right, right_variant, times in connection.execute(query.group_by(*columns)):
            other = Stimulus(right, item, right_variant) if right else None
            seen.add(item, Stimulus(left, item, left_variant), other, times)
        return seen

    def _last(self, connection: Connection, rater: str) -> RowMapping | None:
        """The ballot answered last, unless it was corrected already, or was training."""
        query = select(VoteRow.ballot, VoteRow.revision).where(VoteRow.rater == rater).order_by(VoteRow.id.desc())
        last = connection.execute(query.limit(1)).first()
        if last is None or last.revision:
            return None
        row = connection.execute(select(BallotRow).where(BallotRow.id == last.ballot)).mappings().first()
        return None if row is None or row["kind"] == "training" else row

    def _progress(self, study: Study, position: int) -> tuple[int, int]:
        if position < study.training:
            return position + 1, study.training
        return position - study.training + 1, study.per_rater + study.gold + study.traps + study.repeats

    def _videos(self, row: Mapping[str, Any]) -> dict[str, str]:
        sides = ("left", "right") if row["right_system"] else ("left",)
        return {side: self._tokens.video(row["id"], side) for side in sides}

    def _served(self, study: Study, row: Mapping[str, Any], after: Mapping[str, Any] | None = None) -> Served:
        ballot = _ballot(row)
        number, of = self._progress(study, ballot.position)
        return Served(
            token=self._tokens.ballot(ballot.id, ballot.rater),
            number=number,
            of=of,
            training=ballot.kind == "training",
            instruction=ballot.expected if ballot.kind == "trap" else "",
            questions=study.questions,
            videos=self._videos(row),
            coming=self._videos(after) if after else {},
            ballot=ballot.id,
            coming_ballot=after["id"] if after else "",
        )


def _date() -> str:
    return now().isoformat(timespec="milliseconds")


def _row(ballot: Ballot, date: str) -> dict[str, Any]:
    left, right = ballot.left, ballot.right or Stimulus("", ballot.left.item)
    return {
        "id": ballot.id,
        "study": ballot.study,
        "rater": ballot.rater,
        "position": ballot.position,
        "kind": ballot.kind,
        "item": left.item,
        "left_system": left.system,
        "left_variant": left.variant,
        "right_system": right.system,
        "right_variant": right.variant,
        "expected": ballot.expected,
        "repeats": ballot.repeats,
        "date": date,
    }


def _ballot(row: Mapping[str, Any]) -> Ballot:
    left = Stimulus(row["left_system"], row["item"], row["left_variant"])
    right = Stimulus(row["right_system"], row["item"], row["right_variant"]) if row["right_system"] else None
    named = {k: row[k] for k in ("id", "study", "rater", "position", "kind", "expected", "repeats")}
    return Ballot(left=left, right=right, **named)


def _timings(given: Mapping[str, Any]) -> dict[str, float | bool]:
    """What a page measured, as it is kept: known names, numbers in bounds. What cannot be is left out, not refused."""
    kept: dict[str, float | bool] = {}
    for name in TIMINGS:
        value = given.get(name)
        if isinstance(value, bool):
            kept[name] = value
        elif isinstance(value, int | float) and 0 <= value < 1e6:
            kept[name] = round(float(value), 3)
    return kept
