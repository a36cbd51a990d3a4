#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Makes the known-answer vectors of ML-IKE's keys (docs/wire.md §3.2, RFC 7296 §2.13-2.18, RFC 9370), or checks them.

    keyd/ike/tests/vectors/make.py            writes ike-keys.json beside it
    keyd/ike/tests/vectors/make.py --check    exits 1 if ike-keys.json differs

Needs Python 3.9 and, for ML-KEM and multicast PKD, the `cryptography` package (47 or later). Nothing in it is random but ML-KEM's
encapsulation, which is kept from the file there is, and checked by decapsulating it.
"""

import hashlib
import hmac
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("ike-keys.json")
PRFS = {5: "sha256", 6: "sha384", 7: "sha512"}
# ENCR number, key bits -> octets of key; each has 4 of salt behind it.
CIPHERS = {(20, 128): 16, (20, 256): 32, (28, 0): 32}


def stream(name, octets):
    out, n = b"", 0
    while len(out) < octets:
        out += hashlib.sha256(f"mml-ike vectors {name} {n}".encode()).digest()
        n += 1
    return out[:octets]


def prf(number, key, data):
    return hmac.new(key, data, PRFS[number]).digest()


def prf_plus(number, key, seed, octets):
    out, last, n = b"", b"", 1
    while len(out) < octets:
        last = prf(number, key, last + seed + bytes([n]))
        out, n = out + last, n + 1
    return out[:octets]


def cut(octets, *lengths):
    parts = []
    for length in lengths:
        parts.append(octets[:length])
        octets = octets[length:]
    assert not octets
    return parts


def ike(number, cipher, skeyseed, ni, nr, spis):
    n, c = hashlib.new(PRFS[number]).digest_size, CIPHERS[cipher] + 4
    keymat = prf_plus(number, skeyseed, ni + nr + spis, 3 * n + 2 * c)
    return dict(zip(["d", "ei", "er", "pi", "pr"], cut(keymat, n, c, c, n, n)))


def children(number, sk_d, shared, ni, nr, zones, k_ho):
    seed = (shared[0] if shared else b"") + ni + nr + b"".join(shared[1:])
    lengths = [octets for zone in zones for octets in (zone, 4)]
    keymat = prf_plus(number, sk_d, seed, 2 * sum(lengths) + k_ho)
    *parts, last = cut(keymat, *lengths, *lengths, k_ho)
    half = len(lengths)
    return {"initiator": parts[:half], "responder": parts[half:], "k_ho": last}


def vector(number, cipher, zones):
    name = f"{PRFS[number]} {cipher} {zones}"
    ni, nr = stream(name + " ni", 32), stream(name + " nr", 48)
    spi_i, spi_r = stream(name + " spi_i", 8), stream(name + " spi_r", 8)
    shared = [stream(f"{name} shared {i}", 32) for i in range(2)]
    skeyseed = prf(number, ni + nr, shared[0])
    keys = ike(number, cipher, skeyseed, ni, nr, spi_i + spi_r)
    second = prf(number, keys["d"], shared[1] + ni + nr)
    again = ike(number, cipher, second, ni, nr, spi_i + spi_r)
    rekeyed = prf(number, keys["d"], shared[0] + ni + nr + shared[1])
    zoned = children(number, keys["d"], [], ni, nr, zones, 32)
    return {
        "name": name, "prf": number, "encr": cipher[0], "bits": cipher[1], "ni": ni, "nr": nr, "spi_i": spi_i, "spi_r": spi_r,
        "shared": shared, "skeyseed": skeyseed, "keys": keys, "skeyseed_second": second, "keys_second": again,
        "skeyseed_rekeyed": rekeyed,
        "child": children(number, keys["d"], [], ni, nr, [CIPHERS[cipher]], 0),
        "child_pfs": children(number, keys["d"], shared, ni, nr, [CIPHERS[cipher]], 0),
        "zone_keys": zones, "zones": zoned, "zones_pfs": children(number, keys["d"], shared[:1], ni, nr, zones, 32),
        # FA 192.0.2.33 and 2001:db8::33, generation 7; then the token for a move to 198.51.100.9 of 203.0.113.5.
        "k_fa": prf(number, zoned["k_ho"], bytes([192, 0, 2, 33]) + (7).to_bytes(4, "big")),
        "k_fa6": prf(number, zoned["k_ho"], bytes.fromhex("20010db8" + "0" * 22 + "33") + (7).to_bytes(4, "big")),
        "token": prf(number, prf(number, zoned["k_ho"], bytes([192, 0, 2, 33]) + (7).to_bytes(4, "big")),
                     bytes([198, 51, 100, 9]) + bytes([203, 0, 113, 5]) + (0x0102030405060708).to_bytes(8, "big")),
    }


def ml_kem():
    from cryptography.hazmat.primitives.asymmetric import mlkem
    seed = stream("ml-kem seed", 64)
    private = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
    if FILE.exists():
        ciphertext = bytes.fromhex(json.loads(FILE.read_text())["ml_kem_768"]["ciphertext"])
        shared = private.decapsulate(ciphertext)
    else:
        shared, ciphertext = private.public_key().encapsulate()
        assert private.decapsulate(ciphertext) == shared
    return {"seed": seed, "public": private.public_key().public_bytes_raw(), "ciphertext": ciphertext, "shared": shared}


def multicast():
    """A datagram of multicast PKD (docs/wire.md 3.3c-3.3e), the second under its key, for each AEAD."""
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.ciphers import aead
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    group, epoch, counter = 0x11223344, 7, 1
    header = group.to_bytes(4, "big") + epoch.to_bytes(4, "big") + counter.to_bytes(8, "big")
    vectors = []
    for (encr, bits), octets in CIPHERS.items():
        name = f"multicast {encr} {bits}"
        key, salt = stream(name + " key", octets), stream(name + " salt", 4)
        seed, payloads = stream(name + " seed", 32), stream(name + " payloads", 270)
        signer = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        signature = signer.sign(b"mml-ipsec pkd 1" + header + payloads)
        cipher = aead.AESGCM(key) if bits else aead.ChaCha20Poly1305(key)
        sealed = cipher.encrypt(salt + header[8:], signature + payloads, header[:8])
        vectors.append({
            "encr": encr, "bits": bits, "group": group, "epoch": epoch, "key": key, "salt": salt, "seed": seed,
            "public": signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
            "payloads": payloads, "datagram": header + sealed,
        })
    return vectors


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def main():
    vectors = [
        vector(number, cipher, zones)
        for number in PRFS
        for cipher, zones in zip(CIPHERS, ([16, 16], [32, 32], [16, 32]))
    ]
    text = json.dumps(plain({"keys": vectors, "multicast": multicast(), "ml_kem_768": ml_kem()}), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        sys.exit(FILE.read_text() != text)
    FILE.write_text(text)


if __name__ == "__main__":
    main()
