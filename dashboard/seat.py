"""Which browser somebody sits at, for who has no sign-in to be told apart by: two people may give one name.

Streamlit's cookie against forged requests is the browser's own, the same in all its windows and after a reload. Its
value is masked anew with each answer; the token below the mask stays.
"""

import hashlib

import streamlit as st

COOKIE = "_streamlit_xsrf"


def browser_of(cookie: str) -> str:
    """A short name of the browser that sends this cookie; empty where it is none that can be read."""
    version, *parts = cookie.strip("\"'").split("|")
    try:
        mask, masked = (bytes.fromhex(part) for part in parts[:2])
    except ValueError:
        return ""
    if version != "2" or not mask or not masked:
        return ""
    token = bytes(byte ^ mask[place % len(mask)] for place, byte in enumerate(masked))
    return hashlib.sha256(token).hexdigest()[:12]


def browser() -> str:
    """Of whoever looks now; empty where their browser sends no cookie."""
    return browser_of(str(st.context.cookies.get(COOKIE, "")))
