"""Pages with an address of their own, rendered here without gradio: each a module with add(app, context)."""

from .. import operator
from . import frame, leaderboard, rating, studies

PAGES = (frame, operator, leaderboard, rating, studies)
