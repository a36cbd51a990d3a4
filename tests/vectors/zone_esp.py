# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Zone ESP a second time: written from the text of docs/wire.md §1, not from the Rust code.

Plain rather than fast: whole packets as bytes, one function for each paragraph of the text. Integers are big-endian.
"""

import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

TRANSPORT_END, END = 0xFFFE, 0xFFFF
TRANSPORT, TUNNEL = 1, 2
TCP, UDP = 6, 17
EXTENSIONS = {0: "hop-by-hop", 43: "routing", 44: "fragment", 60: "destination"}
W = 1 << 63

CIPHERS = {
    "aes128-gcm16": (AESGCM, 16),
    "aes256-gcm16": (AESGCM, 32),
    "chacha20-poly1305": (ChaCha20Poly1305, 32),
}


class Drop(Exception):
    """A packet is dropped; the argument is the reason's name."""


@dataclass
class Zone:
    cipher: str
    explicit: bool
    key: bytes
    salt: bytes

    def aead(self):
        kind, octets = CIPHERS[self.cipher]
        assert len(self.key) == octets and len(self.salt) == 4
        return kind(self.key)

    def seal(self, iv, aad, plain):
        return self.aead().encrypt(self.salt + struct.pack(">Q", iv), plain, aad)

    def open(self, iv, aad, sealed, reason):
        try:
            return self.aead().decrypt(self.salt + struct.pack(">Q", iv), sealed, aad)
        except InvalidTag:
            raise Drop(reason) from None


@dataclass
class Csa:
    spi: int
    mode: int
    stop: int
    zones: list
    may_write: bool = False
    selector: dict = None


@dataclass
class Headers:
    """Where the headers of a datagram end."""

    ip_end: int  # with options or extension headers
    protocol: int  # of what follows
    first: bool  # nothing is in front of what follows: no fragment, or the first one
    total: int  # length of the datagram as its header has it


def headers(datagram):
    """The IP header with its options or extension headers; None of what isn't IP."""
    version = datagram[0] >> 4 if datagram else 0
    if version == 4 and datagram[0] & 15 >= 5 and len(datagram) >= 10:
        (total,) = struct.unpack_from(">H", datagram, 2)
        (fragment,) = struct.unpack_from(">H", datagram, 6)
        return Headers(4 * (datagram[0] & 15), datagram[9], fragment & 0x1FFF == 0, total)
    if version == 6 and len(datagram) >= 40:
        total = 40 + struct.unpack_from(">H", datagram, 4)[0]
        end, following, seen = 40, datagram[6], 0
        while following in EXTENSIONS:
            seen += 1
            if seen > 8 or end + 8 > 192:
                return Headers(40, 59, False, total)
            if end + 8 > total:
                # Cut short within its headers: it ends before they do.
                return Headers(end + 8, 59, False, total)
            if end + 8 > len(datagram):
                return None
            octets = 8 if following == 44 else 8 * (datagram[end + 1] + 1)
            if end + octets > 192:
                return Headers(40, 59, False, total)
            later = following == 44 and struct.unpack_from(">H", datagram, end + 2)[0] >> 3 != 0
            following = datagram[end]
            end += octets
            if later:
                return Headers(end, following, False, total)
        return Headers(end, following, True, total)
    return None


def transport(csa, following, datagram):
    """(offset, protocol, length of the datagram) where a transport header may begin, or None."""
    if csa.mode == TRANSPORT:
        return 0, following, len(datagram)
    found = headers(datagram)
    if found is None:
        return None
    return found.ip_end, found.protocol if found.first else None, min(found.total, len(datagram))


def divide(csa, following, datagram):
    """L1, and the offset of the checksum field that moves, or None."""
    place = transport(csa, following, datagram)
    if place is None:
        return 0, None
    start, protocol, length = place
    end, check = start, None
    if protocol == TCP and start + 20 <= length:
        octets = 4 * (datagram[start + 12] >> 4)
        if octets >= 20 and start + octets <= length:
            end, check = start + octets, start + 16
    if protocol == UDP and start + 8 <= length:
        end, check = start + 8, start + 6
    l1 = min(end, csa.stop, length)
    return l1, check if check is not None and check + 2 <= l1 else None


