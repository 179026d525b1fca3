"""The edge of every page: opens the log once, and turns whatever goes wrong into a message that a person can act on.

Reads the settings and opens the log at `settings.url`. It never creates a log: looking must not write. Stack traces go
to the server's log, not to the page.
"""

import logging
import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import streamlit as st
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from dashboard.access import NOBODY, NotAllowedError, Visitor, sign_in_is_on, visitor
from dashboard.counting import COUNTS, FIRST_COUNT, StillCounting, once_a_request, one_request
from dashboard.text import escape, show, show_code, show_empty, soft, state_badge
from store.database import Log, LogError, open_log
from store.figures import log_state
from store.settings import Settings, SettingsError, load_settings, settings_file
from store.versions import live_version
from store.vocabulary import AccessRole, Durability

logger = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")


class NoLogYetError(LogError):
    """There is no database at the configured address."""


@st.cache_resource(show_spinner=False, max_entries=4, on_release=Log.close)
def _open(url: str, durability: Durability, identity: tuple[int, int] | None) -> Log:
    """`identity` changes when a log file is replaced by another one of the same name."""
    return open_log(url, durability)


def connect(settings: Settings) -> Log:
    """The log of the settings, opened once per server process. Raises NoLogYetError if there is none."""
    try:
        file = make_url(settings.url).database if settings.url.startswith("sqlite") else None
    except SQLAlchemyError:
        file = None  # open_log says what is wrong with the address
    identity = None
    if file and file != ":memory:":
        try:
            stat = os.stat(file)
        except FileNotFoundError as error:
            raise NoLogYetError(f"No file at {file}") from error
        identity = (stat.st_dev, stat.st_ino)
    return _open(settings.url, settings.log.durability, identity)


def counted(log: Log, function: Callable[..., T], **arguments: Any) -> T:
    """`function(log, **arguments)`, counted again only when the log changed, beside the request.

    Raises StillCounting where that takes longer than a page waits and there is no older figure. The result is shared:
    never change it.
    """
    return _counted(log, function, None, arguments)


