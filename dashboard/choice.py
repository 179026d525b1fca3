"""Select boxes and segments whose value always stands in the address, also where the page chose it.

Streamlit leaves a bound value that equals the widget's default out of the address. Where the default depends on the log
(the newest two versions, say) or on who looks (their time zone), a copied link would show something else tomorrow, or
to somebody else; so these boxes have no default.

Whoever goes back to an address without the value finds the box empty, whatever was set before it was drawn (Streamlit
takes such an address at its word), so the page runs once more then.
"""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st


def choose(
    label: str, options: Sequence[str], start: str, *, key: str, named: Callable[[str], str] = str, **look: Any
) -> str:
    """The option that the address or the reader chose, else `start`; also where what was chosen is no option (any
    more). `named`: how an option is shown, and stands in the address."""
    _begin(options, start, key, named)
    chosen = st.selectbox(label, options, None, key=key, bind="query-params", format_func=named, **look)
    return _chosen(chosen, start, key)


def choose_segment(label: str, options: Sequence[str], start: str, *, key: str, **look: Any) -> str:
    """As `choose`, all options beside each other."""
    _begin(options, start, key, str)
    chosen = st.segmented_control(label, options, required=True, key=key, bind="query-params", **look)
    return _chosen(chosen, start, key)


def run_again_if(emptied: bool, key: str) -> None:
    """Runs the page once more where the box of `key` is empty that the page had filled; not twice in a row."""
    before = st.session_state.pop(f"{key}-emptied", False)
    if emptied and not before:
        st.session_state[f"{key}-emptied"] = True
        st.rerun()


def was_emptied(key: str) -> bool:
    """Whether this run is the one more that `run_again_if` asked for."""
    return bool(st.session_state.get(f"{key}-emptied", False))


def _chosen(chosen: str | None, start: str, key: str) -> str:
    run_again_if(chosen is None, key)
    return start if chosen is None else chosen


def _begin(options: Sequence[str], start: str, key: str, named: Callable[[str], str]) -> None:
    if key in st.session_state:
        if st.session_state[key] not in options:
            st.session_state[key] = start
    elif st.query_params.get(key) not in [named(option) for option in options]:
        st.session_state[key] = start
        st.query_params[key] = named(start)  # Streamlit writes only what is set after the first drawing
