"""TLS to the API server, verified as Go's crypto/tls does for kubectl: what works there works here."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from sidestage.cluster.errors import ClusterError, text_of
from sidestage.cluster.kubeconfig import Cluster


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate and its key, both PEM; `where` tells the user which."""

    chain: bytes
    key: bytes
    where: str


def context(cluster: Cluster, certificate: Certificate | None) -> ssl.SSLContext:
    """To the API server. Raises ClusterError."""
    tls = bare()
    if cluster.insecure:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    elif cluster.ca_data or cluster.ca_file:
        _trust(tls, cluster)
    else:
        tls.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate:
        _present(tls, certificate)
    return tls


def bare() -> ssl.SSLContext:
    """A client's, that trusts nobody yet."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 asks for extensions that many clusters' own authorities lack; Go does not, and trusts an intermediate as root.
    tls.verify_flags = (tls.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN
    tls.hostname_checks_common_name = False
    return tls


def of_others(pem: str = "", path: str = "") -> ssl.SSLContext:
    """To proxies and identity providers: with their own authority, or the system's. Raises OSError."""
    tls = bare()
    if pem or path:
        tls.load_verify_locations(cafile=path if path and not pem else None, cadata=pem or None)
    else:
        tls.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return tls


def _trust(tls: ssl.SSLContext, cluster: Cluster) -> None:
    where = "certificate-authority-data" if cluster.ca_data else cluster.ca_file
    try:
        pem = cluster.ca_data or _read(cluster.ca_file)
        tls.load_verify_locations(cadata=pem.decode("latin-1"))
    except (OSError, ValueError) as error:
        said = text_of(error) if isinstance(error, OSError) else str(error)
        raise ClusterError(
            f"the cluster's certificate authority ({where}) can't be used: {said}", "correct it in the kubeconfig; it must be PEM"
        ) from error


def _present(tls: ssl.SSLContext, certificate: Certificate) -> None:
    """OpenSSL's binding takes files only: memory files keep the key off the disk."""
    fds: list[int] = []
    try:
        for content in (certificate.chain, certificate.key):
            fds.append(os.memfd_create("sidestage-tls", os.MFD_CLOEXEC))
            os.write(fds[-1], content)
        chain, key = (f"/proc/self/fd/{fd}" for fd in fds)
        tls.load_cert_chain(chain, key, _no_password)
    except (OSError, ValueError) as error:
        said = text_of(error) if isinstance(error, OSError) else str(error)
        raise ClusterError(
            f"the client certificate ({certificate.where}) can't be used: {said}",
            "correct client-certificate and client-key in the kubeconfig; both must be PEM, without a password",
        ) from error
    finally:
        for fd in fds:
            os.close(fd)


def _no_password() -> str:
    raise ValueError("its key is encrypted")  # else OpenSSL would ask on the terminal


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
