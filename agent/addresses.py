"""Names in the gateway's addresses: sessions, agents, and the trajectory that both make."""

import hashlib
import uuid

from agent.openai_form import ApiError
from store.steps import Announcement

MAX_NAME = 64


def check_name(kind: str, name: str) -> str:
    """Raises ApiError 400 for a name that is empty, longer than 64 characters or not printable."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ApiError(400, f"a {kind} name has 1 to {MAX_NAME} printable characters", f"invalid_{kind}")
    return name


def new_session() -> str:
    return f"s-{uuid.uuid4().hex[:16]}"


def trajectory_id(session: str, agent: str | None) -> str:
    """The session itself, or `session.agent`; where that is too long, its beginning and a hash of it."""
    if agent is None:
        return session
    whole = f"{session}.{agent}"
    if len(whole) <= MAX_NAME:
        return whole
    return f"{whole[: MAX_NAME - 17]}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def announcement(session: str, agent: str | None) -> Announcement:
    return Announcement(session=session if agent is not None else None, agent=agent)