def counted_every(log: Log, often: timedelta, function: Callable[..., T], **arguments: Any) -> T:
    """As `counted`, and anew after a while where nothing changed: for what depends on the time."""
    return _counted(log, function, int(time.time() // often.total_seconds()), arguments)


def _counted(log: Log, function: Callable[..., T], tick: int | None, arguments: dict[str, Any]) -> T:
    name = f"{function.__module__}.{function.__qualname__}"
    key = (name, log.url, tuple(sorted(arguments.items())))
    state = once_a_request(log.url, lambda: log_state(log))
    result: T = COUNTS.get(key, (state, tick), lambda: function(log, **arguments))
    return result


def looking() -> Visitor:
    """Who looks at the page, or acts on it, now."""
    if sign_in_is_on() and not st.user.get("is_logged_in"):
        return NOBODY  # before anything of the settings or the log is said
    settings = current_settings()
    return visitor(settings, lambda: connect(settings))


def may(needed: AccessRole) -> bool:
    """Whether to show what needs this role. That it is shown allows nothing: `action` asks again."""
    return looking().may(needed)


def require(needed: AccessRole) -> Visitor:
    """Who acts. Raises NotAllowedError for anybody who may not."""
    somebody = looking()
    if somebody.role is None:
        if somebody.signed_in:
            raise NotAllowedError(f"{somebody.name or 'Somebody without a name'} has no role here.")
        raise NotAllowedError("Sign in first.")
    if not somebody.may(needed):
        raise NotAllowedError(f"This needs the role {needed}; {somebody.name} is {somebody.role}.")
    return somebody


@dataclass(frozen=True)
class Action:
    """What somebody does on a page, as a callback of a widget: the one way in which pages change anything."""

    needs: AccessRole
    run: Callable[..., None]


ACTIONS: dict[str, Action] = {}
"""By module and name; a test goes over all of them."""


def action(
    needs: AccessRole, problem_key: str, *refusals: type[Exception], done_key: str | None = None
) -> Callable[[Callable[Concatenate[Log, Settings, P], str | None]], Callable[P, None]]:
    """Makes callbacks of functions that change something: who acts has to have the role `needs`, at that moment.

    The function is given the log and the settings. What it returns is left under `done_key` of the session, and what
    refused it (`refusals`, the log, the settings, the role) or went wrong under `problem_key`, for the page to say.
    """

    said_on_the_page: tuple[type[Exception], ...] = (NotAllowedError, LogError, SettingsError, *refusals)

    def decorate(body: Callable[Concatenate[Log, Settings, P], str | None]) -> Callable[P, None]:
        @wraps(body)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            st.session_state.pop(problem_key, None)
            if done_key is not None:
                st.session_state.pop(done_key, None)
            try:
                require(needs)
                settings = current_settings()
                said = body(connect(settings), settings, *args, **kwargs)
                if done_key is not None and said is not None:
                    st.session_state[done_key] = said
            except said_on_the_page as error:
                st.session_state[problem_key] = str(error)
            except SQLAlchemyError as error:
                logger.exception("an action failed in the database")
                first = str(getattr(error, "orig", None) or error).splitlines()[0]
                st.session_state[problem_key] = f"The database refused it: {first}"
            except Exception as error:  # the named boundary of every action, as `guard` is of every page
                logger.exception("%s failed", body.__qualname__)
                st.session_state[problem_key] = (
                    f"This could not be done: {type(error).__name__}: {error} (the dashboard's log has the whole error)"
                )

        name = f"{body.__module__}.{body.__qualname__}"
        ACTIONS[name] = Action(needs, run)
        return run

    return decorate


def run_page(title: str, body: Callable[[Log, Settings], None], needs: AccessRole = AccessRole.VIEWER) -> None:
    """Runs a page's body under its title; what it raises becomes a message, never a stack trace."""
    st.title(title, anchor=False)
    with one_request() as oldest:
        guard(title, lambda: _with_log(body), needs)
        if (made_at := oldest()) is not None:
            show(soft(f"Counted at {made_at:%H:%M:%S} UTC; the log has changed since and is being counted again."))


def current_settings() -> Settings:
    """Once in a request, and read again only where the file or the environment is another than at the last look."""
    return once_a_request("settings", lambda: _read_settings(_settings_state()))


@lru_cache(maxsize=4)
def _read_settings(state: Hashable) -> Settings:
    """`state` says which file and environment are read; what cannot be read raises each time."""
    return load_settings()


def _settings_state() -> Hashable:
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("CHECKLOOP_")))
    try:
        found = os.stat(settings_file())
    except OSError:
        return environment, None  # load_settings says what is wrong, if anything is
    return environment, (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _with_log(body: Callable[[Log, Settings], None]) -> None:
    settings = current_settings()
    body(connect(settings), settings)


def guard(title: str, body: Callable[[], None], needs: AccessRole = AccessRole.VIEWER) -> None:
    """Runs `body` for who may see it; an error becomes a message in its place. Also the edge of every fragment."""
    try:
        require(needs)
        with one_request():
            body()
    except StillCounting as counting:
        _show_counting(title, counting)
    except NotAllowedError as error:
        show_empty("This is not for everybody", str(error))
    except SettingsError as error:
        _say("The settings are not valid", str(error), "Correct checkloop.toml or the environment, then reload.")
    except NoLogYetError as error:
        show_empty("There is no log yet", f"{error}. Play the demo once, then reload this page:", "make demo")
    except LogError as error:
        _say("The log cannot be read", str(error), "Check database_url in checkloop.toml, then reload this page.")
    except SQLAlchemyError as error:
        logger.exception("page %s: the database failed", title)
        first = str(getattr(error, "orig", None) or error).splitlines()[0]
        _say("The log cannot be read", first, "Is it a checkloop log, and is the disk or the database server well?")
    except Exception as error:  # the named boundary of every page: recorded here, shown as a message
        logger.exception("page %s failed", title)
        detail = f"{type(error).__name__}: {error}"
        _say("This could not be shown", detail, "The dashboard's log has the whole error; other pages still work.")


def _show_counting(title: str, counting: StillCounting) -> None:
    """Says so, and runs the page again as soon as there is something to show."""
    show(soft(f"{title}: {FIRST_COUNT}, which takes a while on a large log …"))

    @st.fragment(run_every=1.0)
    def wait() -> None:
        if counting.done():
            st.rerun()

    wait()


def show_sidebar() -> None:
    """Below the list of pages: which version is live. Says nothing where the log cannot be read: the page will."""
    try:
        settings = current_settings()
        live = live_version(connect(settings))
    except (SettingsError, LogError, SQLAlchemyError):
        return
    with st.sidebar:
        if live is None:
            show(soft("no live version yet"))
        else:
            show(f'<div class="cl-row">{state_badge("live")}<b>{escape(live.name)}</b></div>')


def _say(title: str, detail: str, advice: str) -> None:
    st.error(f"**{title}.** {advice}", icon=":material/error:")
    show_code(detail)
