"""A name server on loopback, UDP and TCP, whose zones and faults a test writes while it runs."""

import contextlib
import socketserver
import struct
import threading
from collections.abc import Iterator

from dnslib import MX, QTYPE, RCODE, RR, TXT, DNSError, DNSRecord

UDP_MAX = 1232  # bytes; a longer answer is truncated and asked for again over TCP


class Zones:
    """Names in lower case without the final dot. ``faults``: name → silence, servfail, refused, garbage, wrong_id."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.exchanges: dict[str, list[tuple[int, str]]] = {}
        self.turns: dict[tuple[str, str], list[list[str]]] = {}
        self.faults: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self.ttl = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prove(self, name: str, token: str, host: str = "temp.mail", *, below: bool = False) -> None:
        """What an owner publishes who does as the instructions say."""
        self.texts[f"_tempmail.{name}" if below else name] = [f"tempmail-verify={token}"]
        self.exchanges[name] = [(10, host)]

    def turn(self, name: str, kind: str, *turns: list[str]) -> None:
        """What to answer for a name and type, values as in a zone file: one list after the other, the last for ever."""
        self.turns[name, kind] = list(turns)

    def answer(self, query: bytes, *, tcp: bool) -> bytes:
        """The reply to a query; empty for none at all."""
        asked = DNSRecord.parse(query)
        name, kind = str(asked.q.qname).lower().rstrip("."), QTYPE[asked.q.qtype]
        self.asked.append((name, kind))
        reply, fault = asked.reply(), self.faults.get(name, "")
        if fault == "silence":
            return b""
        if fault == "garbage":
            return query[:2] + b"\x84\x00\x00\x01\x00\xff\x00\x00\x00\x00" + b"\xc0\x0c" * 200
        if fault == "wrong_id":
            reply.header.id ^= 1
        elif fault:
            reply.header.rcode = getattr(RCODE, fault.upper())
            return bytes(reply.pack())
        for record in self._records(name, kind):
            reply.add_answer(record)
        if not reply.rr and name not in {*self.texts, *self.exchanges, *(known for known, _ in self.turns)}:
            reply.header.rcode = RCODE.NXDOMAIN
        packed = bytes(reply.pack())
        if tcp or len(packed) <= UDP_MAX:
            return packed
        reply.rr, reply.header.tc = [], 1
        return bytes(reply.pack())

    def _records(self, name: str, kind: str) -> list[RR]:
        if kind == "TXT":
            pieces = [
                [text[i : i + 255].encode() for i in range(0, len(text), 255)] for text in self.texts.get(name, [])
            ]
            return [RR(name, QTYPE.TXT, rdata=TXT(piece), ttl=self.ttl) for piece in pieces]
        if kind == "MX":
            found = self.exchanges.get(name, [])
            return [RR(name, QTYPE.MX, rdata=MX(host, preference), ttl=self.ttl) for preference, host in found]
        alias = self._next(name, "CNAME")
        target = alias[0].rstrip(".") if alias else name
        lines = [f"{name}. {self.ttl} IN CNAME {one}" for one in alias]
        lines += [f"{target}. {self.ttl} IN {kind} {one}" for one in self._next(target, kind)]
        return [record for line in lines for record in RR.fromZone(line)]

    def _next(self, name: str, kind: str) -> list[str]:
        turns = self.turns.get((name, kind), [[]])
        return turns.pop(0) if len(turns) > 1 else turns[0]


@contextlib.contextmanager
def name_server() -> Iterator[Zones]:
    """One that runs while the block does."""
    zones = Zones()

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            with contextlib.suppress(DNSError):
                reply = zones.answer(data, tcp=False)
                if reply:
                    sock.sendto(reply, self.client_address)

    class Stream(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while len(head := self.rfile.read(2)) == 2:
                reply = zones.answer(self.rfile.read(struct.unpack(">H", head)[0]), tcp=True)
                if not reply:
                    return
                self.wfile.write(struct.pack(">H", len(reply)) + reply)

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    udp, tcp = _both(Datagram, Stream)
    zones.port = udp.server_address[1]
    for server in (udp, tcp):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield zones
    finally:
        for server in (udp, tcp):
            server.shutdown()
            server.server_close()


def _both(
    datagram: type[socketserver.BaseRequestHandler], stream: type[socketserver.BaseRequestHandler]
) -> tuple[socketserver.UDPServer, socketserver.TCPServer]:
    """UDP and TCP on one port, whichever is free for both."""
    for _ in range(50):
        udp = socketserver.ThreadingUDPServer(("127.0.0.1", 0), datagram)
        udp.daemon_threads = True
        try:
            tcp = socketserver.ThreadingTCPServer(("127.0.0.1", udp.server_address[1]), stream)
        except OSError:
            udp.server_close()
            continue
        tcp.daemon_threads = True
        return udp, tcp
    raise OSError("no port is free for both UDP and TCP")