def authenticated2(csa, header, zone1):
    """AAD 2: the header with W cleared, and zone 1's plaintext, masked where the CSA permits writing."""
    header = header[:8] + bytes([header[8] & ~1]) + header[9:]
    masked = bytearray(zone1)

    def zero(at, octets):
        for i in range(at, min(at + octets, len(masked))):
            masked[i] = 0

    if csa.may_write:
        place = transport(csa, header[9], zone1)
        if place and place[1] == TCP:
            zero(place[0] + 14, 4)
        if csa.mode == TUNNEL and zone1:
            if zone1[0] >> 4 == 4:
                if len(zone1) > 1:
                    masked[1] &= 0xFC
                zero(10, 2)
            elif zone1[0] >> 4 == 6 and len(zone1) > 1:
                masked[1] &= 0xCF
    return header + bytes(masked)


def trailer(unpadded, following, pad=None):
    """Padding 1, 2, 3 …, pad length, next header, so that `unpadded` octets and it are a multiple of 4."""
    pad = -(unpadded + 2) % 4 if pad is None else pad
    return bytes(range(1, pad + 1)) + bytes([pad, following])


def seal(csa, seq, following, datagram, tfc=0, **wrong):
    """A sealed packet; `wrong` names what to do otherwise than the text says, for the negative vectors."""
    l1, check = wrong.get("divide") or divide(csa, following, datagram)
    zone1, rest = bytearray(datagram[:l1]), datagram[l1:] + bytes(tfc)
    if check is not None:
        rest = bytes(zone1[check : check + 2]) + rest
        zone1[check : check + 2] = b"\0\0"
    inside = wrong.get("trailer") or trailer(len(zone1) + len(rest), following)
    clear = following if csa.mode == TRANSPORT else 0
    header = struct.pack(
        ">IIBBH",
        csa.spi,
        seq & 0xFFFF_FFFF,
        wrong.get("flags", 0),
        wrong.get("protocol", clear),
        wrong.get("l1", l1),
    )
    iv1, iv2 = wrong.get("iv1", seq), wrong.get("iv2", seq)
    zone1 = bytes(zone1)
    sealed2 = csa.zones[1].seal(iv2, authenticated2(csa, header, zone1), rest + inside)
    sealed1 = csa.zones[0].seal(iv1, header, zone1)
    sent = [struct.pack(">Q", iv) if zone.explicit else b"" for zone, iv in zip(csa.zones, (iv1, iv2))]
    return header + sent[0] + sealed1 + sent[1] + sealed2


def rewrite(csa, packet, relay_number, counter, change):
    """A relay that writes: `change` edits zone 1's plaintext."""
    (l1,) = struct.unpack_from(">H", packet, 10)
    assert csa.zones[0].explicit
    (iv,) = struct.unpack_from(">Q", packet, 12)
    zone1 = csa.zones[0].open(iv, packet[:12], packet[20 : 36 + l1], "icv1")
    edited = bytearray(zone1)
    change(edited)
    header = packet[:8] + b"\x01" + packet[9:12]
    iv = W | relay_number << 48 | counter
    return header + struct.pack(">Q", iv) + csa.zones[0].seal(iv, header, bytes(edited)) + packet[36 + l1 :]


@dataclass
class Window:
    """RFC 4303 §3.4.3: the highest number and the ones seen."""

    width: int
    top: int
    seen: set = field(default_factory=set)

    def infer(self, low):
        """The number that lies in the 2^32 from the window's left edge on (appendix A2.2)."""
        left = self.top - self.width + 1
        number = (left >> 32 << 32) + low
        if number < left:
            number += 1 << 32
        return number if number >= 0 else low

    def new(self, seq):
        return 0 < seq < W and seq > self.top - self.width and seq not in self.seen


def ones_sum(data):
    data = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def addresses(datagram):
    """(family, source, destination) of a datagram."""
    if datagram[0] >> 4 == 4:
        return 4, datagram[12:16], datagram[16:20]
    return 6, datagram[8:24], datagram[24:40]


