"""Studies: what people are asked about which videos, fixed before the first answer.

Designs:
    preference   two systems on one pair, blind: left, right, tie, both bad
    questions    one video: sync accuracy, visual quality, overall experience, 0 .. 5 with anchors in words
    side_by_side two videos: the three scales for each, and the preference (the paper's four questions)
    mismatching  one system twice, once with the right speech and once with other speech of the same speaker: which
                 fits? (GENEA.) The share of right answers measures sync apart from looks.

The words of the questions belong to the instrument, not to the page: they are kept with the study, so that what raters
read can be printed in a paper. A plan written down before data is part of the record; its hash is published first.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime

from .records import BenchmarkError

DESIGNS = ("preference", "questions", "side_by_side", "mismatching")
SCALES = ("sync", "quality", "experience")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LONGEST_TEXT = 20_000
WIDEST_PX = 3840  # that a study may ask of a window
PUBLIC_VOTES, PRELIMINARY_VOTES = 100, 300


class StudyError(BenchmarkError):
    """A study, a ballot or an answer is not as it must be; the sentence says what to do."""


@dataclass(frozen=True)
class Question:
    """One question as raters read it: `anchors` from 0 to 5 for a scale; for a choice, by answer in order."""

    key: str
    text: str
    anchors: tuple[str, ...]


_ANCHORS = {
    "en": {
        "sync": ("Not in sync at all", "Poor", "Often off", "Fair", "Good, small slips", "As if filmed"),
        "quality": ("Unusable", "Bad: clear errors", "Poor", "Fair", "Good", "As if filmed"),
        "experience": ("Unbearable", "Bad", "Poor", "Fair", "Good", "Excellent"),
        "preference": ("Left", "Right", "Both equally good", "Both bad"),
        "mismatching": ("Left", "Right"),
    },
    "ko": {
        "sync": ("전혀 맞지 않음", "매우 나쁨", "자주 어긋남", "보통", "좋음, 조금 어긋남", "실제 촬영한 것 같음"),
        "quality": ("볼 수 없음", "매우 나쁨: 오류가 뚜렷함", "나쁨", "보통", "좋음", "실제 촬영한 것 같음"),
        "experience": ("견딜 수 없음", "매우 나쁨", "나쁨", "보통", "좋음", "매우 좋음"),
        "preference": ("왼쪽", "오른쪽", "둘 다 비슷하게 좋음", "둘 다 나쁨"),
        "mismatching": ("왼쪽", "오른쪽"),
    },
}
_TEXTS = {
    "en": {
        "sync": "How well do the lips fit the speech?",
        "quality": "How good is the picture, above all around the mouth?",
        "experience": "How good is the video as a whole?",
        "preference": "Which video is better?",
        "mismatching": "In which video does the mouth say what you hear?",
    },
    "ko": {
        "sync": "입술이 말소리와 얼마나 잘 맞습니까?",
        "quality": "화면, 특히 입 주변의 품질은 어떻습니까?",
        "experience": "영상 전체는 얼마나 좋습니까?",
        "preference": "어느 영상이 더 좋습니까?",
        "mismatching": "어느 영상에서 입이 들리는 말을 하고 있습니까?",
    },
}
LANGUAGES = tuple(_TEXTS)
KEYS = {
    "preference": ("preference",),
    "questions": SCALES,
    "side_by_side": (*SCALES, "preference"),
    "mismatching": ("mismatching",),
}
CONSENT = {
    "en": "I am 18 or older. I will watch short videos, some of them made by a computer, and say how good they are. "
    "My answers are stored without my name or address, and published as a table. I may stop at any time, and delete "
    "my answers until the study is closed.",
    "ko": "저는 만 18세 이상입니다. 일부는 컴퓨터로 만든 짧은 영상들을 보고 얼마나 좋은지 답하겠습니다. "
    "답변은 이름이나 주소 없이 저장되며 표로 공개됩니다. "
    "언제든지 그만둘 수 있고, 연구가 끝나기 전까지 답변을 삭제할 수 있습니다.",
}


def questions(design: str, language: str) -> tuple[Question, ...]:
    """The questions of a design, in the rater's language. Raises StudyError."""
    if design not in DESIGNS:
        raise StudyError(
            "There is no design {design!r}: use one of {choices}.", design=design, choices=", ".join(DESIGNS)
        )
    if language not in LANGUAGES:
        raise StudyError(
            "There are no questions in {language!r}: use one of {choices}.",
            language=language,
            choices=", ".join(LANGUAGES),
        )
    return tuple(Question(k, _TEXTS[language][k], _ANCHORS[language][k]) for k in KEYS[design])


