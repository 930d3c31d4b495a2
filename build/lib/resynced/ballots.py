"""Ballots: which videos a rater sees, on which side, in which order; and signed tokens that let each be answered once.

A rater's whole session is laid out when they join, from what has been seen least: pairs of systems first, then items,
then sides. Training comes first and is explained; gold items (a clip against itself with late sound), traps ("choose
left") and repeats (an earlier ballot, sides changed) lie among the counted ones and look like them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from .studies import SCALES, Study, StudyError

KINDS = ("training", "counted", "gold", "trap", "repeat")
LATE, OTHER = "late", "other"  # variants of a video: its sound half a second off; other speech of the same speaker
LATE_S = 0.5
TOKEN_S = 2 * 3600  # a ballot that lies open for longer is served anew
PREFERENCES = ("left", "right", "tie", "both_bad")
PASSED, FAILED, NOT_MADE = "passed", "failed", "not_made"
LOW_SYNC = 2  # of late sound, at most so much of 0 .. 5 is right
NEAR = 1  # scores of the same video, so far apart, agree


@dataclass(frozen=True)
class Stimulus:
    """One video: a system's, of an item; variant "", "late" or "other"."""

    system: str
    item: str
    variant: str = ""


@dataclass(frozen=True)
class Ballot:
    """One question to one rater.

    id        random; kind: one of KINDS
    right     None where one video is shown
    expected  what an attentive rater answers: left or right, "low" (sync of late sound), a digit (a trap on scales)
    repeats   id of the ballot that this one asks again
    """

    id: str
    study: str
    rater: str
    position: int
    kind: str
    left: Stimulus
    right: Stimulus | None
    expected: str = ""
    repeats: str = ""

    def stimulus(self, side: str) -> Stimulus:
        """The video of a side. Raises StudyError."""
        found = {"left": self.left, "right": self.right}.get(side)
        if found is None:
            raise StudyError("This ballot has no video there.")
        return found


