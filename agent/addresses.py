"""Names in the gateway's addresses: sessions, agents, the trajectory that both make; and which hosts are its own."""

import hashlib
import string
import uuid
from urllib.parse import quote, unquote, urlsplit

from agent.openai_form import ApiError
from store.steps import Announcement

MAX_NAME = 64
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_IN_HEADERS = (string.ascii_letters + string.digits + string.punctuation).replace("%", "")


def check_name(kind: str, name: str) -> str:
    """Raises ApiError 400 for a name that is empty, longer than 64 characters or not printable."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise ApiError(400, f"a {kind} name has 1 to {MAX_NAME} printable characters", f"invalid_{kind}")
    return name


def name_in_header(name: str) -> str:
    """Percent-encoded where a header cannot carry it: headers are ASCII, names are any printable characters."""
    return quote(name, safe=_IN_HEADERS)


def name_from_header(kind: str, text: str) -> str:
    """Raises ApiError 400 for what is no percent-encoded UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"a {kind} name in a header is percent-encoded UTF-8", f"invalid_{kind}") from error


def refuse_strangers(authority: str, origin: str | None, host: str) -> None:
    """A page of the web can send requests to a loopback address, under its own name (Origin) or one that it made point
    here (Host). Raises ApiError 403 where either is neither loopback nor `host`, the gateway's own."""
    for header, name in (("Host", _host_of(f"//{authority}")), ("Origin", _host_of(origin) if origin else host)):
        if name not in (*LOOPBACK, host):
            raise ApiError(
                403,
                f"{header} {name!r} is not this gateway's address: without a token (CHECKLOOP_TOKEN) it answers "
                "nobody but programs that call it by its own",
                "foreign_request",
            )


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def new_session() -> str:
    return f"s-{uuid.uuid4().hex[:16]}"


def trajectory_id(session: str, agent: str | None) -> str:
    """The session itself, or `session.agent`; where that is too long, or a dot in a name would make it ambiguous, its
    beginning and a hash of both names."""
    if agent is None:
        return session
    whole = f"{session}.{agent}"
    ambiguous = whole.count(".") > 1
    if len(whole) <= MAX_NAME and not ambiguous:
        return whole
    told_apart = f"{session}\0{agent}" if ambiguous else whole
    return f"{whole[: MAX_NAME - 17]}-{hashlib.sha256(told_apart.encode()).hexdigest()[:16]}"


def announcement(session: str, agent: str | None) -> Announcement:
    return Announcement(session=session if agent is not None else None, agent=agent)
