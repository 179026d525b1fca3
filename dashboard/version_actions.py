"""What a person does with policy versions on the training page: promote, refuse, roll back, pin, give a share of the
sessions; each asked twice.

The commands `checkloop policy promote`, `refuse`, `rollback`, `pin` and `split` call the same functions. What changes
who answers goes through the running gateway, which proves it; without one it is said how to start it.
"""

from collections.abc import Mapping, Sequence

import streamlit as st

from agent.promotion import refuse_version
from dashboard.beside import follow_newest
from dashboard.choice import choose
from dashboard.format import figures, moment
from dashboard.gateway_status import GatewayState, ask_gateway
from dashboard.job_actions import action
from dashboard.links import TRAINING
from dashboard.promotions import promotions
from dashboard.text import escape, show, soft, state_badge, status_badge
from store.database import Log, LogError
from store.settings import Settings
from store.traffic import TrafficSplit, pin_version, pinned_versions, traffic_split
from store.versions import PRUNED, GateDecision, PolicyVersion, list_versions, previous_live
from store.vocabulary import VERSION_TRANSITIONS, VersionState

REASON = "version-reason"
PERCENT = "share-percent"


def show_actions(log: Log, settings: Settings, decisions: Sequence[GateDecision]) -> None:
    """A version to choose, and what can be done with it."""
    follow_newest(TRAINING.title, promotions())
    versions = list_versions(log)
    pins = pinned_versions(log)
    names = [version.name for version in reversed(versions)]
    with st.container(horizontal=True, vertical_alignment="bottom", key="version-actions"):
        chosen = choose("Version", names, names[0], key="version", width=150)
        version = next(one for one in versions if one.name == chosen)
        refusal = why_not_promoted(version)
        if st.button("Promote …", icon=":material/upgrade:", key="promote", disabled=bool(refusal), help=refusal):
            confirm_promotion(settings, version, decisions, "Promote")
        only = None if version.state is VersionState.CANDIDATE else f"{version.name} is {version.state}: no candidate."
        if st.button("Refuse …", icon=":material/block:", key="refuse", disabled=bool(only), help=only):
            confirm_refusal(version, decisions)
        before = _before(log)
        label = f"Roll back to {before.name} …" if before else "Roll back …"
        if st.button(label, icon=":material/undo:", key="rollback", disabled=before is None) and before:
            confirm_promotion(settings, before, decisions, "Roll back")
        split = traffic_split(log)
        share = f"{100 * split.share:g} % to {split.candidate} …" if split else "Share …"
        hint = only if split is None else None
        if st.button(share, icon=":material/call_split:", key="share", disabled=bool(hint), help=hint):
            confirm_share(settings, version, split)
        pinned = version.name in pins
        label = f"Unpin {version.name} …" if pinned else f"Pin {version.name} …"
        if st.button(label, icon=":material/keep:", key="pin", help="A pinned version is not pruned."):
            confirm_pin(version, pins)


def why_not_promoted(version: PolicyVersion) -> str | None:
    """Why a version cannot be made live; None if it can."""
    if version.state is VersionState.LIVE:
        return f"{version.name} is live."
    if VersionState.LIVE not in VERSION_TRANSITIONS[version.state]:
        return f"{version.name} is {version.state}: it cannot be made live."
    if PRUNED in version.figures:
        return f"The weights of {version.name} have been pruned."
    return None


def _before(log: Log) -> PolicyVersion | None:
    try:
        return previous_live(log)
    except LogError:
        return None


@st.dialog("Change what is live?")
def confirm_promotion(
    settings: Settings, version: PolicyVersion, decisions: Sequence[GateDecision], label: str
) -> None:
    """What speaks for the version, a reason to record, and the button that does it."""
    show_what_is_known(version, decisions)
    st.text_input("Reason", "by hand", key=REASON, help="Recorded with the change.")
    absent = say_if_absent(settings)
    with st.container(horizontal=True):
        done = st.button(
            f"{label} {version.name}" if label == "Promote" else f"{label} to {version.name}",
            type="primary",
            key="promote-yes",
            disabled=absent,
            on_click=start_promotion,
            args=(version.name,),
        )
        if st.button("Leave it", key="promote-no") or done:
            st.rerun()


