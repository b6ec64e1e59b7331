"""An operator, an account and a user of NATS, as `nsc` makes them: a server's configuration and a credentials file."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

import nkeys

_ALL = -1
_OPERATOR, _ACCOUNT, _USER = nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER
_ACCOUNT_LIMITS = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), _ALL),
    "wildcards": True,
}
_JETSTREAM_LIMITS = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), _ALL)


def make_operator() -> tuple[str, str]:
    """Return what goes into the server's configuration, and the content of the user's credentials file."""
    operator, system, account, user = (_pair(kind) for kind in (_OPERATOR, _ACCOUNT, _ACCOUNT, _USER))
    accounts = {
        _name(system): _token(system, operator, {"type": "account", "version": 2, "limits": _ACCOUNT_LIMITS}),
        _name(account): _token(
            account,
            operator,
            {"type": "account", "version": 2, "limits": {**_ACCOUNT_LIMITS, **_JETSTREAM_LIMITS}},
        ),
    }
    limits = dict.fromkeys(("subs", "data", "payload"), _ALL)
    user_token = _token(user, account, {"type": "user", "version": 2, **limits})
    configuration = (
        f"operator: {_token(operator, operator, {'type': 'operator', 'version': 2})}\n"
        f"system_account: {_name(system)}\n"
        "resolver: MEMORY\n"
        f"resolver_preload: {json.dumps(accounts)}\n"
    )
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return configuration, credentials


def _pair(kind: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def _name(pair: Any) -> str:
    return str(pair.public_key.decode())


def _token(subject: Any, issuer: Any, nats: dict[str, Any]) -> str:
    claims = {"jti": os.urandom(8).hex(), "iat": int(time.time()), "iss": _name(issuer), "name": "test"}
    claims |= {"sub": _name(subject), "nats": nats}
    signed = ".".join(_encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims))
    return f"{signed}.{_encode(issuer.sign(signed.encode()))}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
