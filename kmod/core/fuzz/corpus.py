#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes the committed corpus out of tests/vectors/zone-esp.json: what is inside each vector, under the fuzzers' AEAD.

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
    if " and " not in v["name"]:
        write("open", v["name"], packet)
        write("relay", v["name"], packet)
        write("split", v["name"], bytes([seal["next"], csa.stop & 0xFF]) + datagram)

steps = [1, 1, -1, 63, 64, -64, 128, 8191, -8192, 65536, -65535, 0]
for width in (64, 65, 8192, 65536):
    for top in (0, 2**32 - 70, 2**63 - 70):
        head = struct.pack(">HQB", min(width, 65535), top, width > 65535)
        write("replay", f"{width}-{top}", head + b"".join(struct.pack(">i", s << 8)[:3] for s in steps))
