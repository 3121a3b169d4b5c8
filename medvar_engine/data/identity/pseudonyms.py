"""Pseudonyms of patients and series: keyed hashes, which only the owner of the key can link to names."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_config_path

from medvar_engine.errors import MedvarError

KEY_BYTES = 32
MINIMUM_KEY_BYTES = 16
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Makes pseudonyms by HMAC-SHA256 (RFC 2104), shortened to 48 bits: p < 1e-6 for a collision among 10,000 patients.

    The same key and name give the same pseudonym on every machine. The kind of a name is part of the hash, so equal
    names of a patient and a series cannot be recognised.

    >>> Pseudonyms(bytes(32)).patient("Doe^Jane")
    'p-a1c53df65da0'
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) < MINIMUM_KEY_BYTES:
            raise MedvarError(f"The key has {len(self.key)} bytes; {MINIMUM_KEY_BYTES} or more are needed.")

    def patient(self, name: str) -> str:
        """``p-`` and 12 digits for a patient's id or name."""
        return f"p-{self._hash('patient', name)}"

    def series(self, name: str) -> str:
        """``s-`` and 12 digits for a series' UID, or the path of a file, which may hold names."""
        return f"s-{self._hash('series', name)}"

    def mark(self, kind: str, text: str) -> str:
        """12 digits by which a name or UID is recognised again; ``kind`` is ``"patient"`` or ``"series"``."""
        return self._hash(f"same {kind}", text)

    @property
    def key_id(self) -> str:
        """A public id of the key, to record which key a data set was made with."""
        return f"k-{self._hash('key', '')}"

    def _hash(self, kind: str, name: str) -> str:
        # Names are typed by hand: the same letters in another Unicode form are the same name.
        text = f"medvar {kind}\0{unicodedata.normalize('NFC', name.strip())}"
        return hmac.digest(self.key, text.encode(), "sha256").hex()[:_DIGITS]


def default_key_path() -> Path:
    """The default path of the key, in the user's folder for settings of the platform."""
    return user_config_path("medvar", appauthor=False, roaming=True) / "patient.key"


def known_pseudonyms(path: Path | None) -> Pseudonyms | None:
    """The pseudonyms of the key in ``path``, or at the default path; None without a key there. No key is made.

    Raises `MedvarError` when ``path`` is given and contains no key, or when others can read it.
    """
    place = path or default_key_path()
    try:
        return Pseudonyms(_read_key(place)) if path is not None or place.exists() else None
    except OSError as error:
        raise MedvarError(f"The key {place} cannot be read ({error.strerror or error}).") from error


def load_or_make_key(path: Path, *, outside: Path) -> bytes:
    """The key in the file ``path``; a missing file is made with 64 random hexadecimal digits.

    Only the owner can read the file.
    Raises `MedvarError` when ``path`` lies in the folder ``outside``, the data set that is written and shared; when
    others can read it; or when it contains no key.
    """
    if path.resolve().is_relative_to(outside.resolve()):
        raise MedvarError(
            f"The key {path} would lie inside {outside}, and would be shared with it. Choose another place."
        )
    try:
        if not path.exists():
            _make_key(path)
        return _read_key(path)
    except OSError as error:
        raise MedvarError(f"The key {path} cannot be read or created ({error.strerror or error}).") from error


def _read_key(path: Path) -> bytes:
    if not path.is_file():
        raise MedvarError(f"The key {path} is not a file.")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise MedvarError(f"The key {path} may be read by others, who could link patients; run: chmod 600 {path}")
    with path.open("rb") as file:
        text = file.read(4096)
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) < MINIMUM_KEY_BYTES:
        raise MedvarError(
            f"{path} holds no key: {2 * MINIMUM_KEY_BYTES} or more hexadecimal digits are expected. "
            "Restore it, or name a new file; a new key gives all patients new pseudonyms."
        )
    return key


def _make_key(path: Path) -> None:
    """Write a new key to ``path`` atomically, unless another process has made one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)  # unlike a rename, a link never replaces a key
        except FileExistsError:
            pass
        except OSError:  # the file system has no links
            partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
