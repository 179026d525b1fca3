"""An OpenID provider on loopback: discovery, authorization code, tokens signed with RS256, keys. It asks nobody for a
password: whoever `claims` describes is signed in."""

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "checkloop", "hush"


class IdentityProvider(ThreadingHTTPServer):
    """`claims`: of who signs in next. `refused`: requests for tokens that were not what the code was given for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.issuer = f"http://127.0.0.1:{self.server_address[1]}"
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.claims: dict[str, object] = {"sub": "4711"}
        self.asked: dict[str, dict[str, str]] = {}
        """By code, what the authorization was asked for with."""
        self.refused = 0

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def jwks(self) -> dict[str, Any]:
        public = self.key.public_key().public_numbers()
        return {
            "keys": [{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": _b64(public.n), "e": _b64(public.e)}]
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser is sent."""
        code = secrets.token_urlsafe(8)
        self.asked[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str], user: str) -> dict[str, Any] | None:
        asked = self.asked.pop(form.get("code", ""), None)
        told = (
            (form.get("client_id"), form.get("client_secret")) if "client_secret" in form else tuple(user.split(":", 1))
        )
        if asked is None or form["redirect_uri"] != asked["redirect_uri"] or told != (CLIENT_ID, CLIENT_SECRET):
            self.refused += 1
            return None
        now = int(time.time())
        about = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked.get("nonce")}
        signed = jwt.encode(about | self.claims, self.key, algorithm="RS256", headers={"kid": "1"})
        return {"access_token": secrets.token_urlsafe(8), "token_type": "Bearer", "expires_in": 300, "id_token": signed}


class _Handler(BaseHTTPRequestHandler):
    server: IdentityProvider

    def do_GET(self) -> None:
        url = urlparse(self.path)
        if url.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            self.send_response(302)
            self.send_header("Location", self.server.authorize(asked))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        documents = {"/.well-known/openid-configuration": self.server.discovery, "/jwks": self.server.jwks}
        self._send(documents[url.path]() if url.path in documents else None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        basic = self.headers.get("Authorization", "").removeprefix("Basic ")
        self._send(self.server.token(form, base64.b64decode(basic).decode()))

    def _send(self, document: dict[str, Any] | None) -> None:
        body = json.dumps(document or {"error": "invalid_grant"}).encode()
        self.send_response(400 if document is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on standard error."""


@contextmanager
def running_provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    threading.Thread(target=provider.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield provider
    finally:
        provider.shutdown()
        provider.server_close()


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
