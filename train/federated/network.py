"""Messages of a federation over gRPC: encrypted, and only for clients whose token is known."""

import contextlib
import datetime
import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from data.errors import UserError
from data.files import json_files
from data.files.text_files import is_whole
from train.federated.messages import Malformed, packed, unpacked

SERVICE = "omnia.Federation"
LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
"""Parameters of a model may be of any size."""
TOKEN = "omnia-token"
POLL = 20.0
"""Seconds for which the server keeps a client that has nothing to do."""
CERTIFICATE, KEY, CLIENTS = "server.pem", "server.key", "clients.json"
"""Files of a federation's folder on the server; with each client goes its token, in client-NAME.token, and server.pem."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def host_of(address: str) -> str:
    """The host of HOST:PORT; UserError for another form."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (is_whole(port) and len(port) < 6 and int(port) < 65536):
        raise UserError(f"address {address!r}: is no HOST:PORT", "Give one, such as localhost:8470.")
    return host.strip("[]")


def check_encrypted(address: str, encrypted: bool) -> None:
    """UserError for a host elsewhere without encryption."""
    if not encrypted and host_of(address) not in LOOPBACK:
        raise UserError(
            f"{address}: is another machine, and what is sent would be readable on the way",
            "Make keys with `omnia federate keys`, and name them: --gradient.network.folder for the server, --token for a client.",
        )


# ---------------------------------------------------------------------------------------------------------------------- keys


def make_keys(folder: Path, hosts: tuple[str, ...], names: tuple[str, ...], days: int) -> None:
    """A certificate of its own for a server that is reached by these hosts, and a token for each client. Digests alone stay here."""
    if len({*names}) < len(names) or not all(name and all(one.isalnum() or one in "-_." for one in name) for name in names):
        raise UserError("names of clients are letters, digits, - _ and ., each given once", "Correct --clients.")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds other things", "Name an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "omnia federation")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=days))
    builder = builder.add_extension(x509.SubjectAlternativeName([_named(host) for host in hosts]), critical=False)
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / CERTIFICATE).write_bytes(made.public_bytes(pem))
    _write_secret(folder / KEY, secret)
    digests = {}
    for client in names:
        token = secrets.token_urlsafe(32)
        digests[client] = hashlib.sha256(token.encode()).hexdigest()
        _write_secret(folder / f"client-{client}.token", f"{client} {token}\n".encode())
    json_files.write(folder / CLIENTS, {"clients": digests})


def _named(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def _write_secret(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def read_token(path: str) -> str:
    """What a client says who it is by: its name and its secret."""
    try:
        found = Path(path).read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token {path}: cannot be read ({error})", "Give the client's file that `omnia federate keys` made.") from None
    if len(found) != 2:
        raise UserError(f"--token {path}: is no token", "Give the client's file that `omnia federate keys` made.")
    return " ".join(found)


def _read_clients(folder: Path) -> dict[str, str]:
    stored = json_files.read(folder / CLIENTS, "Make it again with `omnia federate keys`.").get("clients")
    if not isinstance(stored, dict) or not stored or not all(isinstance(one, str) and len(one) == 64 for one in stored.values()):
        raise UserError(f"{folder / CLIENTS}: holds no digests of clients", "Make it again with `omnia federate keys`.")
    return stored


# -------------------------------------------------------------------------------------------------------------------- server


Handlers = dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]]
"""By the name of a call: (client's name, message) -> answer. Malformed is told to the client, and nothing else of an error."""


@contextlib.contextmanager
def listening(address: str, folder: str, handlers: Handlers) -> Iterator[int]:
    """Answer calls at an address for as long as the context lasts; gives the port, which is chosen where it is 0."""
    check_encrypted(address, bool(folder))
    known = _read_clients(Path(folder)) if folder else None

    def who(context: grpc.ServicerContext) -> str:
        said = dict(context.invocation_metadata()).get(TOKEN, "")
        name, _, token = str(said).partition(" ")
        if known is None:
            if name and all(one.isalnum() or one in "-_." for one in name):
                return name
        elif hmac.compare_digest(known.get(name, "0" * 64), hashlib.sha256(token.encode()).hexdigest()):
            return name
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such client, or another token")
        raise AssertionError

    def answering(handler: Callable[[str, dict[str, Any]], dict[str, Any]]):
        def call(content: bytes, context: grpc.ServicerContext) -> bytes:
            name = who(context)
            try:
                return packed(handler(name, unpacked(content)))
            except Malformed as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error).partition("\n")[0])
                raise AssertionError from None

        return grpc.unary_unary_rpc_method_handler(call)

    threads = 8 + 2 * len(known or range(64))
    server = grpc.server(ThreadPoolExecutor(threads), options=[*LIMITS, ("grpc.so_reuseport", 0)])
    methods = {name: answering(handler) for name, handler in handlers.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    try:
        if folder:
            pair = Path(folder, KEY).read_bytes(), Path(folder, CERTIFICATE).read_bytes()
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UserError(f"{address}: cannot be listened at ({error})", "Give another address, or stop what uses it.") from None
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=2).wait()


# -------------------------------------------------------------------------------------------------------------------- client


class Server:
    """The server, as a client sees it. Calls are tried again for as long as it cannot be reached."""

    def __init__(self, address: str, identity: str, certificate: bytes | None, patience: float, said: Callable[[str], None] = print):
        """identity: name and token. certificate: of the server; None for no encryption. patience: seconds to try again for."""
        check_encrypted(address, certificate is not None)
        self._address, self._patience, self._said = address, patience, said
        self._metadata = ((TOKEN, identity),)
        if certificate is None:
            self._channel = grpc.insecure_channel(address, LIMITS)
        else:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate), LIMITS)
        self.sent: Callable[[bytes], None] = lambda content: None
        """Sees all that leaves."""

    def __call__(self, name: str, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a call. Malformed where the server does not want the message; UserError where it is not reached."""
        content, ends, told = packed(message), time.monotonic() + self._patience, False
        call = self._channel.unary_unary(f"/{SERVICE}/{name}")
        while True:
            self.sent(content)
            try:
                return unpacked(call(content, metadata=self._metadata, timeout=max(POLL * 3, 60)))
            except grpc.RpcError as error:
                code, why = error.code(), error.details()
            if code == grpc.StatusCode.INVALID_ARGUMENT:
                raise Malformed(why)
            if code == grpc.StatusCode.UNAUTHENTICATED:
                raise UserError(f"{self._address}: the server does not know this client ({why})", "Check --token.")
            if time.monotonic() > ends:
                raise UserError(f"{self._address}: cannot be reached ({why})", "Check --server and its certificate, then start again.")
            if not told:
                self._said(f"{self._address} cannot be reached; trying again for {self._patience:.0f} s")
                told = True
            time.sleep(1.0)

    def close(self) -> None:
        self._channel.close()
