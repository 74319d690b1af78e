"""STARTTLS: mail over it arrives, and nothing said before the handshake counts after it (CVE-2024-34083, RFC 3207)."""

import asyncio
import smtplib
import socket
import ssl

from tests.running import Server

OPEN = b"EHLO client.example\r\n"


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def read_until(stream: socket.socket, mark: bytes) -> bytes:
    heard = b""
    while mark not in heard:
        piece = stream.recv(4096)
        assert piece, f"closed after {heard!r}"
        heard += piece
    return heard


def converse(address: tuple[str, int], before: bytes, after: list[bytes]) -> list[bytes]:
    """Say ``before`` (STARTTLS and whatever is smuggled behind it) at once, shake hands, then ask one by one."""
    with socket.create_connection(address, timeout=30) as plain:
        read_until(plain, b"220 ")
        plain.sendall(before)
        assert read_until(plain, b"220 2.0.0").endswith(b"220 2.0.0 Ready to start TLS\r\n")
        with unverified().wrap_socket(plain) as secure:
            answers = []
            for line in after:
                secure.sendall(line)
                answers.append(read_until(secure, b"\r\n"))
            return answers


async def test_plaintext_behind_starttls_is_dropped(server: Server) -> None:
    box = await server.mailbox()
    to = f"RCPT TO:<{box.address}>\r\n".encode()
    injected = OPEN + b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@example.com>\r\n" + to
    after = [b"NOOP\r\n", to, b"DATA\r\n", b"QUIT\r\n"]
    answers = await asyncio.to_thread(converse, server.smtp, injected, after)
    assert [answer[:3] for answer in answers] == [b"250", b"503", b"503", b"221"]
    assert await server.messages(box) == []


async def test_what_was_said_in_plaintext_is_forgotten(server: Server) -> None:
    box = await server.mailbox()
    to = f"RCPT TO:<{box.address}>\r\n".encode()
    said = OPEN + b"MAIL FROM:<evil@example.com>\r\n" + to + b"STARTTLS\r\n"
    after = [b"DATA\r\n", b"MAIL FROM:<s@example.com>\r\n", b"STARTTLS\r\n", b"QUIT\r\n"]
    answers = await asyncio.to_thread(converse, server.smtp, said, after)
    assert [answer[:9] for answer in answers] == [b"503 5.5.1", b"503 5.5.1", b"503 5.5.1", b"221 2.0.0"]


async def test_chunks_of_plaintext_are_no_part_of_an_encrypted_mail(server: Server) -> None:
    box = await server.mailbox()
    mail = f"MAIL FROM:<s@example.com>\r\nRCPT TO:<{box.address}>\r\n".encode()
    said = OPEN + mail + b"BDAT 6\r\nevil\r\nSTARTTLS\r\nBDAT 900 LAST\r\nevil"
    after = [b"BDAT 4 LAST\r\nx\r\n\n", b"HELO client.example\r\n", mail.partition(b"\n")[0] + b"\n"]
    after += [mail.partition(b"\n")[2], b"BDAT 22 LAST\r\nSubject: safe\r\n\r\nbody\n", b"QUIT\r\n"]
    answers = await asyncio.to_thread(converse, server.smtp, said, after)
    assert [answer[:3] for answer in answers] == [b"503", b"250", b"250", b"250", b"250", b"221"]
    [message] = await server.messages(box)
    assert message["subject"] == "safe"
    assert (await server.get(box, f"/messages/{message['id']}"))["text"].strip() == "body"


async def test_a_failed_handshake_ends_the_session_and_no_other(server: Server) -> None:
    def fail() -> bytes:
        with socket.create_connection(server.smtp, timeout=30) as plain:
            read_until(plain, b"220 ")
            plain.sendall(OPEN + b"STARTTLS\r\n")
            read_until(plain, b"220 2.0.0")
            plain.sendall(b"this is no handshake\r\n" * 10)
            try:
                while plain.recv(4096):
                    pass
            except ConnectionResetError:
                return b"closed"
        return b"closed"

    assert await asyncio.to_thread(fail) == b"closed"
    box = await server.mailbox()
    await server.deliver(box)
    assert len(await server.messages(box)) == 1


async def test_smtplib_over_tls(server: Server) -> None:
    box = await server.mailbox()

    def send() -> bool:
        with smtplib.SMTP(*server.smtp, timeout=30) as client:
            client.starttls(context=unverified())
            client.ehlo()
            client.sendmail("s@example.com", [box.address], b"Subject: tls\r\n\r\n" + b"y" * 300_000 + b"\r\n")
            return client.has_extn("starttls")

    assert await asyncio.to_thread(send) is False
    [message] = await server.messages(box)
    assert message["subject"] == "tls"
    assert message["size"] > 300_000