def prefix(address, text):
    want, bits = bytes.fromhex(text.split("/")[0]), int(text.split("/")[1])
    shift = 8 * len(want) - bits
    return int.from_bytes(address, "big") >> shift == int.from_bytes(want, "big") >> shift


def open_packet(csa, window, packet, outer=None):
    """The terminus, in the text's order: the datagram delivered and its sequence number, or Drop."""
    if len(packet) < 12:
        raise Drop("truncated")
    spi, low, flags, protocol, l1 = struct.unpack_from(">IIBBH", packet)
    if spi < 256:
        raise Drop("spi")
    if flags & ~1:
        raise Drop("flags")
    if l1 > 256:
        raise Drop("l1")
    if spi != csa.spi:
        raise Drop("spi")
    if csa.mode == TUNNEL and protocol:
        raise Drop("protocol")
    start1 = 12 + 8 * csa.zones[0].explicit
    end1 = start1 + l1 + 16
    start2 = end1 + 8 * csa.zones[1].explicit
    if len(packet) < start2 + 2 + 16:
        raise Drop("truncated")
    if (l1 + len(packet) - start2 - 16) % 4:
        raise Drop("alignment")
    iv1 = struct.unpack_from(">Q", packet, 12)[0] if csa.zones[0].explicit else None
    iv2 = struct.unpack_from(">Q", packet, end1)[0] if csa.zones[1].explicit else None
    if bool((iv1 or 0) & W) != bool(flags & 1) or (iv2 or 0) & W:
        raise Drop("iv-w")
    if flags & 1 and not csa.may_write:
        raise Drop("write-unpermitted")
    seq = window.infer(low)
    if not window.new(seq):
        raise Drop("replay")
    for iv in (iv1, iv2):
        if iv is not None and not iv & W and iv != seq:
            raise Drop("seq-mismatch")
    zone1 = csa.zones[0].open(seq if iv1 is None else iv1, packet[:12], packet[start1:end1], "icv1")
    aad2 = authenticated2(csa, packet[:12], zone1)
    zone2 = csa.zones[1].open(seq if iv2 is None else iv2, aad2, packet[start2:], "icv2")
    window.seen.add(seq)
    window.top = max(window.top, seq)

    # Whether a checksum was moved follows from zone 1 alone.
    place = transport(csa, protocol, zone1)
    check = {TCP: 16, UDP: 6}.get(place[1]) if place else None
    moved = check is not None and place[0] + check + 2 <= l1
    body = zone2[2:] if moved else zone2
    if len(body) < 2:
        raise Drop("truncated")
    pad, following = body[-2:]
    if pad + 2 > len(body) or body[-2 - pad : -2] != bytes(range(1, pad + 1)):
        raise Drop("padding")
    if csa.mode == TRANSPORT and following != protocol:
        raise Drop("protocol")
    if following == 59:
        raise Drop("dummy")
    if csa.mode == TUNNEL and following not in (4, 41):
        raise Drop("next-header")
    head = bytearray(zone1)
    if moved:
        at = place[0] + check
        head[at : at + 2] = struct.pack(">H", ones_sum(bytes(head[at : at + 2]) + zone2[:2]))
    datagram = bytes(head) + body[: -2 - pad]
    if divide(csa, protocol, datagram)[0] != l1:
        raise Drop("zone-map")
    if csa.mode == TUNNEL:
        found = headers(datagram)
        if found is None or len(datagram) < 20:
            raise Drop("inner-header")
        if following != {4: 4, 6: 41}[datagram[0] >> 4]:
            raise Drop("next-header")
        if not found.ip_end <= found.total <= len(datagram):
            raise Drop("inner-length")
        datagram, addressed, carried = datagram[: found.total], datagram, found.protocol
    else:
        addressed, carried = outer, following
    if csa.selector:
        family, source, destination = addresses(addressed)
        want = csa.selector
        good = family == want["family"] and want["protocol"] in (0, carried)
        if not (good and prefix(source, want["src"]) and prefix(destination, want["dst"])):
            raise Drop("selector")
    return datagram, seq
