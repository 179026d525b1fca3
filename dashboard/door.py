"""The way in: asks people to sign in where that is set up, says whom it refuses, and which pages somebody finds.

It only shows; what may be seen and done is asked again by every page and action (dashboard/boundary.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st
from sqlalchemy.exc import SQLAlchemyError

from dashboard.access import DEFAULT, NotAllowedError, Visitor, providers
from dashboard.boundary import looking
from dashboard.links import PAGES, PEOPLE, PageSpec
from dashboard.text import escape, escape_markdown, show, show_empty, soft
from store.database import LogError
from store.settings import SettingsError
from store.vocabulary import AccessRole


@dataclass(frozen=True)
class Way:
    """What somebody finds who opens an address of the dashboard."""

    pages: Sequence[PageSpec]
    """Known by their addresses, also to who is not let in: they see the door there."""
    somebody: Visitor | None = None
    """None where that cannot be known; the page says why."""
    refusal: str = ""
    """Why nobody is let in at all."""

    @property
    def is_open(self) -> bool:
        return not self.refusal and (self.somebody is None or self.somebody.role is not None)


def find_way() -> Way:
    try:
        somebody = looking()
    except NotAllowedError as error:
        return Way(PAGES, refusal=str(error))
    except (LogError, SettingsError, SQLAlchemyError):
        return Way(PAGES)
    return Way((*PAGES, PEOPLE) if somebody.may(AccessRole.OPERATOR) else PAGES, somebody)


def show_door(way: Way) -> None:
    """Sign in; or sign out, where the name has no role."""
    somebody = way.somebody
    if somebody is None:
        show_empty("Nobody is let in", way.refusal)
        return
    if somebody.signed_in and somebody.name:
        hint = f"You are signed in as {somebody.name}, who has no role here. An operator lets you in by:"
        show_empty("You are not on the list", hint, f"checkloop people add {somebody.name} viewer")
    elif somebody.signed_in:
        show_empty("Nobody knows who you are", "Your provider gives neither a verified e-mail address nor a subject.")
    else:
        show_empty("checkloop", "Sign in to see what your agents did, what was judged, and what was trained.")
    with st.container(horizontal=True, horizontal_alignment="center"):
        if somebody.signed_in:
            _sign_out()
        else:
            _sign_in()


def _sign_in() -> None:
    for name in providers() or [DEFAULT]:
        label = "Sign in" if name == DEFAULT else f"Sign in with {escape_markdown(name)}"
        if st.button(label, icon=":material/login:", type="primary", key=f"sign-in-{name}"):
            st.login(None if name == DEFAULT else name)


def _sign_out() -> None:
    st.button("Sign out", icon=":material/logout:", type="tertiary", key="sign-out", on_click=st.logout)


def show_account(way: Way) -> None:
    """In the sidebar: who is signed in, as what, and the way out. Nothing where nobody signs in."""
    somebody = way.somebody
    if somebody is None or not somebody.signed_in:
        return
    with st.sidebar:
        show(f'<div class="cl-text"><b>{escape(somebody.name)}</b><br>{soft(str(somebody.role))}</div>')
        _sign_out()
