"""Who signs, and who is trusted: certificates and keys on disk.

KEYS/                 LIPSYNC_KEYS, else ~/.config/lipsync/keys; only its owner may enter
  own/key.pem           the private key of this installation, made at first use
  own/chain.pem         its certificate and the authority that issued it; public, to be handed to whoever verifies
  trust/*.pem           certificates of others whose labels are trusted here: authorities, or single hands
  timestamps/*.pem      authorities whose timestamps are trusted here
LIPSYNC_SIGN_CHAIN, LIPSYNC_SIGN_KEY   an operator's own chain (leaf first) and key, PEM files, instead of own/
LIPSYNC_TSA           address of an RFC 3161 timestamp authority, asked for every label

The authority's private key is thrown away once it has issued the one certificate: nobody can ever issue a second.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LabelError
from ..files import listed, user_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

LEAF_YEARS = 20  # a label must not lapse with its certificate, and no timestamp authority may be in reach
CLAIM_SIGNING = "1.3.6.1.4.1.62558.2.1"  # c2pa-kp-claimSigning; older validators look for emailProtection
ORGANISATION = "Lipsync lab"


@dataclass(frozen=True)
class Signer:
    """What signs: PEM chain (leaf first), PKCS#8 PEM key, algorithm by its C2PA name, timestamp address or None."""

    chain: bytes
    key: bytes
    algorithm: str
    timestamps: str | None

    def __repr__(self) -> str:  # the key must never reach a log
        return f"Signer({self.algorithm})"


@dataclass(frozen=True)
class Trust:
    """Who is trusted, as concatenated PEM: authorities, single hands (leaf certificates), timestamp authorities."""

    authorities: str
    hands: str
    timestamps: str
    names: frozenset[str] = frozenset()  # of the single hands


def keys_dir() -> Path:
    """The folder of keys; may not exist yet."""
    return user_folder("LIPSYNC_KEYS", ".config", "lipsync", "keys")


def check_keys_apart(work: Path) -> None:
    """Raise LabelError where signing keys lie in a folder that is served from, or the other way round.

    work  the folder in which visitors' files and results are kept
    """
    work = work.expanduser().resolve()
    folders = {"LIPSYNC_KEYS": keys_dir(), "LIPSYNC_SIGN_KEY": os.environ.get("LIPSYNC_SIGN_KEY")}
    for name, place in folders.items():
        if not place:
            continue
        there = Path(place).expanduser().resolve()
        if there.is_relative_to(work) or (name == "LIPSYNC_KEYS" and work.is_relative_to(there)):
            raise LabelError(
                "The signing keys in {there} and the work folder {work} lie one in the other, so that visitors could "
                "be served the keys: set {name} or LIPSYNC_WORK to another folder.",
                there=there,
                work=work,
                name=name,
            )


def load_signer() -> Signer:
    """The signer here: the operator's own, else this installation's, which is made at first use.

    Safe when several processes come first at once: one wins, all use its key. Raises LabelError.
    """
    chain, key = os.environ.get("LIPSYNC_SIGN_CHAIN"), os.environ.get("LIPSYNC_SIGN_KEY")
    if bool(chain) != bool(key):
        raise LabelError("Set both LIPSYNC_SIGN_CHAIN and LIPSYNC_SIGN_KEY to sign with your own certificate, or none.")
    if chain and key:
        return _read(Path(chain), Path(key))
    own = keys_dir() / "own"
    if not os.path.isdir(own):  # False, too, where this user may not look
        _make(own)
    return _read(own / "chain.pem", own / "key.pem")


def trust() -> Trust:
    """Everyone trusted here: our own signer, the operator's, what lies in trust/. Makes nothing. Raises LabelError."""
    from cryptography.x509 import BasicConstraints, ExtensionNotFound, NameOID

    files = [*listed(keys_dir() / "own", "chain.pem"), *listed(keys_dir() / "trust", "*.pem")]
    certificates = [c for path in files for c in _certificates(path)]
    if own := os.environ.get("LIPSYNC_SIGN_CHAIN"):
        # Only the leaf: the chain may end at an authority that signs for half the world.
        certificates.append(_certificates(Path(own))[0])
    authorities, hands = [], []
    for certificate in certificates:
        try:
            is_authority = certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
        except ExtensionNotFound:
            is_authority = False
        (authorities if is_authority else hands).append(certificate)
    stamps = [c for path in listed(keys_dir() / "timestamps", "*.pem") for c in _certificates(path)]
    names = [
        c.subject.get_attributes_for_oid(kind)
        for c in hands
        for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    ]
    return Trust(_pem(authorities), _pem(hands), _pem(stamps), frozenset(str(name[0].value) for name in names if name))


