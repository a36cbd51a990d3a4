// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Keys and algorithms against known answers: the standards' own, and those of `tests/vectors/make.py`.

mod common;

use common::hex;
use common::host::TestHost;
use mml_ike::crypto::{
    k_fa, skeyseed, skeyseed_next, skeyseed_rekey, ChildKeys, Cipher, CryptoError, GroupOpener,
    GroupSealer, Hash, IkeKeys, KeyPair, Method, Opener, Sealer, Unopened, ZoneKeyLengths,
};
use mml_ike::host::Host;
use mml_ike::secret::Secret;
use mml_ike::wire::{Encr, Prf};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/ike-keys.json")).expect("JSON")
}

fn octets(value: &Value) -> Vec<u8> {
    hex(value.as_str().expect("hex digits"))
}

fn secret(value: &Value) -> Secret {
    Secret::new(octets(value))
}

fn same_ike(keys: &IkeKeys, expected: &Value) {
    for (name, key) in [
        ("d", &keys.d),
        ("ei", &keys.ei),
        ("er", &keys.er),
        ("pi", &keys.pi),
        ("pr", &keys.pr),
    ] {
        assert_eq!(key.expose(), octets(&expected[name]), "SK_{name}");
    }
}

fn same_child(keys: &ChildKeys, expected: &Value) {
    for (direction, pairs) in [
        ("initiator", &keys.initiator),
        ("responder", &keys.responder),
    ] {
        let parts = |pair: &KeyPair| [pair.key.expose().to_vec(), pair.salt.expose().to_vec()];
        let ours: Vec<Vec<u8>> = pairs.iter().flat_map(parts).collect();
        let theirs: Vec<Vec<u8>> = expected[direction]
            .as_array()
            .unwrap()
            .iter()
            .map(octets)
            .collect();
        assert_eq!(ours, theirs, "{direction}");
    }
    assert_eq!(keys.k_ho.expose(), octets(&expected["k_ho"]));
}

/// docs/wire.md 3.2g, 3.2h.
#[test]
fn ike_and_child_and_zone_keys_are_those_of_the_second_implementation() {
    let vectors = vectors();
    let list = vectors["keys"].as_array().unwrap();
    assert_eq!(list.len(), 9);
    for v in list {
        let prf = Hash::from_prf(Prf(u16::try_from(v["prf"].as_u64().unwrap()).unwrap())).unwrap();
        let bits = u16::try_from(v["bits"].as_u64().unwrap()).unwrap();
        let encr = Encr(u16::try_from(v["encr"].as_u64().unwrap()).unwrap());
        let cipher = Cipher::from_encr(encr, (bits != 0).then_some(bits)).unwrap();
        let (ni, nr) = (octets(&v["ni"]), octets(&v["nr"]));
        let spi = |name: &str| u64::from_be_bytes(octets(&v[name]).try_into().unwrap());
        let spis = (spi("spi_i"), spi("spi_r"));
        let shared: Vec<Secret> = v["shared"].as_array().unwrap().iter().map(secret).collect();

        let seed = skeyseed(prf, &ni, &nr, &shared[0]);
        assert_eq!(seed, secret(&v["skeyseed"]));
        let keys = IkeKeys::derive(prf, cipher, &seed, (&ni, &nr), spis);
        same_ike(&keys, &v["keys"]);

        let seed = skeyseed_next(prf, &keys.d, &shared[1], &ni, &nr);
        assert_eq!(seed, secret(&v["skeyseed_second"]));
        same_ike(
            &IkeKeys::derive(prf, cipher, &seed, (&ni, &nr), spis),
            &v["keys_second"],
        );
        assert_eq!(
            skeyseed_rekey(prf, &keys.d, &shared, &ni, &nr),
            secret(&v["skeyseed_rekeyed"])
        );

        let lengths = ZoneKeyLengths {
            key: cipher.key_len(),
            salt: 4,
        };
        let nonces = (ni.as_slice(), nr.as_slice());
        same_child(
            &ChildKeys::plain(prf, &keys.d, &[], nonces, lengths),
            &v["child"],
        );
        same_child(
            &ChildKeys::plain(prf, &keys.d, &shared, nonces, lengths),
            &v["child_pfs"],
        );
        let zones: Vec<ZoneKeyLengths> = v["zone_keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| ZoneKeyLengths {
                key: usize::try_from(key.as_u64().unwrap()).unwrap(),
                salt: 4,
            })
            .collect();
        let zoned = ChildKeys::zones(prf, &keys.d, &[], nonces, &zones);
        same_child(&zoned, &v["zones"]);
        same_child(
            &ChildKeys::zones(prf, &keys.d, &shared[..1], nonces, &zones),
            &v["zones_pfs"],
        );
        for (fa, name) in [("192.0.2.33", "k_fa"), ("2001:db8::33", "k_fa6")] {
            let key = k_fa(prf, &zoned.k_ho, fa.parse().unwrap(), 7);
            assert_eq!(key, secret(&v[name]), "{name}");
        }
    }
}

