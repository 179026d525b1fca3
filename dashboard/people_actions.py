"""What an operator does on the page People; `checkloop people` calls the same functions."""

import streamlit as st

from dashboard import boundary
from dashboard.job_actions import action
from store import access
from store.database import Log
from store.settings import Settings
from store.vocabulary import AccessRole

NAME, ROLE = "person-name", "person-role"


@action
def add(log: Log, settings: Settings) -> str:
    """Somebody whose name and role stand in the form."""
    state = st.session_state
    added = access.add_person(log, str(state[NAME] or ""), AccessRole(state[ROLE]), given_by=boundary.looking().name)
    state[NAME] = ""
    return f"{added.person} is {added.role}"


@action
def change(log: Log, settings: Settings, person: str, key: str) -> str:
    """The role that stands in the widget `key`."""
    role = AccessRole(st.session_state[key])
    changed = access.change_role(log, person, role, given_by=boundary.looking().name)
    return f"{changed.person} is {changed.role}"


@action
def remove(log: Log, settings: Settings, person: str) -> str:
    access.remove_person(log, person, given_by=boundary.looking().name)
    return f"{person} has no role any more"
