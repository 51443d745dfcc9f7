"""The store of certificates: JSON files named by subject and key. Owns files, no trial and no decision.

The store is ours: it lies in the user's own folder, and a certificate that ships with a task is never read.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from trunkline.errors import CertificateError
from trunkline.home import cache_home
from trunkline.tasks.base import Subject
from trunkline.tasks.cache import write_whole
from trunkline.tasks.certificates.certificate import Certificate

_NAME_CHARACTERS = 100
"""Of a subject's name in a file's; the key tells subjects apart."""
_KEY_CHARACTERS = 32


class CertificateStore:
    """Certificates in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls) -> CertificateStore:
        """$TRUNKLINE_HOME/certificates, else ~/.cache/trunkline/certificates."""
        return cls(cache_home() / "certificates")

    def get(self, subject: Subject) -> Certificate | None:
        """The certificate of exactly this subject; None if there is none.

        Raises CertificateError for one that cannot be read, was edited, or is another's.
        """
        path = self._path(subject.name, subject.key)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CertificateError(f"cannot read {path}: {error}; delete it to certify again") from error
        try:
            certificate = Certificate.model_validate_json(text)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors())
            raise CertificateError(f"{path} is no certificate ({faults}); delete it to certify again") from error
        if certificate.digest != certificate.expected_digest():
            raise CertificateError(f"{path} was edited: its digest does not match its content; delete it to certify again")
        if (certificate.subject, certificate.key) != (subject.name, subject.key):
            raise CertificateError(
                f"{path} is of {certificate.subject!r} {certificate.key:.12}, not of {subject.name!r} {subject.key:.12}; "
                "delete it to certify again"
            )
        return certificate

    def put(self, certificate: Certificate) -> None:
        """Stores it. Raises CertificateError if it is not sealed or the folder cannot be written."""
        if certificate.digest != certificate.expected_digest():
            raise CertificateError(f"the certificate of {certificate.subject!r} is not sealed; store what certifying returned")
        path = self._path(certificate.subject, certificate.key)
        try:
            write_whole(path, certificate.model_dump_json(indent=2))
        except OSError as error:
            raise CertificateError(f"cannot store {path}: {error}; set TRUNKLINE_HOME to a writable folder") from error

    def _path(self, subject: str, key: str) -> Path:
        name = re.sub(r"[^A-Za-z0-9-]+", "_", subject)[:_NAME_CHARACTERS]
        return self.folder / f"{name}-{key[:_KEY_CHARACTERS]}.json"