/// RFC 4231, test cases 1, 2, 6 and 7 (the last two have keys longer than a block of SHA-256, and of none of SHA-512).
#[test]
fn hmac_is_rfc_4231s() {
    let long = [0xaa; 131];
    type Case<'a> = (&'a [u8], &'a [u8], &'a str, &'a str, &'a str);
    let cases: [Case<'_>; 3] = [
        (
            &[0x0b; 20],
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
        (
            &long,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
            "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
        ),
    ];
    for (key, data, sha256, sha384, sha512) in cases {
        for (hash, expected) in [
            (Hash::Sha256, sha256),
            (Hash::Sha384, sha384),
            (Hash::Sha512, sha512),
        ] {
            assert_eq!(hash.prf(key, &[data]).expose(), hex(expected));
            assert!(hash.verify(key, &[data], &hex(expected)));
            assert!(!hash.verify(key, &[data, b"!"], &hex(expected)));
        }
    }
}

/// RFC 8439 §2.8.2; test cases 4 and 16 of "The Galois/Counter Mode of Operation".
#[test]
fn the_ciphers_are_the_standards() {
    let gcm_plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
    let gcm_aad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
    let ladies = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let cases = [
        (
            Cipher::ChaCha20Poly1305,
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "07000000",
            "4041424344454647",
            "50515253c0c1c2c3c4c5c6c7",
            ladies.to_vec(),
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116",
            "1ae10b594f09e26a7e902ecbd0600691",
        ),
        (
            Cipher::Aes128Gcm,
            "feffe9928665731c6d6a8f9467308308",
            "cafebabe",
            "facedbaddecaf888",
            gcm_aad,
            hex(gcm_plain),
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47",
        ),
        (
            Cipher::Aes256Gcm,
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabe",
            "facedbaddecaf888",
            gcm_aad,
            hex(gcm_plain),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ];
    for (cipher, key, salt, iv, aad, plain, sealed, tag) in cases {
        let opener = Opener::new(cipher, &Secret::new(hex(&[key, salt].concat()))).unwrap();
        let packet = hex(&[iv, sealed, tag].concat());
        let opened = opener.open(&hex(aad), &packet).unwrap();
        assert_eq!(opened.expose(), plain);
        let mut bent = packet;
        bent[20] ^= 1;
        assert_eq!(opener.open(&hex(aad), &bent), Err(CryptoError));
    }
}

#[test]
fn what_is_sealed_opens_and_no_iv_comes_twice() {
    for cipher in [
        Cipher::Aes128Gcm,
        Cipher::Aes256Gcm,
        Cipher::ChaCha20Poly1305,
    ] {
        let key = Secret::new(vec![7; cipher.keymat_len()]);
        let mut sealer = Sealer::new(cipher, &key).unwrap();
        let opener = Opener::new(cipher, &key).unwrap();
        let sealed: Vec<_> = (0..3)
            .map(|_| sealer.seal(b"aad", b"text").unwrap())
            .collect();
        for packet in &sealed {
            assert_eq!(opener.open(b"aad", packet).unwrap().expose(), b"text");
            assert_eq!(opener.open(b"aae", packet), Err(CryptoError));
        }
        assert!(sealed[0][..8] != sealed[1][..8] && sealed[1][..8] != sealed[2][..8]);
        assert!(Sealer::new(cipher, &Secret::new(vec![7; cipher.keymat_len() - 1])).is_err());
    }
}

#[test]
fn both_sides_of_every_key_exchange_agree() {
    let mut host = TestHost::new(1);
    for (method, sizes) in [
        (Method::X25519, (32, 32, 32)),
        (Method::P256, (64, 64, 32)),
        (Method::P384, (96, 96, 48)),
        (Method::MlKem768, (1184, 1088, 32)),
    ] {
        let (pending, ours) = method.begin(&mut host).unwrap();
        let (theirs, shared) = method.respond(&ours, &mut host).unwrap();
        assert_eq!(
            (ours.len(), theirs.len(), shared.len()),
            sizes,
            "{method:?}"
        );
        assert_eq!(pending.finish(&theirs).unwrap(), shared);
        assert_eq!(Method::from_group(method.group()), Some(method));
    }
}

#[test]
fn a_public_value_that_is_none_is_refused() {
    let mut host = TestHost::new(2);
    for (method, len) in [
        (Method::X25519, 32),
        (Method::P256, 64),
        (Method::P384, 96),
        (Method::MlKem768, 1184),
    ] {
        let (pending, _) = method.begin(&mut host).unwrap();
        // All zeros is a point of low order, no point at all, and for ML-KEM a key that is sound.
        let zeros = vec![0; len];
        if method != Method::MlKem768 {
            assert!(method.respond(&zeros, &mut host).is_err(), "{method:?}");
        }
        assert!(method.respond(&vec![0xFF; len], &mut host).is_err() || method == Method::X25519);
        assert!(method.respond(&zeros[1..], &mut host).is_err());
        assert!(pending.finish(&zeros[..8]).is_err());
    }
}

/// A host whose randomness is given.
struct Given(Vec<u8>, TestHost);

impl Host for Given {
    fn fill(&mut self, out: &mut [u8]) {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&std::mem::replace(&mut self.0, rest));
    }

    fn secure(&self) -> &dyn ring::rand::SecureRandom {
        self.1.secure()
    }
}

