"""Who is looking, and what they may do (docs/dashboard-access.md). Reads `st.user` and the roles in the log.

Without sign-in the server has to be on loopback, and whoever sits there is operator; otherwise nobody is let in.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import streamlit as st

from store.access import machine_user, role_of
from store.database import Log
from store.settings import Settings, SettingsError
from store.vocabulary import AccessRole


class NotAllowedError(RuntimeError):
    """Whoever acts or looks may not; says what is missing."""


@dataclass(frozen=True)
class Visitor:
    name: str
    role: AccessRole | None
    """None: may not see anything."""
    signed_in: bool

    def may(self, needed: AccessRole) -> bool:
        return self.role is not None and self.role.includes(needed)


NOBODY = Visitor("", None, signed_in=False)
"""Somebody who has not signed in where people have to."""


def sign_in_is_on() -> bool:
    """Streamlit sets the flag for everybody as soon as its secrets have a section [auth]."""
    return "is_logged_in" in st.user


def visitor(settings: Settings, open_log: Callable[[], Log]) -> Visitor:
    """Who looks. Asks the log only where people sign in. Raises NotAllowedError where they should and cannot."""
    if not sign_in_is_on():
        address = str(st.get_option("server.address") or "")
        if settings.dashboard.secrets is not None:
            raise NotAllowedError(
                f"Sign-in is set up in {settings.dashboard.secrets}, but that file could not be read: nobody is let in."
            )
        if not is_loopback(address):
            raise NotAllowedError(
                f"This dashboard listens on {address or 'every address'} without sign-in: nobody is let in. Set up "
                "sign-in, or let it listen on 127.0.0.1 (docs/dashboard-access.md)."
            )
        return Visitor(machine_user(), AccessRole.OPERATOR, signed_in=False)
    if not st.user.get("is_logged_in"):
        return NOBODY
    name = name_of(st.user)
    return Visitor(name, role_of(open_log(), name) if name else None, signed_in=True)


def name_of(claims: Mapping[str, object]) -> str:
    """Under which name somebody is known: the e-mail address if the provider verified it, else the subject."""
    email = str(claims.get("email") or "").strip().lower()
    if email and str(claims.get("email_verified", "")).lower() == "true":
        return email
    subject = str(claims.get("sub") or "")
    issuer = str(claims.get("iss") or claims.get("provider") or "").removeprefix("https://")
    return f"sub:{subject}@{issuer}" if subject else ""


def is_loopback(address: str) -> bool:
    """127.0.0.1, ::1 and localhost; a name that may lead elsewhere is not."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


DEFAULT = "default"
"""The provider that stands in [auth] itself."""


def providers() -> list[str]:
    """Those of the secrets, DEFAULT first."""
    section = st.secrets.get("auth", {}) if st.secrets.load_if_toml_exists() else {}
    named = [name for name, value in section.items() if hasattr(value, "items") and name != "client_kwargs"]
    return ([DEFAULT] if "client_id" in section else []) + named


def check_address(settings: Settings, address: str) -> None:
    """Raises SettingsError for another address than loopback without sign-in, and for a sign-in that cannot work."""
    import tomllib
    from importlib.util import find_spec

    file = settings.dashboard.secrets
    if file is None:
        if not is_loopback(address):
            raise SettingsError(
                f"the dashboard has no sign-in, so whoever reaches {address} could do everything: leave the address at "
                "127.0.0.1, or set up sign-in (dashboard.secrets, docs/dashboard-access.md)"
            )
        return
    try:
        section = tomllib.loads(file.read_text()).get("auth", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"dashboard.secrets: {file} cannot be read: {error}") from error
    needed = {"redirect_uri", "cookie_secret"}
    of_provider = {"client_id", "client_secret", "server_metadata_url"}
    named = [value for name, value in section.items() if isinstance(value, dict) and name != "client_kwargs"]
    missing = sorted(needed - set(section))
    for provider in named or [section]:
        missing += sorted(of_provider - set(provider))
    if missing:
        raise SettingsError(f"dashboard.secrets: section [auth] of {file} lacks {', '.join(missing)}")
    if urlsplit(str(section["redirect_uri"])).path.rpartition("/")[2] != "oauth2callback":
        raise SettingsError(f"dashboard.secrets: redirect_uri of {file} has to end with /oauth2callback")
    if find_spec("authlib") is None:
        raise SettingsError('sign-in needs Authlib: pip install "checkloop[signin]"')
