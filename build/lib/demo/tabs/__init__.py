"""Tabs of the page, in their order: each a module with KEY, a key of i18n, and build(page, context)."""

from . import sync, verify

TABS = (sync, verify)
