#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Makes the known-answer vectors of zone ESP (docs/wire.md §1), or checks that they are what it would make.

    tests/vectors/make.py            writes zone-esp.json beside it
    tests/vectors/make.py --check    exits 1 if zone-esp.json differs

Needs Python 3.9 and the `cryptography` package. Nothing in it is random: keys, salts and payloads come from SHA-256
of the vector's name. Every vector, good or bad, is also opened by the Python implementation before it is written.
"""

import hashlib
import json
import pathlib
import struct
import sys

sys.dont_write_bytecode = True
import zone_esp  # noqa: E402
from zone_esp import END, TCP, TRANSPORT, TRANSPORT_END, TUNNEL, UDP, W, Csa, Drop, Window, Zone  # noqa: E402

FILE = pathlib.Path(__file__).with_name("zone-esp.json")
SOURCE, DESTINATION = bytes([192, 0, 2, 10]), bytes([203, 0, 113, 7])
SOURCE6 = bytes.fromhex("20010db8000000000000000000000001")
DESTINATION6 = bytes.fromhex("20010db8000000000000000000000002")


def stream(name, octets):
    out, n = b"", 0
    while len(out) < octets:
        out += hashlib.sha256(f"mml-ipsec vectors {name} {n}".encode()).digest()
        n += 1
    return out[:octets]


def csa(name, mode=TUNNEL, stop=TRANSPORT_END, ciphers="aes256-gcm16 aes256-gcm16", explicit=(False, False), **more):
    zones = []
    for i, (cipher, sent) in enumerate(zip(ciphers.split(), explicit), 1):
        octets = zone_esp.CIPHERS[cipher][1]
        zones.append(Zone(cipher, sent, stream(f"{name} key {i}", octets), stream(f"{name} salt {i}", 4)))
    return Csa(0x4D4D4C00 | len(name), mode, stop, zones, **more)


def checksummed(protocol, segment, at, source=SOURCE, destination=DESTINATION):
    """The segment with its checksum filled in under the pseudo-header of its family."""
    size = struct.pack(">HH", protocol, len(segment)) if len(source) == 4 else struct.pack(">II", len(segment), protocol)
    value = 0xFFFF ^ zone_esp.ones_sum(source + destination + size + segment)
    if protocol == UDP and value == 0:
        value = 0xFFFF
    return segment[:at] + struct.pack(">H", value) + segment[at + 2 :]


def tcp(payload, options=b"", flags=0x18, **family):
    offset = (20 + len(options)) // 4 << 4
    fixed = struct.pack(">HHIIBBHHH", 8080, 49153, 0x11223344, 0x55667788, offset, flags, 501, 0, 0)
    return checksummed(TCP, fixed + options + payload, 16, **family)


def udp(payload, **family):
    return checksummed(UDP, struct.pack(">HHHH", 5060, 53, 8 + len(payload), 0) + payload, 6, **family)


def ipv4(protocol, payload, options=b"", fragment=0, total=None, ds=0):
    header = 20 + len(options)
    total = header + len(payload) if total is None else total
    fixed = struct.pack(">BBHHHBBH", 0x40 | header // 4, ds, total, 0x1234, fragment, 64, protocol, 0)
    fixed += SOURCE + DESTINATION + options
    check = 0xFFFF ^ zone_esp.ones_sum(fixed)
    return fixed[:10] + struct.pack(">H", check) + fixed[12:] + payload


def ipv6(following, payload):
    return struct.pack(">IHBB", 6 << 28, len(payload), following, 64) + SOURCE6 + DESTINATION6 + payload


def extension(following, octets):
    return bytes([following, octets // 8 - 1]) + bytes(octets - 2)


VECTORS = []


def describe(a_csa):
    return {
        "spi": a_csa.spi,
        "mode": {TRANSPORT: "transport", TUNNEL: "tunnel"}[a_csa.mode],
        "stops": [a_csa.stop, END],
        "may_write": a_csa.may_write,
        "selector": a_csa.selector,
        "zones": [
            {"cipher": z.cipher, "iv": "explicit" if z.explicit else "implicit", "key": z.key.hex(), "salt": z.salt.hex()}
            for z in a_csa.zones
        ],
    }


def vector(name, a_csa, packet, seq, top=None, drop=None, seal=None, outer=b"", **more):
    """Opens the packet here, and keeps what came of it."""
    top = max(seq - 1, 0) if top is None else top
    out = {"name": name, "csa": describe(a_csa), "window": {"width": 64, "top": top}, "outer": outer.hex()}
    if seal is not None:
        out["seal"] = {"seq": seq, **seal}
    out["packet"] = packet.hex()
    try:
        datagram, number = zone_esp.open_packet(a_csa, Window(64, top), packet, outer)
        out["opens"] = {"seq": number, "datagram": datagram.hex()}
        assert drop is None, f"{name}: opened"
        assert number == seq, name
    except Drop as reason:
        out["drop"] = str(reason)
        assert out["drop"] == drop, f"{name}: {reason}"
    VECTORS.append({**out, **more})


def relay_view(a_csa, packet, seq):
    """What zone 1's key shows of a packet."""
    (l1,) = struct.unpack_from(">H", packet, 10)
    start = 12 + 8 * a_csa.zones[0].explicit
    return {"zone1": a_csa.zones[0].open(seq, packet[:12], packet[start : start + l1 + 16], "icv1").hex()}


