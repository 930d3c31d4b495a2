"""Migrations of the store, numbered; run by alembic when a store is opened."""
