"""Studies: records, events, raters and what they said of themselves, ballots, votes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = depends_on = None


def text(*names: str, length: int | None = None) -> list[sa.Column]:
    return [sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False) for name in names]


def number() -> sa.Column:
    return sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True)


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("name", sa.String(63), primary_key=True),
        *text("record"),
        *text("sha256", length=64),
        *text("date", length=32),
    )
    op.create_table(
        "study_events",
        number(),
        *text("study", length=63),
        *text("event", length=16),
        *text("date", length=32),
    )
    op.create_index("ix_study_events_study", "study_events", ["study"])
    op.create_table(
        "study_raters",
        sa.Column("id", sa.String(32), primary_key=True),
        *text("study", length=63),
        sa.Column("panel", sa.Boolean(), nullable=False),
        *text("date", length=32),
    )
    op.create_index("ix_study_raters_study", "study_raters", ["study"])
    op.create_index("ix_study_raters_date", "study_raters", ["date"])
    op.create_table(
        "study_rater_facts",
        number(),
        *text("rater", "fact", length=32),
        *text("value"),
        *text("date", length=32),
    )
    op.create_index("ix_study_rater_facts_rater", "study_rater_facts", ["rater"])
    op.create_table(
        "study_ballots",
        sa.Column("id", sa.String(32), primary_key=True),
        *text("study", length=63),
        *text("rater", length=32),
        sa.Column("position", sa.Integer(), nullable=False),
        *text("kind", length=16),
        *text("item", "left_system", length=200),
        *text("left_variant", length=16),
        *text("right_system", length=200),
        *text("right_variant", "expected", length=16),
        *text("repeats", "date", length=32),
    )
    op.create_index("ix_study_ballots_rater", "study_ballots", ["rater", "position"], unique=True)
    op.create_index("ix_study_ballots_study", "study_ballots", ["study", "kind"])
    op.create_table(
        "study_votes",
        number(),
        *text("study", length=63),
        *text("rater", "ballot", length=32),
        sa.Column("revision", sa.Integer(), nullable=False),
        *text("answer", "timings"),
        sa.Column("elapsed_s", sa.Double(), nullable=False),
        *text("date", length=32),
        sa.UniqueConstraint("ballot", "revision"),
    )
    op.create_index("ix_study_votes_study", "study_votes", ["study"])
    op.create_index("ix_study_votes_rater", "study_votes", ["rater"])
