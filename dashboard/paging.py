"""Which page of a list is looked at; its number is in the address."""

import streamlit as st


def page_offset(total: int, size: int, key: str) -> int:
    """Shows the pages of a list of `total` rows, `size` of them on each, and gives the rows before the one chosen."""
    pages = (total - 1) // size + 1
    number = st.pagination(pages, key=key, bind="query-params") if pages > 1 else 1
    return (number - 1) * size


def captioned_offset(caption: str, total: int, size: int, key: str) -> int:
    """As `page_offset`, beside a caption."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(caption)
        return page_offset(total, size, key)
