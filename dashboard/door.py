"""The way in: asks people to sign in where that is set up, says whom it refuses, and which pages somebody finds.

It only shows; what may be seen and done is asked again by every page and action (dashboard/boundary.py).
"""

from collections.abc import Sequence

import streamlit as st
from sqlalchemy.exc import SQLAlchemyError

from dashboard.access import NotAllowedError, Visitor, providers
from dashboard.boundary import looking
from dashboard.links import PAGES, PEOPLE, PageSpec
from dashboard.text import escape, show, show_empty, soft
from store.database import LogError
from store.settings import SettingsError
from store.vocabulary import AccessRole


def allowed_pages() -> tuple[Sequence[PageSpec], Visitor | None]:
    """The pages of whoever looks, and who that is if they signed in; no page, and a way in, for who may see nothing."""
    try:
        somebody = looking()
    except NotAllowedError as error:
        show_empty("Nobody is let in", str(error))
        return (), None
    except (LogError, SettingsError, SQLAlchemyError):
        return PAGES, None  # the page says what is wrong, and shows nothing else
    if somebody.role is None:
        show_door(somebody)
        return (), None
    pages = (*PAGES, PEOPLE) if somebody.may(AccessRole.OPERATOR) else PAGES
    return pages, somebody if somebody.signed_in else None


def show_door(somebody: Visitor) -> None:
    """Sign in, or sign out where the name has no role."""
    if somebody.signed_in and somebody.name:
        hint = f"You are signed in as {somebody.name}, who has no role here. An operator lets you in by:"
        show_empty("You are not on the list", hint, f"checkloop people add {somebody.name} viewer")
    elif somebody.signed_in:
        show_empty("Nobody knows who you are", "Your provider gives neither a verified e-mail address nor a subject.")
    else:
        show_empty("checkloop", "Sign in to see what your agents did, what was judged, and what was trained.")
    with st.container(horizontal=True, horizontal_alignment="center"):
        if somebody.signed_in:
            st.button("Sign out", icon=":material/logout:", key="sign-out", on_click=st.logout)
            return
        names = providers()
        for name in names or ["default"]:
            label = "Sign in" if name == "default" else f"Sign in with {name}"
            wanted = None if name == "default" else name
            if st.button(label, icon=":material/login:", type="primary", key=f"sign-in-{name}"):
                st.login(wanted)


def show_account(somebody: Visitor) -> None:
    """In the sidebar: who is signed in, as what, and the way out."""
    with st.sidebar:
        show(f'<div class="cl-text"><b>{escape(somebody.name)}</b><br>{soft(str(somebody.role))}</div>')
        st.button("Sign out", icon=":material/logout:", type="tertiary", key="sign-out", on_click=st.logout)
