"""The dashboard's entry: `streamlit run dashboard/app.py`. Sets the look, lists the pages, runs the one asked for."""

import sys
from pathlib import Path

# Streamlit puts the script's folder on the path, not the project's.
HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

import streamlit as st  # noqa: E402

from dashboard.boundary import show_sidebar  # noqa: E402
from dashboard.door import find_way, show_account, show_door  # noqa: E402
from dashboard.links import PAGES  # noqa: E402
from dashboard.settling import settle  # noqa: E402
from dashboard.theme import STYLE  # noqa: E402

st.set_page_config(
    page_title="checkloop",
    page_icon=str(HERE / "icon.svg"),
    layout="wide",
    initial_sidebar_state=225,
)
st.logo(str(HERE / "logo.svg"), icon_image=str(HERE / "icon.svg"), size="large")
st.html(STYLE)
way = find_way()
chosen = st.navigation(
    [
        st.Page(
            page.target,
            title=page.title,
            icon=page.icon,
            url_path=page.path,
            default=page is PAGES[0],
            help=page.help,
        )
        for page in way.pages
    ],
    position="sidebar" if way.is_open else "hidden",
)
if way.is_open:
    show_sidebar()
    show_account(way)
    chosen.run()
    settle(chosen.url_path)
else:
    show_door(way)
