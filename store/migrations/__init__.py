"""Alembic's scripts for the log; `store.database.open_log` runs them, nobody else needs to.

A new revision: change store/schema/, run `python -m store.migrations "what changes"`, read the file it wrote, and set
`HEAD_REVISION` in store/database.py to it.
"""