@dataclass(frozen=True)
class Rule:
    """When a rater's votes are set aside: fixed before data, part of the plan.

    Each check item speaks for a person who watches or for one who does not, by how often each of them passes it
    (`rates`: attentive, inattentive). The sum of these log likelihood ratios is the rater's score; what could not be
    made adds nothing. Under `least_score` the votes are set aside (kept, not counted).
    """

    gold: tuple[float, float] = (0.90, 0.40)
    trap: tuple[float, float] = (0.97, 0.35)
    repeat: tuple[float, float] = (0.70, 0.35)
    speed: tuple[float, float] = (0.99, 0.50)
    variance: tuple[float, float] = (0.99, 0.60)
    playback: tuple[float, float] = (0.97, 0.50)
    least_score: float = 0.0
    fastest_s: float = 0.7  # median time from the end of playing to the answer: quicker is not thought
    most_alike: float = 0.9  # share of one answer among all, from ten answers on
    partial_p: float = 5e-3  # chance of so many wins for one system, for one rater ...
    ring_size: int = 3  # ... and so many raters with the same favourite are a suspected ring
    usual_excluded: tuple[float, float] = (0.0, 0.25)  # share of raters set aside; outside: alarm
    most_unmade: float = 0.1  # share of checks that could not be made; above: alarm


