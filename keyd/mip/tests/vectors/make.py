#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Makes the known-answer vectors of Mobile IPv4 (docs/wire.md §4), or checks that they are what it would make.

    keyd/mip/tests/vectors/make.py            writes mobile-ip.txt beside it
    keyd/mip/tests/vectors/make.py --check    exits 1 if mobile-ip.txt differs

Needs Python 3.9. Written from the RFCs, not from the crate. One vector a line: its name, then its octets in hex.
"""

import hmac
import pathlib
import struct
import sys

FILE = pathlib.Path(__file__).with_name("mobile-ip.txt")
HOME, HA, CARE_OF, PREVIOUS = "203.0.113.7", "198.51.100.1", "10.1.1.1", "10.2.2.2"
IDENTIFICATION = 0xEA5B1C00_80000000
MOBILE_HOME, MOBILE_FOREIGN, FOREIGN_HOME = 32, 33, 34


def address(text):
    return bytes(int(part) for part in text.split("."))


def authenticated(octets, kind, spi, key, digest):
    size = {"md5": 16, "sha256": 32}[digest]
    octets += struct.pack("!BBI", kind, 4 + size, spi)
    return octets + hmac.digest(key, octets, digest)


def checksum(octets):
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def icmp(octets):
    return octets[:2] + struct.pack("!H", checksum(octets)) + octets[4:]


def vectors():
    mobile, foreign, visitor = bytes([1] * 32), bytes([2] * 32), bytes([3] * 16)
    request = struct.pack("!BBH", 1, 0x02, 600) + address(HOME) + address(HA) + address(CARE_OF)
    request += struct.pack("!Q", IDENTIFICATION)
    yield "request-md5", authenticated(request, MOBILE_HOME, 1000, mobile, "md5")
    plain = authenticated(request, MOBILE_HOME, 1000, mobile, "sha256")
    yield "request", plain
    yield "request-to-foreign-agent", authenticated(plain, MOBILE_FOREIGN, 3000, visitor, "md5")
    support = struct.pack("!BBHI", 137, 6, 0x8000, 0xEA5B1C00)
    yield "request-relayed", authenticated(plain + support, FOREIGN_HOME, 2000, foreign, "sha256")

    k_fa = hmac.digest(bytes(range(32)), address(PREVIOUS) + struct.pack("!I", 7), "sha256")
    token = hmac.digest(k_fa, address(CARE_OF) + address(HOME) + struct.pack("!Q", IDENTIFICATION), "sha256")
    yield "token", token
    value = struct.pack("!HIH", 0, 32473, 1) + address(PREVIOUS) + struct.pack("!H", len(token)) + token
    named = request + struct.pack("!BB", 134, len(value)) + value
    yield "request-previous-fa", authenticated(named, MOBILE_HOME, 1000, mobile, "sha256")
    value += struct.pack("!IQIQ", 0x0BADCAFE, 1 << 32, 0x0BADCAFF, 7)
    seen = request + struct.pack("!BB", 134, len(value)) + value
    yield "request-previous-fa-seen", authenticated(seen, MOBILE_HOME, 1000, mobile, "sha256")

    reply = struct.pack("!BBH", 3, 0, 600) + address(HOME) + address(HA) + struct.pack("!Q", IDENTIFICATION)
    yield "reply", authenticated(reply, MOBILE_HOME, 1000, mobile, "sha256")
    value = struct.pack("!HIHIQ", 0, 32473, 2, 0x0BADF00D, 1 << 33)
    arrived = reply + struct.pack("!BB", 134, len(value)) + value
    yield "reply-arrived", authenticated(arrived, MOBILE_HOME, 1000, mobile, "sha256")
    revocation = struct.pack("!BBH", 7, 0, 0x8000) + address(HOME) + address(HA) + address(CARE_OF)
    revocation += struct.pack("!I", 0xEA5B1C01)
    yield "revocation", authenticated(revocation, FOREIGN_HOME, 2000, foreign, "sha256")
    ack = struct.pack("!BBH", 15, 0, 0x8000) + address(HOME) + struct.pack("!I", 0xEA5B1C01)
    yield "revocation-ack", authenticated(ack, FOREIGN_HOME, 2000, foreign, "sha256")

    yield "solicitation", icmp(bytes([10, 0, 0, 0, 0, 0, 0, 0]))
    agent = struct.pack("!BBHBBH", 9, 0, 0, 1, 2, 3) + address(CARE_OF) + struct.pack("!i", 0)
    # R, F, T, X.
    agent += struct.pack("!BBHHH", 16, 10, 258, 600, 0x8000 | 0x1000 | 0x0100 | 0x0040) + address(CARE_OF)
    yield "advertisement", icmp(agent + bytes([19, 1, 24]))


def main():
    text = "".join(f"{name} {octets.hex()}\n" for name, octets in vectors())
    if "--check" in sys.argv[1:]:
        sys.exit(FILE.read_text() != text)
    FILE.write_text(text)


main()
