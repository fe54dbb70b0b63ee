"""A mail server on the loopback: STARTTLS or TLS, sign-in, refusals, and one that never answers."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Security = Literal["none", "starttls", "tls"]


@dataclass(slots=True)
class Certificate:
    """A certificate for 127.0.0.1 that signs itself."""

    path: Path
    key_path: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificate":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
        now = datetime.now(UTC)  # noqa: TID251  certificates are good by the real time
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        made = cls(folder / "mail.pem", folder / "mail.key")
        made.path.write_bytes(certificate.public_bytes(Encoding.PEM))
        made.key_path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return made

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key_path)
        return context


@dataclass(slots=True, kw_only=True)
class SmtpServer:
    """What it answers by the command's first word; what it was told is kept."""

    security: Security = "none"
    certificate: Certificate | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    is_silent: bool = False
    port: int = 0
    taken: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    credentials: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._greet(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            # The client hung up, which is its right.
            return
        finally:
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_silent:
            await reader.read()
            return
        writer.write(b"220 test\r\n")
        while line := await reader.readline():
            word, _, argument = line.decode().strip().partition(" ")
            self.commands.append(word.upper())
            answer = self.answers.get(word.upper()) or await self._do(
                word.upper(), argument, reader, writer
            )
            writer.write(answer.encode() + b"\r\n")
            await writer.drain()
            if word.upper() == "STARTTLS" and self.certificate is not None:
                await writer.start_tls(self.certificate.context())

    async def _do(
        self,
        word: str,
        argument: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> str:
        """Do what a command asks, and tell the answer."""
        match word:
            case "EHLO":
                is_secured = writer.get_extra_info("ssl_object") is not None
                offers = ["250-test", "250-AUTH PLAIN", "250 8BITMIME"]
                if self.security == "starttls" and not is_secured:
                    offers.insert(1, "250-STARTTLS")
                return "\r\n".join(offers)
            case "AUTH":
                self.credentials.append(base64.b64decode(argument.split(" ")[1]))
                return "235 welcome"
            case "DATA":
                return await self._take(reader, writer)
            case _:
                return {"STARTTLS": "220 go on", "QUIT": "221 bye"}.get(word, "250 fine")

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"354 go on\r\n")
        mail = await reader.readuntil(b"\r\n.\r\n")
        refusal = self.answers.get("MESSAGE")
        if refusal is None:
            self.taken.append(mail)
        return refusal or "250 taken"


@asynccontextmanager
async def running(server: SmtpServer) -> AsyncIterator[SmtpServer]:
    """Serve on a free port for the length of a block."""
    context = None
    if server.security == "tls" and server.certificate is not None:
        context = server.certificate.context()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