@dataclass(frozen=True)
class Study:
    """A study as it is fixed before the first answer.

    name        small letters, digits and hyphens
    set_name, set_sha256  the frozen set whose pairs are shown
    systems     names; items: ids of the set's pairs
    fingerprints  of the systems, in their order, as the benchmark's store knows them; empty where it does not
    votes_per_pair  wanted of each pair of systems (or of each system where one video is shown)
    per_rater   counted ballots of one rater
    training, gold, traps, repeats  ballots of a rater that are not counted
    training_items  ids of pairs shown with an explanation first; not among `items`
    gold_system whose clips are shown against themselves with late sound: one in good sync, the real clips where there
                are any; need not be among `systems`; the first of them where none is named
    plan        what will be tested and how, in words; completion_code: one for all, where the panel wants it so
    least_width_px  of a rater's window, in CSS pixels (P.910's gate for screens); 0: any, phones too
    """

    name: str
    title: str
    design: str
    set_name: str
    set_sha256: str
    systems: tuple[str, ...]
    items: tuple[str, ...]
    votes_per_pair: int = 100
    per_rater: int = 20
    training: int = 2
    gold: int = 2
    traps: int = 1
    repeats: int = 2
    training_items: tuple[str, ...] = ()
    gold_system: str = ""
    language: str = "en"
    consent: str = ""
    plan: str = ""
    seed: int = 0
    completion_code: str = ""
    days: int = 14  # that a rater may take, with pauses
    fingerprints: tuple[str, ...] = ()
    least_width_px: int = 0
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if not self.consent and self.language in CONSENT:
            object.__setattr__(self, "consent", CONSENT[self.language])
        if not self.gold_system and self.systems:
            object.__setattr__(self, "gold_system", self.systems[0])
        self._validate()

    def _validate(self) -> None:
        questions(self.design, self.language)
        if not NAME.fullmatch(self.name):
            raise StudyError(
                "{name!r} is no name for a study: small letters, digits and hyphens, at most 63.", name=self.name
            )
        least = 2 if self.two_systems else 1
        if len(set(self.systems)) < least or len(set(self.systems)) != len(self.systems):
            raise StudyError(
                "{name} needs {least} systems or more, each named once: it has {count}.",
                name=self.name,
                least=least,
                count=len(self.systems),
            )
        if not self.items or len(set(self.items)) != len(self.items):
            raise StudyError(
                "{name} needs items, each named once: it has {count}.", name=self.name, count=len(self.items)
            )
        if twice := set(self.items) & set(self.training_items):
            raise StudyError(
                "{item} is shown in training, so it cannot be counted: take another.", item=sorted(twice)[0]
            )
        if self.training and not self.training_items:
            raise StudyError(
                "{name} has {training} training ballots but no training items: name some.",
                name=self.name,
                training=self.training,
            )
        if self.per_rater < 1 or self.per_rater > len(self.items) * len(self.pairs):
            raise StudyError(
                "{per_rater} ballots a rater cannot be made of {items} items and {pairs} pairs without showing one "
                "twice.",
                per_rater=self.per_rater,
                items=len(self.items),
                pairs=len(self.pairs),
            )
        if self.repeats > self.per_rater or self.gold > len(self.items):
            raise StudyError(
                "{name} asks for more repeats or gold items than there are ballots to make them of.", name=self.name
            )
        if min(self.votes_per_pair, self.days) < 1 or min(self.training, self.gold, self.traps, self.repeats) < 0:
            raise StudyError("{name} has a count under its least: votes per pair and days 1, others 0.", name=self.name)
        if not 0 <= self.least_width_px <= WIDEST_PX:
            raise StudyError(
                "A rater's window can be asked to be 0 to {most} pixels wide, not {width}.",
                most=WIDEST_PX,
                width=self.least_width_px,
            )
        if self.fingerprints and len(self.fingerprints) != len(self.systems):
            raise StudyError(
                "{name} has {count} fingerprints for {systems} systems.",
                name=self.name,
                count=len(self.fingerprints),
                systems=len(self.systems),
            )
        if not self.consent.strip():
            raise StudyError("{name} has no consent text: nobody may be asked without one.", name=self.name)
        if max(len(self.plan), len(self.consent)) > LONGEST_TEXT:
            raise StudyError("Plan and consent may have {most:,} letters each.", most=LONGEST_TEXT)

    @property
    def two_systems(self) -> bool:
        """Two systems stand side by side."""
        return self.design in ("preference", "side_by_side")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What is compared: pairs of different systems, or each system alone as (name, name)."""
        if not self.two_systems:
            return tuple((s, s) for s in self.systems)
        return tuple((a, b) for k, a in enumerate(self.systems) for b in self.systems[k + 1 :])

    @property
    def questions(self) -> tuple[Question, ...]:
        return questions(self.design, self.language)

    def to_json(self) -> str:
        """The whole record, words of the questions included, always the same for the same study."""
        return json.dumps(
            {**asdict(self), "questions": [asdict(q) for q in self.questions]}, sort_keys=True, ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> Study:
        """The study of a stored record. Raises StudyError where it is none."""
        try:
            found = json.loads(text)
            rule = {k: tuple(v) if isinstance(v, list) else v for k, v in found.pop("rule").items()}
            known = {f.name for f in fields(cls)}
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k in known}
            return cls(**values, rule=Rule(**rule))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StudyError("This is no record of a study: {error}.", error=error) from error

    @property
    def sha256(self) -> str:
        """Of the record with plan and rule: publish it before the first answer."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def standing(votes: int) -> str:
    """How a system with so many votes may be shown: "hidden", "preliminary" or "public"."""
    return "hidden" if votes < PUBLIC_VOTES else "preliminary" if votes < PRELIMINARY_VOTES else "public"


def now() -> datetime:
    """The present, in UTC, to the millisecond, without a zone: as the tables keep it."""
    moment = datetime.now(UTC).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