class Seen:
    """How often each pair of systems was laid out, with which item, and which of the two stood left.

    pairs  (P, I) counts; lean (P,): how much oftener the first of the pair stood left than the second
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.pairs = np.zeros((len(study.pairs), len(study.items)), int)
        self.lean = np.zeros(len(study.pairs), int)
        self._pair = {frozenset(p): k for k, p in enumerate(study.pairs)}
        self._item = {item: k for k, item in enumerate(study.items)}

    def add(self, item: str, left: Stimulus, right: Stimulus | None, times: int = 1) -> None:
        """Count a ballot that was laid out; those of systems or items that the study has not are passed over."""
        k = self._pair.get(frozenset({left.system, (right or left).system}))
        if k is None or item not in self._item:
            return
        self.pairs[k, self._item[item]] += times
        self.lean[k] += times if self.first_left(k, left) else -times

    def first_left(self, pair: int, left: Stimulus) -> bool:
        """Is the first of the pair on the left; in the mismatching task, the video with the right speech?"""
        return left.variant != OTHER if self.study.design == "mismatching" else left.system == self.study.pairs[pair][0]

    @property
    def full(self) -> bool:
        """Every pair has been laid out as often as is wanted."""
        return bool((self.pairs.sum(1) >= self.study.votes_per_pair).all())


def session(study: Study, rater: str, seen: Seen) -> list[Ballot]:
    """Lay out the session of one rater and count it in `seen`: the same but for ids for the same rater and counts."""
    digest = hashlib.sha256(f"{study.name}\n{study.seed}\n{rater}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    counted = _counted(study, seen, rng)
    main = [("counted", left, right, "", None) for left, right in counted]
    rng.shuffle(main)
    ask_again = list(range(len(main) // 2)) or [0]
    repeated = sorted(rng.permutation(ask_again)[: study.repeats].tolist()) if study.repeats else []
    while len(repeated) < study.repeats:  # more repeats than half the session: some of the rest too
        repeated.append(next(k for k in range(len(main)) if k not in repeated))
    laid = [(float(k), entry, k) for k, entry in enumerate(main)]
    for k in repeated:
        _, left, right, _, _ = main[k]
        at = rng.uniform(max(k + 1, len(main) / 2), len(main))
        laid.append((at, ("repeat", right or left, left if right else None, "", k), None))
    checks = [_gold(study, rng) for _ in range(study.gold)] + [_trap(study, counted, rng) for _ in range(study.traps)]
    rng.shuffle(checks)
    for k, entry in enumerate(checks):  # one in each equal stretch of the session
        stretch = len(main) / len(checks)
        laid.append((rng.uniform(k * stretch, (k + 1) * stretch), entry, None))
    laid.sort(key=lambda found: found[0])
    training = [(-1.0, _training(study, k, rng), None) for k in range(study.training)]
    ids = {k: secrets.token_hex(16) for k in range(len(main))}
    ballots = []
    for position, (_, (kind, left, right, expected, again), number) in enumerate([*training, *laid]):
        id = ids[number] if number is not None else secrets.token_hex(16)
        repeats = ids[again] if again is not None else ""
        ballots.append(Ballot(id, study.name, rater, position, kind, left, right, expected, repeats))
    return ballots


def _counted(study: Study, seen: Seen, rng: np.random.Generator) -> list[tuple[Stimulus, Stimulus | None]]:
    """Least-seen pairs with least-seen items, none twice, each on the side where it stood less."""
    pairs, items = seen.pairs.shape
    codes = {s: k for k, s in enumerate(study.systems)}
    members = np.array([[codes[a], codes[b]] for a, b in study.pairs])
    used, by_item, load = np.zeros((pairs, items), bool), np.zeros(items, int), np.zeros(len(codes), int)
    found = []
    for _ in range(study.per_rater):
        total = seen.pairs.sum(1)
        order = np.lexsort((rng.random(pairs), load[members].sum(1), total))
        pair = next(int(k) for k in order if not used[k].all())
        keys = np.lexsort((rng.random(items), seen.pairs[pair], by_item, used[pair]))
        item = int(keys[0])
        first_left = seen.lean[pair] < 0 or (seen.lean[pair] == 0 and rng.random() < 0.5)
        left, right = _sides(study, pair, study.items[item], first_left)
        seen.add(study.items[item], left, right)
        used[pair, item] = True
        by_item[item] += 1
        load[members[pair]] += 1
        found.append((left, right))
    return found


def _sides(study: Study, pair: int, item: str, first_left: bool) -> tuple[Stimulus, Stimulus | None]:
    a, b = study.pairs[pair]
    if study.design == "questions":
        return Stimulus(a, item), None
    two = (Stimulus(a, item), Stimulus(b, item, OTHER if study.design == "mismatching" else ""))
    return two if first_left else two[::-1]


def _late(study: Study, item: str, rng: np.random.Generator) -> tuple[Stimulus, Stimulus | None, str]:
    """A clip against itself with late sound, and the side that an attentive rater takes."""
    good, late = Stimulus(study.gold_system, item), Stimulus(study.gold_system, item, LATE)
    if study.design == "questions":
        return late, None, "low"
    return (good, late, "left") if rng.random() < 0.5 else (late, good, "right")


def _gold(study: Study, rng: np.random.Generator) -> tuple:
    return "gold", *_late(study, study.items[int(rng.integers(len(study.items)))], rng), None


def _training(study: Study, k: int, rng: np.random.Generator) -> tuple:
    return "training", *_late(study, study.training_items[k % len(study.training_items)], rng), None


def _trap(study: Study, counted: list, rng: np.random.Generator) -> tuple:
    left, right = counted[int(rng.integers(len(counted)))]
    expected = str(rng.integers(6)) if study.design == "questions" else ("left", "right")[int(rng.integers(2))]
    return "trap", left, right, expected, None


def check_answer(study: Study, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as it is stored: every question of the study answered, or {"cannot_play": True}. Raises StudyError."""
    if answer.get("cannot_play") is True:
        return {"cannot_play": True}
    sides = ("left_", "right_") if study.two_systems else ("",)
    wanted: dict[str, tuple] = {}
    for question in study.questions:
        if question.key in SCALES:
            wanted |= {side + question.key: tuple(range(6)) for side in sides}
        else:
            wanted[question.key] = PREFERENCES if question.key == "preference" else PREFERENCES[:2]
    for key, allowed in wanted.items():
        value = answer.get(key)
        if isinstance(value, bool) or value not in allowed:
            raise StudyError("Please answer every question, then press Next.")
    return {key: answer[key] for key in wanted}