def _read(chain_path: Path, key_path: Path) -> Signer:
    from cryptography.hazmat.primitives import serialization as ser

    leaf, *_ = _certificates(chain_path)
    ends = leaf.not_valid_after_utc
    if not leaf.not_valid_before_utc <= datetime.now(UTC) <= ends:
        raise LabelError(
            "The signing certificate {chain_path} is valid from {not_valid_before_utc:%Y-%m-%d} to "
            "{ends:%Y-%m-%d}, not today: renew it, or set this machine's clock.",
            chain_path=chain_path,
            not_valid_before_utc=leaf.not_valid_before_utc,
            ends=ends,
        )
    try:
        if os.name == "posix" and key_path.stat().st_mode & stat.S_IRWXO:
            raise LabelError(
                "Everyone on this machine can read the private key {key_path}: run chmod o= on it first.",
                key_path=key_path,
            )
        key = ser.load_pem_private_key(key_path.read_bytes(), None)
    except OSError as error:
        raise LabelError(
            "The private key {key_path} cannot be read: {error}.", key_path=key_path, error=error.strerror
        ) from error
    except (ValueError, TypeError) as error:
        raise LabelError(
            "{key_path} is not a private key in PEM form without a password: {error}", key_path=key_path, error=error
        ) from error
    if key.public_key() != leaf.public_key():
        raise LabelError(
            "The private key {key_path} does not belong to the first certificate in {chain_path}.",
            key_path=key_path,
            chain_path=chain_path,
        )
    pkcs8 = key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
    return Signer(chain_path.read_bytes(), pkcs8, _algorithm(key, key_path), os.environ.get("LIPSYNC_TSA") or None)


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey):
        names = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in names:
            return names[key.curve.name]
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    elif isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise LabelError(
        "Content Credentials cannot be signed with the kind of key in {path}: use P-256, Ed25519 or RSA.", path=path
    )


def _certificates(path: Path) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise LabelError("The certificate {path} cannot be read: {error}.", path=path, error=error.strerror) from error
    except ValueError as error:
        raise LabelError("{path} is not a certificate in PEM form: {error}", path=path, error=error) from error


def _pem(certificates: list[Certificate]) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def _make(own: Path) -> None:
    """Make key and chain in a hidden folder and rename it into place: whoever renames first has made them."""
    try:
        own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        own.parent.chmod(0o700)
        fresh = Path(tempfile.mkdtemp(prefix=".own-", dir=own.parent))  # 0700
    except OSError as error:
        raise LabelError(
            "No signing key can be made in {parent} ({error}): set LIPSYNC_KEYS to a folder of yours.",
            parent=own.parent,
            error=error.strerror,
        ) from error
    try:
        key, chain = make_signer()
        for name, content in (("key.pem", key), ("chain.pem", chain)):
            with open(os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        with contextlib.suppress(OSError):  # another process was first; renaming onto a full folder fails
            fresh.rename(own)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def make_signer(years: float = LEAF_YEARS) -> tuple[bytes, bytes]:
    """A new authority and the one certificate it ever issues: (PKCS#8 PEM key, PEM chain: leaf, authority).

    ES256, the algorithm every C2PA validator knows. The name tells installations apart without telling whose they are.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

    def name(common: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def use(**yes: bool) -> x509.KeyUsage:
        every = (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        )
        return x509.KeyUsage(**{k: yes.get(k, False) for k in every})

    def certificate(common: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        start = datetime.now(UTC) - timedelta(days=1)  # clocks differ
        return (
            x509.CertificateBuilder(subject_name=name(common), issuer_name=name(authority))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=365.25 * years))
            .add_extension(x509.BasicConstraints(ca=common == authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    number = secrets.token_hex(3)
    authority, installation = f"Lipsync authority {number}", f"Lipsync installation {number}"
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    purposes = x509.ExtendedKeyUsage([ObjectIdentifier(CLAIM_SIGNING), ExtendedKeyUsageOID.EMAIL_PROTECTION])
    top = certificate(authority, ca_key.public_key()).add_extension(use(key_cert_sign=True, crl_sign=True), True)
    leaf = certificate(installation, key.public_key()).add_extension(use(digital_signature=True), True)
    leaf = leaf.add_extension(purposes, critical=False)
    chain = b"".join(c.sign(ca_key, hashes.SHA256()).public_bytes(ser.Encoding.PEM) for c in (leaf, top))
    return key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()), chain
