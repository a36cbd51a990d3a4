#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes the committed corpus: what is inside each of tests/vectors/zone-esp.json, under the fuzzers' AEAD, and scripts.

The fuzz targets' cipher leaves plaintext as it is (fuzz_targets/shared.rs), so a vector's zones stand open here.
"""

import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent
VECTORS = HERE / "../../../tests/vectors"
sys.dont_write_bytecode = True
sys.path.insert(0, str(VECTORS))
import zone_esp  # noqa: E402


class Plain(zone_esp.Zone):
    def seal(self, iv, aad, plain):
        return plain + bytes(16)


def write(target, name, octets):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "".join(c if c.isalnum() else "-" for c in name)).write_bytes(octets)


for v in json.loads((VECTORS / "zone-esp.json").read_text())["vectors"]:
    if "seal" not in v or len(v["packet"]) > 1200:
        continue
    zones = [Plain("", z["iv"] == "explicit", b"", b"") for z in v["csa"]["zones"]]
    mode = {"transport": 1, "tunnel": 2}[v["csa"]["mode"]]
    csa = zone_esp.Csa(0x1234_5678, mode, v["csa"]["stops"][0], zones, v["csa"]["may_write"])
    seal = v["seal"]
    datagram = bytes.fromhex(seal["datagram"])
    if csa.stop not in (0xFFFE, 40):
        continue
    bits = (mode == 1) | (csa.stop == 40) << 1 | zones[0].explicit << 2 | zones[1].explicit << 3 | csa.may_write << 4
    packet = bytes([bits]) + zone_esp.seal(csa, seal["seq"], seal["next"], datagram, seal["tfc"])
    # The same under a selector of some ports (fuzz_targets/shared.rs), which most aren't of.
    if mode == 2 and v["name"] in ("UDP", "later fragment of TCP", "UDP header cut short"):
        write("open", v["name"] + " of ports", bytes([bits | 64]) + packet[1:])
    if mode == 2 and v["name"] == "UDP":
        ports = datagram[:20] + struct.pack(">HH", 500, 501) + datagram[24:]
        write("open", v["name"] + " of the right ports", bytes([bits | 64]) + zone_esp.seal(csa, seal["seq"], seal["next"], ports, 0))
    if " and " not in v["name"]:
        write("open", v["name"], packet)
        write("relay", v["name"], packet)
        write("split", v["name"], bytes([seal["next"], csa.stop & 0xFF]) + datagram)

# SYNs for what a writing relay reads of them: with a window scale, with two, with a malformed one.
ip = struct.pack(">BBHHHBBH8B", 0x45, 0, 48, 1, 0x4000, 64, 6, 0, 203, 0, 113, 7, 192, 0, 2, 10)
for name, options in (("one", "0303070100000000"), ("two", "0303070103030801"), ("malformed", "0302010103000000")):
    tcp = struct.pack(">HHIIBBHHH", 4242, 80, 100, 0, 0x70, 2, 65535, 0, 0)
    write("split", f"SYN-window-scale-{name}", bytes([6, 0xFE]) + ip + tcp + bytes.fromhex(options))

steps = [1, 1, -1, 63, 64, -64, 128, 8191, -8192, 65536, -65535, 0]
for width in (64, 65, 8192, 65536):
    for top in (0, 2**32 - 70, 2**63 - 70):
        head = struct.pack(">HQB", min(width, 65535), top, width > 65535)
        write("replay", f"{width}-{top}", head + b"".join(struct.pack(">i", s << 8)[:3] for s in steps))

# SNOOP's events, four octets each and two for a SACK block (fuzz_targets/snoop.rs).
DATA, ACK, SACKS, WAIT, GROW, FLOOR = 0, 2, 3, 5, 7, 7
send = [bytes([DATA, at, 10, 0]) for at in range(0, 200, 10)]
again = [bytes([DATA, 20, 15, 0]), bytes([DATA, 35, 5, 0]), bytes([DATA, 10, 60, 0])]
full = [bytes([DATA, 200, 10, 0x70]), bytes([DATA, 210, 10, 0x0E])]
flow = send + [bytes([ACK, 10, 0, 0])]
duplicates = [bytes([ACK, 10, 0, 0])] * 6
holes = [bytes([SACKS, 10, 1, 0, 20, 10, 40, 10]), bytes([SACKS, 30, 0, 0, 150, 30]), bytes([SACKS, 100, 0, 0, 150, 30])]
timers = [bytes([WAIT, ms, 0, 0]) for ms in (20, 60, 150, 250)] + [bytes([WAIT + 1, 60, 0, 0])] * 3
growth = [bytes([GROW, 0, 15, 0])]
esp = [bytes([DATA | 8, at, 10, 1]) for at in range(0, 200, 10)] + [bytes([FLOOR, 1, 90, 0])]
end = [bytes([0xF8, 200, 0, 2]), bytes([ACK, 201, 0, 0]), bytes([0xF8, 7, 0, 4])]
scripts = {
    "duplicates": flow + duplicates + [bytes([ACK, 90, 0, 0])] * 3,
    "holes": flow + holes + timers,
    "timers": flow + timers,
    "recut": flow + again + duplicates + timers,
    "full": flow + full + duplicates + growth + send,
    "esp": esp + [bytes([ACK, 10, 0, 0])] + duplicates + holes + esp,
    "closed-window": flow + [bytes([ACK, 10, 0, 255])] + timers + duplicates,
    "far": flow + [bytes([DATA, 250, 9, 0]), bytes([ACK, 252, 0, 0]), bytes([ACK, 245, 0, 0])] + duplicates,
    "end": flow + end + send,
}
for name, events in scripts.items():
    for start in (0, 2**31 - 50, 2**32 - 50):
        for slots, threshold in ((5, 0), (40, 3)):
            head = struct.pack(">IBBBB", start, slots, 49, threshold, 0x2A)
            write("snoop", f"{name}-{start:x}-{slots}", head + b"".join(events))

# What flows were to another foreign agent (docs/wire.md 3.4): sound ones, and each absurdity once.
ENDS4 = bytes([192, 0, 2, 10]) + bytes(12) + bytes([203, 0, 113, 7]) + bytes(12)
ENDS6 = bytes.fromhex("20010db8") + bytes(11) + b"\x0a" + bytes.fromhex("20010db8") + bytes(11) + b"\x07"


def state(una, sent=0, family=4, flags=0, window=1000, ports=(80, 4242), ends=ENDS4, fin=0, duplicates=0, rtt=(5000, 500, 4000) * 2):
    numbers = una, (una + sent) & 0xFFFFFFFF, fin, duplicates
    return struct.pack(">BBHHH", family, flags, window, *ports) + ends + struct.pack(">10I", *numbers, *rtt)


def states(*flows, version=1, count=None):
    return struct.pack(">BBHHH", version, 0, 0, 0, len(flows) if count is None else count) + b"".join(flows)


for name, octets in {
    "none": states(),
    "quiet": states(state(100)),
    "wraps": states(state(2**32 - 10, 1000, flags=1, duplicates=3)),
    "fin": states(state(100, 50, flags=3, fin=150)),
    "unmeasured": states(state(100, 50, rtt=(0,) * 6)),
    "IPv6": states(state(100, family=6, ends=ENDS6)),
    "slow": states(state(100, 2**30, duplicates=8192, window=0, rtt=(60_000_000, 1, 1) * 2)),
    "three": states(*(state(at, 10, ports=(80, at)) for at in (1, 2, 3))),
    "most": states(*(state(at, 10, ports=(80, at)) for at in range(1, 33))),
    "too many": states(*(state(at, 10, ports=(80, at)) for at in range(1, 34))),
    "twice": states(state(100), state(200)),
    "version": states(state(100), version=2),
    "count": states(state(100), count=2),
    "family": states(state(100, family=5)),
    "wide IPv4": states(state(100, ends=ENDS6)),
    "no port": states(state(100, ports=(0, 1))),
    "flag": states(state(100, flags=4)),
    "far": states(state(100, 2**30 + 1)),
    "fin past": states(state(100, 50, flags=2, fin=151)),
    "fin unsaid": states(state(100, 50, fin=120)),
    "duplicates": states(state(100, duplicates=8193)),
    "round trip": states(state(100, rtt=(60_000_001, 1, 1) * 2)),
    "half a round trip": states(state(100, rtt=(1, 0, 1) * 2)),
    "short": states(state(100))[:-1],
}.items():
    write("state", name, octets)