def outcome(ballot: Ballot, answer: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> str:
    """What a check ballot shows: "passed", "failed", "not_made"; "" for one that checks nothing.

    earlier  the answer to the ballot that this one repeats, None where there is none
    """
    if ballot.kind in ("training", "counted"):
        return ""
    if answer.get("cannot_play"):
        return NOT_MADE
    if ballot.kind == "repeat":
        if earlier is None or earlier.get("cannot_play"):
            return NOT_MADE
        return PASSED if _agree(answer, earlier) else FAILED
    chosen = answer.get("preference", answer.get("mismatching"))
    if ballot.expected in ("left", "right"):
        return PASSED if chosen == ballot.expected else FAILED
    scores = [answer[k] for k in SCALES if k in answer]
    if ballot.expected == "low":
        return PASSED if answer.get("sync", 5) <= LOW_SYNC else FAILED
    return PASSED if scores and all(s == int(ballot.expected) for s in scores) else FAILED


def _agree(answer: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    turned = {"left": "right", "right": "left"}
    for key in ("preference", "mismatching"):
        if key in answer:
            return answer[key] == turned.get(earlier.get(key), earlier.get(key))
    return all(abs(answer[k] - earlier.get(k, 99)) <= NEAR for k in answer if k in SCALES)


class Tokens:
    """Signed tokens that expire: of a ballot, and of each of its videos (a name that tells nothing and is good once).

    key  secret of this installation, 16 bytes or more
    """

    def __init__(self, key: bytes, seconds: int = TOKEN_S) -> None:
        if len(key) < 16:
            raise StudyError("The key that signs ballots needs 16 bytes or more.")
        self._seconds = seconds
        self._signers = {k: URLSafeTimedSerializer(key, salt=f"resynced-{k}") for k in ("ballot", "video")}

    def ballot(self, ballot: str, rater: str) -> str:
        """A token with which this rater may answer this ballot."""
        return self._signers["ballot"].dumps([ballot, rater])

    def video(self, ballot: str, side: str) -> str:
        """A name for one video of a ballot, another each time."""
        return self._signers["video"].dumps([ballot, side, secrets.token_hex(4)])

    def read_ballot(self, token: str) -> tuple[str, str, float]:
        """Ballot, rater, and how many seconds ago it was served. Raises StudyError: forged, or too old."""
        (ballot, rater), age = self._read("ballot", token, 2)
        return ballot, rater, age

    def read_video(self, token: str) -> tuple[str, str]:
        """Ballot and side. Raises StudyError."""
        (ballot, side, _), _ = self._read("video", token, 3)
        return ballot, side

    def _read(self, kind: str, token: str, parts: int) -> tuple[list, float]:
        try:
            found, stamp = self._signers[kind].loads(str(token)[:1000], max_age=self._seconds, return_timestamp=True)
        except SignatureExpired as error:
            raise StudyError("This page was open for too long: reload it to go on.") from error
        except BadSignature as error:
            raise StudyError("This ballot is not one of ours: reload the page.") from error
        if not isinstance(found, list) or len(found) != parts:
            raise StudyError("This ballot is not one of ours: reload the page.")
        return found, (datetime.now(UTC) - stamp).total_seconds()
