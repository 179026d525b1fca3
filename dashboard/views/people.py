"""People: who may sign in and what they may do; for operators. Reads the roles (docs/dashboard-access.md)."""

import streamlit as st

from dashboard import people_actions
from dashboard.access import sign_in_is_on
from dashboard.boundary import run_page
from dashboard.format import moment
from dashboard.job_actions import say_outcome
from dashboard.links import PEOPLE
from dashboard.paging import captioned_offset
from dashboard.people_actions import NAME, ROLE
from dashboard.text import escape, show, show_empty, soft
from store.access import PersonAccess, list_people
from store.database import Log
from store.settings import Settings
from store.vocabulary import AccessRole

ROLES = [role.value for role in AccessRole]
PAGE_SIZE = 10
MEANING = "viewer: sees every page. reviewer: also reviews and chats. operator: also jobs, versions, people."


def show_people(log: Log, settings: Settings) -> None:
    say_outcome()
    if not sign_in_is_on():
        show(
            soft(
                "Nobody signs in: the dashboard listens on this machine alone, and whoever sits there is operator. "
                "Roles count as soon as sign-in is set up (docs/dashboard-access.md)."
            )
        )
    with st.container(horizontal=True, vertical_alignment="bottom", key="person-form"):
        st.text_input("E-mail address", key=NAME, placeholder="ada@example.org", max_chars=128, width=320)
        st.selectbox("Role", ROLES, key=ROLE, width=150, help=MEANING)
        st.button("Add", icon=":material/person_add:", type="primary", key="person-add", on_click=people_actions.add)
    people = list_people(log)
    if not people:
        show_empty(
            "Nobody has a role yet", "Add an operator first, then the others.", "checkloop people add NAME operator"
        )
    else:
        offset = captioned_offset(f"{len(people):,} with a role, by name", len(people), PAGE_SIZE, "p_page")
        for number, one in enumerate(people[offset : offset + PAGE_SIZE], offset):
            show_person(number, one)


def show_person(number: int, one: PersonAccess) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"person-{number}"):
        with st.container(width=380):
            given = soft(f"given by {one.given_by}, {moment(one.since)} UTC")
            show(f'<div class="cl-text"><b>{escape(one.person)}</b><br>{given}</div>')
        key = f"role-{one.person}"
        st.session_state[key] = one.role.value  # what the log says, also after a change that was refused
        st.selectbox(
            f"Role of person {number + 1}",
            ROLES,
            key=key,
            label_visibility="collapsed",
            width=150,
            on_change=people_actions.change,
            args=(one.person, key),
        )
        st.button(
            "Remove",
            icon=":material/person_remove:",
            key=f"remove-{one.person}",
            on_click=people_actions.remove,
            args=(one.person,),
            help="They are refused from their next click on.",
        )


run_page(PEOPLE.title, show_people, AccessRole.OPERATOR)