def good(name, datagram, following=None, seq=1, top=None, tfc=0, **settings):
    a_csa = csa(name, **settings)
    if following is None:
        following = {4: 4, 6: 41}[datagram[0] >> 4]
    packet = zone_esp.seal(a_csa, seq, following, datagram, tfc)
    seal = {"next": following, "datagram": datagram.hex(), "tfc": tfc}
    outer = ipv4(50, b"") if a_csa.mode == TRANSPORT else b""
    vector(name, a_csa, packet, seq, top, seal=seal, outer=outer, relay=relay_view(a_csa, packet, seq))


def bad(name, drop, packet=None, datagram=None, following=4, seq=1, top=None, settings=None, wrong=None):
    """A packet to be dropped: sealed otherwise than the text says (`wrong`), or changed afterwards (`packet`)."""
    a_csa = csa(name, **(settings or {}))
    datagram = ipv4(TCP, tcp(stream(name, 33))) if datagram is None else datagram
    sealed = zone_esp.seal(a_csa, seq, following, datagram, **(wrong or {}))
    outer = ipv4(50, b"") if a_csa.mode == TRANSPORT else b""
    vector(name, a_csa, packet(a_csa, sealed) if packet else sealed, seq, top, drop=drop, outer=outer)


def edit(at, value):
    return lambda _, packet: packet[:at] + value + packet[at + len(value) :]


def flip(at):
    return lambda _, packet: packet[:at] + bytes([packet[at] ^ 1]) + packet[at:][1:]