/// RFC 7748 §6.1; RFC 5903 §8.1, §8.2: private and public values of both sides, and what they share.
#[test]
fn curves_are_those_of_the_standards() {
    type Side = (&'static str, &'static str);
    let all: [(Method, Side, Side, &str); 3] = [
        (
            Method::X25519,
            (
                "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
                "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            ),
            (
                "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
                "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            ),
            "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        ),
        (
            Method::P256,
            (
                "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
                "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180\
                 5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
            ),
            (
                "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63\
                 56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
            ),
            "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
        ),
        (
            Method::P384,
            (
                "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
                "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa\
                 9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
            ),
            (
                "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
                "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571\
                 dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
            ),
            "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
        ),
    ];
    for (method, initiator, responder, shared) in all {
        let mut host = Given(
            hex(&(initiator.0.to_owned() + responder.0)),
            TestHost::new(3),
        );
        let (pending, public) = method.begin(&mut host).unwrap();
        assert_eq!(public, hex(initiator.1), "{method:?}");
        let (answer, secret) = method.respond(&public, &mut host).unwrap();
        assert_eq!(answer, hex(responder.1), "{method:?}");
        assert_eq!(secret.expose(), hex(shared), "{method:?}");
        assert_eq!(pending.finish(&answer).unwrap(), secret);
    }
}

/// A number that is the order of P-256 or more is no private key: another one is drawn.
#[test]
fn a_private_key_that_is_none_is_drawn_again() {
    let right = "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433";
    let draws = "f".repeat(64) + &"0".repeat(64) + right;
    let mut host = Given(hex(&draws), TestHost::new(3));
    let (_, public) = Method::P256.begin(&mut host).unwrap();
    let of_right = Method::P256.begin(&mut Given(hex(right), TestHost::new(3)));
    assert_eq!(public, of_right.unwrap().1);
    let mut broken = Given(vec![0; 32 * 8], TestHost::new(3));
    assert!(
        Method::P256.begin(&mut broken).is_err(),
        "randomness that is none"
    );
}

#[test]
fn ml_kem_is_that_of_the_second_implementation() {
    let vectors = vectors();
    let v = &vectors["ml_kem_768"];
    let mut host = Given(octets(&v["seed"]), TestHost::new(3));
    let (pending, public) = Method::MlKem768.begin(&mut host).unwrap();
    assert_eq!(public, octets(&v["public"]));
    let shared = pending.finish(&octets(&v["ciphertext"])).unwrap();
    assert_eq!(shared, secret(&v["shared"]));
}

#[test]
fn nothing_that_is_debugged_shows_a_key() {
    let secret = Secret::copy(&[0xAB; 20]);
    let shown = format!(
        "{secret:?} {:?}",
        KeyPair {
            key: secret.clone(),
            salt: secret.clone()
        }
    );
    assert!(
        !shown.contains("171")
            && !shown.to_lowercase().contains("ab, ")
            && shown.contains("20 octets")
    );
}

/// docs/wire.md 3.3c, 3.3d, 3.3e.
#[test]
fn a_datagram_to_many_is_as_the_second_implementation_has_it() {
    let vectors = vectors();
    let list = vectors["multicast"].as_array().unwrap();
    assert_eq!(list.len(), 3);
    for vector in list {
        let number = |name: &str| u32::try_from(vector[name].as_u64().unwrap()).unwrap();
        let encr = Encr(u16::try_from(number("encr")).unwrap());
        let bits = u16::try_from(number("bits")).ok().filter(|bits| *bits != 0);
        let cipher = Cipher::from_encr(encr, bits).unwrap();
        let keymat = Secret::new([octets(&vector["key"]), octets(&vector["salt"])].concat());
        let (seed, payloads) = (secret(&vector["seed"]), octets(&vector["payloads"]));
        let of = (number("group"), number("epoch"));
        let mut sealer = GroupSealer::new(of, cipher, &keymat, &seed).unwrap();
        assert_eq!(sealer.public().to_vec(), octets(&vector["public"]));
        let first = sealer.seal(&payloads).unwrap();
        let second = sealer.seal(&payloads).unwrap();
        assert_eq!(second, octets(&vector["datagram"]));
        assert_eq!(second.len(), payloads.len() + GroupSealer::OVERHEAD);
        assert!(first != second);
        let opener = GroupOpener::new(cipher, &keymat, sealer.public()).unwrap();
        assert_eq!(opener.open(&second).unwrap().expose(), payloads);
        // A member has all but the home agent's own key, and signs with another.
        let own = Secret::new(vec![9; 32]);
        let mut member = GroupSealer::new(of, cipher, &keymat, &own).unwrap();
        let forged = member.seal(&payloads).unwrap();
        assert_eq!(opener.open(&forged), Err(Unopened::Unsigned));
        // Nor can it say again, under another counter, what the home agent signed.
        let (aad, sealed) = second.split_at(8);
        let signed = Opener::new(cipher, &keymat).unwrap().open(aad, sealed);
        let mut member = Sealer::new(cipher, &keymat).unwrap();
        let again = (0..3).map(|_| member.seal(aad, signed.as_ref().unwrap().expose()));
        let again: Vec<_> = again
            .map(|sealed| [aad, &sealed.unwrap()].concat())
            .collect();
        assert_eq!(opener.open(&again[0]), Err(Unopened::Unsigned));
        assert_eq!(again[1], second);
        assert_eq!(opener.open(&again[2]), Err(Unopened::Unsigned));
        // What the home agent signed says which group, epoch and datagram it is.
        let other = Secret::new(vec![7; keymat.len()]);
        let outsider = GroupSealer::new(of, cipher, &other, &seed);
        let stranger = outsider.unwrap().seal(&payloads).unwrap();
        assert_eq!(opener.open(&stranger), Err(Unopened::Unsealed));
        let later = GroupSealer::new((of.0, of.1 + 1), cipher, &keymat, &seed);
        let later = later.unwrap().seal(&payloads).unwrap();
        let moved = [&second[..8], &later[8..]].concat();
        assert_eq!(opener.open(&moved), Err(Unopened::Unsealed));
    }
}
