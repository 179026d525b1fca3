"""Signing in at an OpenID provider, in a real browser: who comes in, under which name, and out again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, expect

from agent.ports import free_port
from dashboard.process import DashboardProcess
from dashboard.screenshots import open_browser, wait_until_shown
from store.access import add_person
from store.database import open_log
from store.settings import load_settings
from store.vocabulary import AccessRole
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, running_provider
from tests.sample_log import build_sample_log

pytest.importorskip("authlib", reason='sign-in is an extra: pip install "checkloop[signin]"')
pytestmark = pytest.mark.timeout(900)
ADA = "ada@example.org"


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Of this module alone: the option is the process's, and other modules run in it."""
    expect.set_options(timeout=90_000)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('sign-in')}/log.db"
    build_sample_log(url).close()
    return url


@pytest.fixture(scope="module")
def dashboard(database_url: str, provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("home"), free_port()
    secrets: Path = home / "secrets.toml"
    secrets.write_text(
        f"""[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
server_metadata_url = "{provider.issuer}/.well-known/openid-configuration"
"""
    )
    settings = load_settings(
        home=home, database_url=database_url, dashboard={"secrets": secrets}, gateway={"port": free_port()}
    )
    with DashboardProcess(settings, port) as running:
        yield running.url


@pytest.fixture
def page(dashboard: str) -> Iterator[Page]:
    with open_browser() as browser:
        opened = browser.new_page(viewport={"width": 1440, "height": 1000})
        for _ in range(100):  # until the server is up
            try:
                opened.goto(dashboard)
                break
            except Error:
                opened.wait_for_timeout(300)
        else:
            pytest.fail(f"the dashboard at {dashboard} did not answer within 30 s")
        yield opened


def sign_in(page: Page) -> None:
    page.get_by_role("button", name="Sign in").click()


def test_who_signs_in_is_let_in_by_the_role_and_goes_out_again(
    page: Page, dashboard: str, provider: IdentityProvider, database_url: str
) -> None:
    provider.claims = {"sub": "4711", "email": "Ada@Example.org", "email_verified": True}
    expect(page.get_by_text("Sign in to see what your agents did")).to_be_visible()
    assert "v0003" not in page.content()
    sign_in(page)
    expect(page.get_by_text(f"checkloop people add {ADA} viewer")).to_be_visible()
    assert "v0003" not in page.content()

    log = open_log(database_url)
    add_person(log, ADA, AccessRole.OPERATOR, given_by="root")
    page.goto(f"{dashboard}/people")
    wait_until_shown(page)
    expect(page.get_by_text(ADA).first).to_be_visible()
    expect(page.get_by_text("operator").first).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("Sign in to see what your agents did")).to_be_visible()

    provider.claims = {"sub": "4712", "email": ADA, "email_verified": False}
    sign_in(page)
    name = f"sub:4712@{provider.issuer}"
    expect(page.get_by_text(f"checkloop people add {name} viewer")).to_be_visible()
    assert provider.refused == 0
    log.close()


def test_a_token_that_another_key_signed_lets_nobody_in(
    page: Page, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    provider.claims = {"sub": "4711", "email": ADA, "email_verified": True}
    known = provider.jwks()
    monkeypatch.setattr(provider, "jwks", lambda: known)
    monkeypatch.setattr(provider, "key", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    sign_in(page)
    page.wait_for_timeout(3000)
    page.goto(page.url.split("/oauth2callback")[0])
    expect(page.get_by_text("Sign in to see what your agents did")).to_be_visible()
