"""The list of trajectories as a file to download; made by store.exports when the button is pressed."""

from io import BytesIO

import streamlit as st

from store.database import Log
from store.exports import MIME, ExportFormat, export_trajectories
from store.trajectory_filters import TrajectoryFilter, TrajectoryOrder

EXPORTED = 2_000
"""Dialogues that the page exports at most: Streamlit holds the file in memory. `checkloop export` knows no bound."""
LARGEST_EXPORT_MB = 32
"""What is begun last may go beyond it by one part of an export."""


def show_export(log: Log, wanted: TrajectoryFilter, order: TrajectoryOrder, total: int) -> None:
    """The list as a file; it is made when the button is pressed, beside the page, with the list's own filter."""
    with st.popover("Export", icon=":material/download:"):
        form = ExportFormat(
            st.radio("Format", [one.value for one in ExportFormat], key="export-format", horizontal=True)
        )
        bound = f"the first {EXPORTED:,} of {total:,}" if total > EXPORTED else f"all {total:,}"
        st.caption(
            f"{bound}, in the order of the list, but no more than about {LARGEST_EXPORT_MB} MB. The command checkloop "
            "export takes any number."
        )

        def made() -> bytes:
            sink = BytesIO()
            export_trajectories(
                log, wanted, form, sink, order=order, limit=EXPORTED, most_bytes=LARGEST_EXPORT_MB * 2**20
            )
            return sink.getvalue()

        ending = "parquet" if form is ExportFormat.PARQUET else "jsonl"
        st.download_button(
            "Download",
            made,
            file_name=f"trajectories.{ending}",
            mime=MIME[form],
            key="export",
            on_click="ignore",
            icon=":material/download:",
        )
