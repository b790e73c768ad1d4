"""Where the service is, who we are, and where the store lies. Secrets never print."""

from __future__ import annotations

import html
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from d22kit.errors import ConfigError, InputError

__all__ = ["ROOTS", "Endpoint", "path_text", "store_root"]

ROOTS = {"production": "https://v3-api.cleargrid.ai", "staging": "https://stage-v3-api.cleargrid.ai"}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the D22 service is and who asks: the address of a lender's export and its credentials.

    Parameters
    ----------
    root
        `"staging"`, `"production"` or a root address such as `"https://v3-api.cleargrid.ai"`. It has no
        default: an integrator chooses on purpose. Plain HTTP is accepted on this machine (loopback) only.
    lender, email, password
        The lender's subdomain identifier and the login that belongs to it.
    lender_id, token
        In place of the three: the lender's public id and a bearer token from elsewhere. Such a token cannot
        be renewed, so a long backfill may outlive it.

    Raises
    ------
    ConfigError
        Where the address is no HTTPS address, or the credentials are missing, half or both kinds.

    Examples
    --------
    >>> Endpoint(root="staging", lender="acme", email="ana@acme.example", password="s3cret")
    Endpoint(root='https://stage-v3-api.cleargrid.ai', lender='acme', credentials='email and password')
    """

    root: str
    lender: str | None = None
    email: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    lender_id: str | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", _root(self.root))
        login = (self.lender, self.email, self.password)
        direct = (self.lender_id, self.token)
        if any(direct) and any(login):
            raise ConfigError(
                "Both kinds of credentials are given. Keep lender, email and password, or lender_id and token."
            )
        if not all(login) and not all(direct):
            names = ("lender_id", "token") if any(direct) else ("lender", "email", "password")
            missing = [name for name in names if not getattr(self, name)]
            raise ConfigError(
                f"Credentials are incomplete: {', '.join(missing)} missing. An Endpoint needs lender, email "
                "and password (it logs in and renews its token), or lender_id and token. In the environment "
                "they are D22KIT_LENDER, D22KIT_EMAIL and D22KIT_PASSWORD, or D22KIT_LENDER_ID and D22KIT_TOKEN."
            )

    @classmethod
    def from_env(cls) -> Endpoint:
        """Return the endpoint that the environment names.

        Reads `D22KIT_ROOT` and either `D22KIT_LENDER`, `D22KIT_EMAIL`, `D22KIT_PASSWORD` or
        `D22KIT_LENDER_ID`, `D22KIT_TOKEN`.

        Raises
        ------
        ConfigError
            Where a variable is missing; names which.
        """
        values = {name: os.environ.get(f"D22KIT_{name.upper()}") for name in cls.__dataclass_fields__}
        root = values.pop("root")
        if not root:
            raise ConfigError(
                "D22KIT_ROOT is not set. Set it to 'staging' or 'production' (it has no default: choose on "
                "purpose), or pass endpoint=d22kit.Endpoint(root=..., lender=..., email=..., password=...). "
                "To try d22kit without an account, run 'd22kit demo'."
            )
        return cls(root=root, **values)

    @property
    def login_url(self) -> str:
        """Where a login is posted."""
        return f"{self.root}/admin/auth/{quote(self.lender or '', safe='')}/login"

    @property
    def refresh_url(self) -> str:
        """Where a refresh token is posted."""
        return f"{self.root}/admin/auth/{quote(self.lender or '', safe='')}/refresh-token"

    def export_url(self, lender_id: str) -> str:
        """Where the pages of D22 are read."""
        return f"{self.root}/admin/v3/lenders/{quote(lender_id, safe='')}/exports/S4/D22"

    def __repr__(self) -> str:
        who = f"lender={self.lender!r}" if self.lender else f"lender_id={self.lender_id!r}"
        kind = "email and password" if self.password else "token"
        return f"Endpoint(root={self.root!r}, {who}, credentials={kind!r})"

    def _repr_html_(self) -> str:
        return f"<code>{html.escape(repr(self))}</code>"


def store_root(data: str | os.PathLike[str] | None = None) -> str:
    """Return the store's root: `data`, else `$D22KIT_DATA`, else `data` in the working directory.

    A local path comes back absolute; a URL such as `s3://bucket/store` without its trailing slash.

    Examples
    --------
    >>> store_root("s3://bucket/store/")
    's3://bucket/store'
    """
    place = os.environ.get("D22KIT_DATA") or "data" if data is None else path_text(data)
    if "://" in place:
        scheme, _, name = place.rstrip("/").partition("://")
        if not name:
            raise ConfigError(f"{place!r} names no bucket. Give one, as in s3://bucket/store.")
        if ":" in name.partition("/")[0].rpartition("@")[0]:
            raise ConfigError(
                f"An address of {scheme}:// holds credentials. Give them in the environment instead."
            )
        return f"{scheme}://{name}"
    path = Path(place).expanduser().absolute()
    # As the system reads it: what lies above a link is above the place that it leads to.
    return str(path.resolve() if ".." in path.parts else path)


def path_text(path: str | os.PathLike[str]) -> str:
    """Return a path or URL as text.

    Raises
    ------
    InputError
        Where it is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path!r} is a {type(path).__name__}, and no path: give a text or a pathlib.Path.")
    text = os.fspath(path)
    if "\0" in text:
        raise InputError(f"{text!r} is no path: it holds a null character.")
    return text


def _root(root: str) -> str:
    address = ROOTS.get(root, root).rstrip("/")
    parts = urlsplit(address)
    known = "'staging', 'production' or an address such as 'https://v3-api.cleargrid.ai'"
    if parts.username or parts.password:
        raise ConfigError(f"root holds credentials. Take them out of the address; give {known}.")
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"root={root!r} is no address. Give {known}.")
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise ConfigError(
            f"root={root!r} is plain HTTP, which would show the token to the network. Use https://."
        )
    return address


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
