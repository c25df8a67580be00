// SPDX-License-Identifier: Apache-2.0
//! SLH-DSA-SHA2-192s (level 3) and SLH-DSA-SHA2-256s (level 5) of FIPS 205 behind a C interface.
//!
//! Pure SLH-DSA with an empty context; signatures are hedged. Every function answers 0 for "yes, done" and anything
//! else for "no": an unknown level, a length that is not that of the level, a key that is none, a failing source of
//! randomness, a signature that does not verify. Nothing is written in that case.
//!
//! Pointers must be valid for the lengths stated; `pq_registry/crypto/slhdsa.py` is the only caller and checks them.

use core::slice;

use fips205::traits::{SerDes, Signer, Verifier};

const DONE: i32 = 0;
const REFUSED: i32 = -1;

macro_rules! of_level {
    ($level:expr, $set:ident => $body:expr) => {
        match $level {
            3 => {
                use fips205::slh_dsa_sha2_192s as $set;
                $body
            }
            5 => {
                use fips205::slh_dsa_sha2_256s as $set;
                $body
            }
            _ => None,
        }
    };
}

fn status(answer: Option<()>) -> i32 {
    match answer {
        Some(()) => DONE,
        None => REFUSED,
    }
}

/// Makes a key pair: 48 and 96 bytes at level 3, 64 and 128 at level 5.
///
/// # Safety
/// `public_key` and `secret_key` must be writable for those lengths.
#[no_mangle]
pub unsafe extern "C" fn pqreg_slhdsa_keypair(level: u32, public_key: *mut u8, secret_key: *mut u8) -> i32 {
    status(of_level!(level, set => {
        set::try_keygen().ok().map(|(public, secret)| {
            slice::from_raw_parts_mut(public_key, set::PK_LEN).copy_from_slice(&public.into_bytes());
            slice::from_raw_parts_mut(secret_key, set::SK_LEN).copy_from_slice(&secret.into_bytes());
        })
    }))
}

/// Signs: 16224 bytes at level 3, 29792 at level 5.
///
/// # Safety
/// `message` must be readable for `message_length`, `secret_key` for 96 or 128, `signature` writable for its length.
#[no_mangle]
pub unsafe extern "C" fn pqreg_slhdsa_sign(
    level: u32,
    message: *const u8,
    message_length: usize,
    secret_key: *const u8,
    signature: *mut u8,
) -> i32 {
    let message = slice::from_raw_parts(message, message_length);
    status(of_level!(level, set => {
        let bytes: Option<[u8; set::SK_LEN]> = slice::from_raw_parts(secret_key, set::SK_LEN).try_into().ok();
        bytes
            .and_then(|bytes| set::PrivateKey::try_from_bytes(bytes).ok())
            .and_then(|secret| secret.try_sign(message, &[], true).ok())
            .map(|made| slice::from_raw_parts_mut(signature, set::SIG_LEN).copy_from_slice(&made))
    }))
}

/// Verifies.
///
/// # Safety
/// `message` and `signature` must be readable for their lengths, `public_key` for 48 or 64.
#[no_mangle]
pub unsafe extern "C" fn pqreg_slhdsa_verify(
    level: u32,
    message: *const u8,
    message_length: usize,
    signature: *const u8,
    signature_length: usize,
    public_key: *const u8,
) -> i32 {
    let message = slice::from_raw_parts(message, message_length);
    let signature = slice::from_raw_parts(signature, signature_length);
    status(of_level!(level, set => {
        let made: Option<[u8; set::SIG_LEN]> = signature.try_into().ok();
        let bytes: Option<[u8; set::PK_LEN]> = slice::from_raw_parts(public_key, set::PK_LEN).try_into().ok();
        made.zip(bytes.and_then(|bytes| set::PublicKey::try_from_bytes(bytes).ok()))
            .and_then(|(made, public)| public.verify(message, &made, &[]).then_some(()))
    }))
}
