"""Sets, systems, runs, scores, distances, checks, withdrawals; claims and derived tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = depends_on = None


def text(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def number(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.Double()) for name in names]


def count(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.Integer(), nullable=False) for name in names]


def record(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.JSON(), nullable=False) for name in names]


def fact(table: str, *columns: sa.Column) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        *text("key", "date"),
        *columns,
        sa.UniqueConstraint("key"),
    )


def upgrade() -> None:
    fact("sets", *text("name", "version", "title", "licence", "footer"), *count("pairs"), *record("record"))
    fact("systems", *text("name", "fingerprint", "tier"), *record("card"))
    op.create_index("ix_systems_fingerprint", "systems", ["fingerprint"])
    fact("runs", *text("set_sha256", "command", "commit"), *record("environment", "settings"))
    fact(
        "scores",
        *text("run", "work", "set_name", "set_sha256", "pair", "category", "speaker", "language"),
        *text("system", "fingerprint", "tier"),
        *count("attempt"),
        *text("measure_version", "evaluator", "evaluator_sha256", "protocol", "protocol_hash"),
        sa.Column("offset", sa.Integer()),
        *number("lse_d", "lse_c", "certainty", "coverage", "identity", "sharpness", "movement"),
        *count("frames"),
        *number("seconds"),
        sa.Column("reason", sa.String()),
        *text("video_sha256"),
        *record("record"),
    )
    op.create_index("ix_scores_run", "scores", ["run"])
    op.create_index("ix_scores_work", "scores", ["work"])
    view = ["set_sha256", "protocol_hash", "evaluator_sha256", "measure_version", "id"]
    op.create_index("ix_scores_view", "scores", view)
    op.create_index("ix_scores_pair", "scores", ["set_sha256", "fingerprint", "pair"])
    fact(
        "distances",
        *text("run", "set_sha256", "system", "fingerprint", "category"),
        *text("encoder", "encoder_sha256", "title", "crop"),
        *count("clips", "n_real", "n_made"),
        *number("frechet", "extrapolated", "kid"),
    )
    op.create_index("ix_distances_set_sha256", "distances", ["set_sha256"])
    fact(
        "checks",
        *text("run", "set_sha256", "measure_version", "evaluator", "evaluator_sha256", "protocol", "protocol_hash"),
        *count("tried", "found"),
        *record("record"),
    )
    op.create_index("ix_checks_set_sha256", "checks", ["set_sha256"])
    fact("withdrawals", *text("kind", "target", "reason"))
    op.create_index("ix_withdrawals_target", "withdrawals", ["target"])
    op.create_table(
        "claims",
        sa.Column("work", sa.String(), primary_key=True),
        *text("owner"),
        sa.Column("until", sa.Double(), nullable=False),
    )
    op.create_table("derived", sa.Column("name", sa.String(), primary_key=True), *record("state"))