def make_good():
    ciphers = list(zone_esp.CIPHERS)
    for first in ciphers:
        for second in ciphers:
            for sent in ((False, False), (True, True)) if first == second else ((True, False), (False, True)):
                name = f"{first} and {second}, " + ", ".join("explicit" if s else "implicit" for s in sent)
                good(name, ipv4(TCP, tcp(stream(name, 100))), ciphers=f"{first} {second}", explicit=sent)
    for octets in (0, 1, 2, 3, 4, 5, 255, 1400):
        good(f"TCP, {octets} octets", ipv4(TCP, tcp(stream("tcp", octets))))
    good("TCP with options", ipv4(TCP, tcp(b"data", options=bytes([1, 1, 8, 10]) + stream("stamp", 8))))
    good("IP options and TCP options", ipv4(TCP, tcp(b"data", options=b"\1" * 40), options=b"\1" * 40))
    good("TCP header cut short", ipv4(TCP, tcp(b"")[:19]))
    good("TCP data offset below 5", ipv4(TCP, tcp(b"")[:12] + b"\x40\x10" + bytes(6) + b"data"))
    good("UDP", ipv4(UDP, udp(b"datagram")))
    good("UDP, odd and empty", ipv4(UDP, udp(b"")))
    good("UDP without a checksum", ipv4(UDP, udp(b"data")[:6] + b"\0\0data"))
    good("UDP header cut short", ipv4(UDP, udp(b"")[:5]))
    good("ICMP", ipv4(1, b"\x08\x00\xf7\xff\x00\x00\x00\x00"))
    good("first fragment of TCP", ipv4(TCP, tcp(stream("fragment", 64)), fragment=0x2000))
    good("later fragment of TCP", ipv4(TCP, stream("fragment", 61), fragment=0x0009))
    good("an IP header alone", ipv4(59, b""))
    good("map [0, 40): TCP", ipv4(TCP, tcp(b"data", options=b"\1" * 12)), stop=40)
    good("map [0, 40): TCP behind IP options", ipv4(TCP, tcp(b"data"), options=b"\1" * 4), stop=40)
    good("map [0, 40): UDP", ipv4(UDP, udp(b"data")), stop=40)
    good("map [0, 24): ports alone", ipv4(TCP, tcp(b"data")), stop=24)
    good("map [0, 12): half an IP header", ipv4(TCP, tcp(b"data")), stop=12)
    good("last number of the first half-space", ipv4(UDP, udp(b"wrap")), seq=2**32 - 1)
    good("first number of the second half-space", ipv4(UDP, udp(b"wrap")), seq=2**32)
    good("second half-space, window behind", ipv4(UDP, udp(b"wrap")), seq=2**32 + 5, top=2**32 - 20)
    good("first half-space, window ahead", ipv4(UDP, udp(b"wrap")), seq=2**32 - 20, top=2**32 + 5)
    good("far in the 64-bit space", ipv4(UDP, udp(b"wrap")), seq=2**63 - 1, explicit=(True, True))
    family = {"source": SOURCE6, "destination": DESTINATION6}
    good("IPv6, TCP", ipv6(TCP, tcp(b"data", **family)))
    good("IPv6, UDP", ipv6(UDP, udp(b"data!", **family)))
    good("IPv6, ICMPv6", ipv6(58, stream("icmpv6", 30)))
    chain = extension(43, 8) + extension(60, 24) + extension(TCP, 16)
    good("IPv6, three extension headers", ipv6(0, chain + tcp(b"data", **family)))
    good("IPv6, first fragment", ipv6(44, bytes([TCP, 0, 0, 1, 0, 0, 0, 9]) + tcp(stream("six", 40), **family)))
    good("IPv6, later fragment", ipv6(44, bytes([TCP, 0, 0, 72, 0, 0, 0, 9]) + stream("six", 40)))
    good("IPv6, headers of 192 octets", ipv6(60, extension(TCP, 152) + tcp(b"data", **family)))
    good("IPv6, headers too long", ipv6(60, extension(TCP, 160) + tcp(b"data", **family)))
    good("IPv6, nine extension headers", ipv6(60, extension(60, 8) * 8 + extension(TCP, 8) + tcp(b"", **family)))
    good("TFC padding", ipv4(TCP, tcp(b"data")), tfc=77)
    good("TFC padding behind a short TCP header", ipv4(TCP, tcp(b"")[:10]), tfc=40)
    good("transport, TCP", tcp(b"data"), TCP, mode=TRANSPORT)
    good("transport, UDP", udp(b"data!"), UDP, mode=TRANSPORT, explicit=(True, True))
    good("transport, L1 = 0", stream("sctp", 41), 132, mode=TRANSPORT)
    good("transport, short TCP", tcp(b"")[:11], TCP, mode=TRANSPORT)
    good("may write, nothing written", ipv4(TCP, tcp(b"data"), ds=2), may_write=True, explicit=(True, False))
    good("may write, transport", tcp(b"data"), TCP, mode=TRANSPORT, may_write=True, explicit=(True, True))
    good("may write, IPv6", ipv6(TCP, tcp(b"data", **family)), may_write=True, explicit=(True, False))
    chosen = {"family": 4, "protocol": TCP, "src": SOURCE.hex() + "/32", "dst": bytes([203, 0, 112, 0]).hex() + "/23"}
    good("the selector's own", ipv4(TCP, tcp(b"data")), selector=chosen)


