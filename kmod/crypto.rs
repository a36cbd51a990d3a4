// SPDX-License-Identifier: GPL-2.0-only

//! Wrapper: authenticated encryption in place, by the kernel's synchronous crypto API.

use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::alloc::{flags::*, KBox};
use kernel::bindings::scatterlist;
use kernel::prelude::*;

use crate::sync::{Bh, PerCpu};
use crate::sys;

/// Octets of a nonce: salt (4) and IV (8).
pub(crate) const NONCE_LEN: usize = 12;
/// Octets of an ICV.
pub(crate) const ICV_LEN: usize = 16;
/// Octets that a request may need after its own structure. `gcm(aes)` of AES-NI needs none, the generic ones some hundred.
const REQUEST_SPACE: usize = 1024;
/// `CRYPTO_ALG_ASYNC`: as a mask, it asks for synchronous implementations.
const ALG_ASYNC: u32 = 0x80;

/// Octets that lie in the kernel's linear map, as a scatterlist needs them.
///
/// # Invariants
///
/// The octets belong to a slab, page or skb head, never to the stack or to vmalloc space.
pub(crate) struct Linear<'a>(&'a mut [u8]);

impl<'a> Linear<'a> {
    /// # Safety
    ///
    /// `octets` lie in the linear map.
    #[inline]
    pub(crate) unsafe fn new(octets: &'a mut [u8]) -> Self {
        // INVARIANT: By the caller's promise.
        Linear(octets)
    }
}

impl core::ops::Deref for Linear<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl core::ops::DerefMut for Linear<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0
    }
}

impl<'a> Linear<'a> {
    /// Part of the octets, for a shorter time.
    #[inline]
    pub(crate) fn range(&mut self, from: usize, to: usize) -> Option<Linear<'_>> {
        // INVARIANT: A part of linear octets is linear.
        self.0.get_mut(from..to).map(|octets| Linear(octets))
    }
}

impl Linear<'_> {
    /// Moves `len` octets from `from` to `to`; the two may overlap.
    #[inline]
    pub(crate) fn shift(&mut self, from: usize, len: usize, to: usize) -> Option<()> {
        let end = from.checked_add(len)?;
        if end > self.0.len() || to.checked_add(len)? > self.0.len() {
            return None;
        }
        let octets = self.0.as_mut_ptr();
        // SAFETY: both ranges lie within the slice, which is borrowed for writing.
        unsafe { ptr::copy(octets.add(from), octets.add(to), len) };
        Some(())
    }
}

/// A request and what it points to, one a CPU.
#[repr(C, align(64))]
struct Place {
    request: [u64; (REQUEST_SPACE + 256) / 8],
    iv: [u8; 16],
    sg: scatterlist,
}

/// The places, made when the module starts.
static PLACES: AtomicPtr<PerCpu<Place>> = AtomicPtr::new(ptr::null_mut());

/// Allocates the per-CPU requests.
pub(crate) fn start() -> Result {
    let places = PerCpu::new(|| {
        Ok(KBox::new(
            Place {
                request: [0; (REQUEST_SPACE + 256) / 8],
                iv: [0; 16],
                sg: Default::default(),
            },
            GFP_KERNEL,
        )?)
    })?;
    PLACES.store(
        KBox::into_raw(KBox::new(places, GFP_KERNEL)?),
        Ordering::Release,
    );
    Ok(())
}

/// Frees them. Nothing may seal or open any more.
pub(crate) fn stop() {
    if let Some(places) = NonNull::new(PLACES.swap(ptr::null_mut(), Ordering::AcqRel)) {
        // SAFETY: It came out of a `KBox` in `start`, and by the caller nobody uses it.
        drop(unsafe { KBox::from_raw(places.as_ptr()) });
    }
}

/// The ciphers of a zone, each with a 16-octet ICV.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    /// AES-GCM (RFC 4106).
    AesGcm,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

/// A keyed transform. Shared by all CPUs: using it changes nothing in it.
pub(crate) struct Aead {
    tfm: NonNull<sys::CryptoAead>,
}

// SAFETY: A keyed transform is only read by requests.
unsafe impl Send for Aead {}
// SAFETY: As above.
unsafe impl Sync for Aead {}

impl Aead {
    /// Allocates and keys a transform. Sleeps. Fails with `ENOENT` if the kernel has no such cipher, `EINVAL` for a key
    /// of the wrong length, `EOPNOTSUPP` if its requests need more space than there is.
    pub(crate) fn new(cipher: Cipher, key: &[u8]) -> Result<Self> {
        let name = match cipher {
            Cipher::AesGcm => c"gcm(aes)",
            Cipher::ChaCha20Poly1305 => c"rfc7539(chacha20,poly1305)",
        };
        // SAFETY: `name` is a C string.
        let tfm = unsafe { sys::crypto_alloc_aead(name.as_ptr().cast(), 0, ALG_ASYNC) };
        // SAFETY: Any pointer may be asked.
        if unsafe { sys::mml_is_err(tfm.cast()) } {
            return Err(ENOENT);
        }
        let aead = Aead {
            tfm: NonNull::new(tfm).ok_or(ENOENT)?,
        };
        // SAFETY: The transform is ours; the key is valid for its length.
        unsafe {
            if sys::mml_aead_reqsize(tfm) as usize + sys::mml_aead_request_size()
                > core::mem::size_of::<[u64; (REQUEST_SPACE + 256) / 8]>()
            {
                return Err(EOPNOTSUPP);
            }
            kernel::error::to_result(sys::crypto_aead_setkey(tfm, key.as_ptr(), key.len() as u32))?;
            kernel::error::to_result(sys::crypto_aead_setauthsize(tfm, ICV_LEN as u32))?;
        }
        Ok(aead)
    }