@st.dialog("Which share of the sessions?")
def confirm_share(settings: Settings, version: PolicyVersion, split: TrafficSplit | None) -> None:
    """A candidate answers some of the sessions beside the live version; or the share there is, is taken back."""
    if split is not None:
        show(soft(f"{100 * split.share:g} % go to {split.candidate}: {split.reason}"))
    absent = say_if_absent(settings)
    candidate = version.state is VersionState.CANDIDATE
    if candidate:
        show(soft(f"Each session stays with the version that it began with; {version.name} is loaded beside."))
        st.number_input("Percent of the sessions", 1, 100, 10, key=PERCENT)
    st.text_input("Reason", "by hand", key=REASON, help="Recorded with the change.")
    with st.container(horizontal=True):
        done = candidate and st.button(
            f"Give it to {version.name}",
            type="primary",
            key="share-yes",
            disabled=absent,
            on_click=start_share,
            args=(version.name,),
        )
        if split is not None:
            back = st.button("All to the live version", key="share-back", disabled=absent, on_click=end_share)
            done = done or back
        if st.button("Leave it", key="share-no") or done:
            st.rerun()


def say_if_absent(settings: Settings) -> bool:
    """Whether there is no gateway to change who answers; says how to start it."""
    absent = ask_gateway(settings.gateway_url) is not GatewayState.READY
    if absent:
        show('<div class="cl-refused">The gateway is not running. Start it first: <code>checkloop up</code></div>')
    return absent


@st.dialog("Refuse the candidate?")
def confirm_refusal(version: PolicyVersion, decisions: Sequence[GateDecision]) -> None:
    show_what_is_known(version, decisions)
    show(soft("No gate and nobody can make it live any more; sessions that it answers go to the live version."))
    st.text_input("Reason", "by hand", key=REASON, help="Recorded with the change.")
    with st.container(horizontal=True):
        done = st.button(
            f"Refuse {version.name}", type="primary", key="refuse-yes", on_click=refuse, args=(version.name,)
        )
        if st.button("Leave it", key="refuse-no") or done:
            st.rerun()


def show_what_is_known(version: PolicyVersion, decisions: Sequence[GateDecision]) -> None:
    """Its state, and what gates said of it."""
    show(f'<div class="cl-row"><b>{escape(version.name)}</b>{state_badge(version.state)}</div>')
    of_it = [decision for decision in decisions if decision.candidate == version.name]
    for decision in of_it:
        show(
            f'<div class="cl-row">{status_badge(decision.outcome)}'
            f"{soft(f'gate against {decision.live}, {moment(decision.created_at)} UTC')}</div>"
            f"<p>{escape(decision.reason)}<br>{soft(figures(decision.figures))}</p>"
        )
    if not of_it:
        show(soft("The gate has not decided on it: nobody has held it against the live version."))


@st.dialog("Pruning")
def confirm_pin(version: PolicyVersion, pins: Mapping[str, str]) -> None:
    pinned = version.name in pins
    said = f"pinned: {pins[version.name]}" if pinned else "not pinned: old versions lose their weights by and by"
    show(f"<b>{escape(version.name)}</b> {soft(said)}")
    st.text_input("Reason", "by hand", key=REASON, help="Recorded with the change.")
    with st.container(horizontal=True):
        done = st.button(
            "Unpin it" if pinned else "Pin it",
            type="primary",
            key="pin-yes",
            on_click=set_pin,
            args=(version.name, not pinned),
        )
        if st.button("Leave it", key="pin-no") or done:
            st.rerun()


@action
def start_promotion(log: Log, settings: Settings, version: str) -> str:
    promotions().start(settings, version, _reason())
    return f"{version} is being loaded"


@action
def start_share(log: Log, settings: Settings, version: str) -> str:
    promotions().share(settings, version, int(st.session_state[PERCENT]) / 100, _reason())
    return f"{version} is being loaded"


@action
def end_share(log: Log, settings: Settings) -> str:
    promotions().share(settings, None, 0.0, _reason())
    return "the share is being taken back"


@action
def refuse(log: Log, settings: Settings, version: str) -> str:
    refuse_version(log, settings, version, _reason())
    return f"{version} is refused"


@action
def set_pin(log: Log, settings: Settings, version: str, pinned: bool) -> str:
    pin_version(log, version, _reason(), pinned=pinned)
    return f"{version} is {'pinned' if pinned else 'not pinned'}"


def _reason() -> str:
    return str(st.session_state.get(REASON) or "").strip() or "by hand"