def make_written():
    """Packets a relay rewrote, with permission."""

    def window(zone1):
        old, new = zone1[34:36], b"\x00\x10"
        change = zone_esp.ones_sum(old + bytes(0xFF ^ octet for octet in new))
        zone1[34:36] = new
        zone1[36:38] = struct.pack(">H", zone_esp.ones_sum(bytes(zone1[36:38]) + struct.pack(">H", change)))

    def mark(zone1):
        zone1[1] |= 3
        zone1[10:12] = b"\0\0"
        zone1[10:12] = struct.pack(">H", 0xFFFF ^ zone_esp.ones_sum(bytes(zone1[:20])))

    settings = {"may_write": True, "explicit": (True, False)}
    datagram = ipv4(TCP, tcp(b"the payload"), ds=2)
    for name, change in (("written: TCP window", window), ("written: congestion mark", mark)):
        a_csa = csa(name, **settings)
        packet = zone_esp.rewrite(a_csa, zone_esp.seal(a_csa, 9, 4, datagram), 5, 77, change)
        vector(name, a_csa, packet, 9)
        delivered = bytes.fromhex(VECTORS[-1]["opens"]["datagram"])
        fixed = checksummed(TCP, delivered[20:36] + b"\0\0" + delivered[38:], 16)
        assert fixed[16:18] == delivered[36:38] and zone_esp.ones_sum(delivered[:20]) == 0xFFFF, name

    def destination(zone1):
        zone1[16] ^= 1

    def flags(zone1):
        zone1[33] = 0x04

    for name, change in (("written: destination", destination), ("written: RST", flags)):
        bad(name, "icv2", lambda c, p, e=change: zone_esp.rewrite(c, p, 5, 77, e), settings=settings)
    bad(
        "written without permission",
        "write-unpermitted",
        lambda c, p: zone_esp.rewrite(c, p, 5, 77, window),
        settings={"explicit": (True, False)},
    )

    def quietly(a_csa, packet):
        """The window changed under the origin's own nonce, without W, by one who holds key 1."""
        zone1 = bytearray(a_csa.zones[0].open(1, packet[:12], packet[12:68], "icv1"))
        zone1[34] ^= 1
        return packet[:12] + a_csa.zones[0].seal(1, packet[:12], bytes(zone1)) + packet[68:]

    bad("key 1 misused: window", "icv2", quietly)