    /// `octets` is associated data (`ad` octets), plain text and room for the ICV; the text is encrypted in place and
    /// the ICV written.
    #[inline]
    pub(crate) fn seal(
        &self,
        bh: &Bh,
        octets: Linear<'_>,
        ad: usize,
        nonce: &[u8; NONCE_LEN],
    ) -> Result {
        let text = octets.len().checked_sub(ad + ICV_LEN).ok_or(EINVAL)?;
        self.request(bh, octets, ad, text, nonce, true)
    }

    /// `octets` is associated data (`ad` octets), cipher text and ICV; the text is decrypted in place if the ICV holds.
    #[inline]
    pub(crate) fn open(
        &self,
        bh: &Bh,
        octets: Linear<'_>,
        ad: usize,
        nonce: &[u8; NONCE_LEN],
    ) -> Result {
        let text = octets
            .len()
            .checked_sub(ad)
            .filter(|n| *n >= ICV_LEN)
            .ok_or(EBADMSG)?;
        self.request(bh, octets, ad, text, nonce, false)
    }

    #[inline]
    fn request(
        &self,
        bh: &Bh,
        octets: Linear<'_>,
        ad: usize,
        text: usize,
        nonce: &[u8; NONCE_LEN],
        seal: bool,
    ) -> Result {
        let places = NonNull::new(PLACES.load(Ordering::Acquire)).ok_or(ENODEV)?;
        let octets = octets.0;
        // SAFETY: The places live while the module's hooks do. The crypto API calls nothing of ours, so this is the only
        // reference to this CPU's place. The buffer is linear by `Linear`'s invariant and `ad + text` (+ ICV when
        // sealing) octets long by the callers above; the request is large enough by `new`'s check.
        let error = unsafe {
            let place = places.as_ref().place(bh).ok_or(ENODEV)?;
            if let Some(iv) = place.iv.first_chunk_mut() {
                *iv = *nonce;
            }
            let request = place.request.as_mut_ptr().cast::<sys::AeadRequest>();
            sys::mml_sg_one(
                &mut place.sg,
                octets.as_mut_ptr().cast(),
                octets.len() as u32,
            );
            sys::mml_aead_prepare(
                request,
                self.tfm.as_ptr(),
                &mut place.sg,
                ad as u32,
                text as u32,
                place.iv.as_mut_ptr(),
            );
            if seal {
                sys::crypto_aead_encrypt(request)
            } else {
                sys::crypto_aead_decrypt(request)
            }
        };
        kernel::error::to_result(error)
    }
}

impl Drop for Aead {
    fn drop(&mut self) {
        // SAFETY: The transform is ours, and requests on it end before they return. It zeroises its key. May sleep: a
        // CSA is dropped on a work queue.
        unsafe { sys::mml_aead_free(self.tfm.as_ptr()) };
    }
}

/// Scratch octets of a CPU: a zone 1 on its way through a relay.
#[repr(C, align(64))]
pub(crate) struct Scratch {
    octets: UnsafeCell<[u8; SCRATCH_LEN]>,
}

/// Octets of a CPU's scratch space: a zone header, an IV, the largest zone 1 and an ICV, with room to spare.
pub(crate) const SCRATCH_LEN: usize = 384;

static SCRATCH: AtomicPtr<PerCpu<Scratch>> = AtomicPtr::new(ptr::null_mut());

/// Allocates the scratch places.
pub(crate) fn start_scratch() -> Result {
    let places = PerCpu::new(|| {
        Ok(KBox::new(
            Scratch {
                octets: UnsafeCell::new([0; SCRATCH_LEN]),
            },
            GFP_KERNEL,
        )?)
    })?;
    SCRATCH.store(
        KBox::into_raw(KBox::new(places, GFP_KERNEL)?),
        Ordering::Release,
    );
    Ok(())
}

/// Frees and zeroises the scratch places.
pub(crate) fn stop_scratch() {
    if let Some(places) = NonNull::new(SCRATCH.swap(ptr::null_mut(), Ordering::AcqRel)) {
        // SAFETY: As in `stop`.
        drop(unsafe { KBox::from_raw(places.as_ptr()) });
    }
}

/// Lends this CPU's scratch octets to `f`, which must not transmit or deliver a packet: that could come back here.
#[inline]
pub(crate) fn with_scratch<R>(bh: &Bh, f: impl FnOnce(Linear<'_>) -> R) -> Option<R> {
    let places = NonNull::new(SCRATCH.load(Ordering::Acquire))?;
    // SAFETY: The places live while the module's hooks do; `f` is the only user, as its callers (relay.rs) promise by
    // neither transmitting nor delivering; the place is a slab's, so linear.
    unsafe {
        let scratch = places.as_ref().place(bh)?;
        Some(f(Linear::new(scratch.octets.get_mut())))
    }
}