def make_bad():
    explicit = {"explicit": (True, True)}
    transport = {"mode": TRANSPORT}
    bad("cut off: 11 octets", "truncated", lambda _, p: p[:11])
    bad("cut off: no zone 2", "truncated", lambda _, p: p[:68])
    bad("cut off: one octet", "alignment", lambda _, p: p[:-1])
    bad("cut off: four octets", "icv2", lambda _, p: p[:-4])
    bad("SPI reserved", "spi", edit(0, b"\0\0\0\xff"))
    bad("SPI of another", "spi", edit(0, b"\0\0\1\0"))
    bad("unknown flag", "flags", wrong={"flags": 2})
    bad("L1 above 256", "l1", wrong={"l1": 257})
    bad("protocol in tunnel mode", "protocol", wrong={"protocol": 6})
    segment = tcp(b"data")
    bad("protocol not the trailer's", "protocol", None, segment, 47, settings=transport, wrong={"protocol": 50})
    bad("W with an implicit IV", "iv-w", edit(8, b"\1"))
    bad("W without bit 63", "iv-w", edit(8, b"\1"), settings={**explicit, "may_write": True})
    bad("bit 63 without W", "iv-w", wrong={"iv1": W | 1}, settings={**explicit, "may_write": True})
    bad("bit 63 in zone 2's IV", "iv-w", wrong={"iv2": W | 1}, settings=explicit)
    bad("zone 1's IV is another number", "seq-mismatch", wrong={"iv1": 2}, settings=explicit)
    bad("zone 2's IV is another number", "seq-mismatch", wrong={"iv2": 2}, settings=explicit)
    bad("high half of the IV is another", "seq-mismatch", settings=explicit, seq=2**32 + 9, top=3)
    bad("high half of the nonce is another", "icv1", seq=2**32 + 9, top=3)
    bad("number 0", "replay", wrong={"iv1": 0, "iv2": 0}, seq=0)
    bad("number 2^63", "replay", seq=2**63, top=2**63 - 1)
    bad("zone 1 changed", "icv1", flip(20))
    bad("ICV 1 changed", "icv1", flip(60))
    bad("low half changed", "icv1", flip(6))
    bad("zone 2 changed", "icv2", flip(70))
    bad("ICV 2 changed", "icv2", lambda _, p: p[:-1] + bytes([p[-1] ^ 1]))

    def mixed(a_csa, packet):
        other = zone_esp.seal(a_csa, 2, 4, ipv4(TCP, tcp(stream("other", 33))))
        return packet[:68] + other[68:]

    bad("zones of two packets", "icv2", mixed)
    thirty_three = ipv4(TCP, tcp(stream("padding", 33)))
    for name, inside in (
        ("padding: not 1", bytes([0, 2, 3, 3, 4])),
        ("padding: wrong order", bytes([3, 2, 1, 3, 4])),
        ("padding: longer than zone 2", bytes([1, 2, 3, 255, 4])),
    ):
        bad(name, "padding", None, thirty_three, wrong={"trailer": inside})
    bad("next header of transport mode", "next-header", None, thirty_three, TCP)
    bad("IPv4 under IPv6's number", "next-header", None, thirty_three, 41)
    bad("dummy", "dummy", None, stream("dummy", 60), 59)
    bad("dummy in transport mode", "dummy", None, b"", 59, settings=transport)
    bad("L1 of another map", "zone-map", None, thirty_three, wrong={"divide": (24, None)})
    bad("L1 with a payload octet", "zone-map", None, ipv4(UDP, udp(b"payload")), wrong={"divide": (32, 26)})
    bad("inside is not IP", "inner-header", None, b"\x05" + bytes(39), wrong={"divide": (0, None)})
    bad("inner length above what arrived", "inner-length", None, ipv4(1, b"ping", total=25))
    bad("inner length below its header", "inner-length", None, ipv4(1, b"ping", total=19))
    chosen = {"family": 4, "protocol": 0, "src": SOURCE.hex() + "/32", "dst": DESTINATION.hex() + "/32"}
    for name, change in (
        ("selector: source", {"src": "c000020b/32"}),
        ("selector: destination", {"dst": "cb007180/25"}),
        ("selector: protocol", {"protocol": UDP}),
        ("selector: family", {"family": 6, "src": bytes(16).hex() + "/0", "dst": bytes(16).hex() + "/0"}),
    ):
        bad(name, "selector", None, thirty_three, settings={"selector": {**chosen, **change}})


def text():
    make_good()
    make_written()
    make_bad()
    names = [v["name"] for v in VECTORS]
    assert len(set(names)) == len(names)
    head = {"format": "zone ESP, docs/wire.md section 1", "made_by": "tests/vectors/make.py"}
    return json.dumps({**head, "vectors": VECTORS}, indent=1) + "\n"


def main():
    made = text()
    if sys.argv[1:] == ["--check"]:
        if not FILE.exists() or FILE.read_text() != made:
            sys.exit(f"{FILE} is not what {sys.argv[0]} makes: run it without --check and look at the difference")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        FILE.write_text(made)
    print(f"{len(VECTORS)} vectors, {sum('drop' in v for v in VECTORS)} of them to be dropped")


if __name__ == "__main__":
    main()
