//! The scan on x86-64, compiled for what a machine may have: [`avx512`] or [`avx2`] for the masks of 64
//! bytes, and what both have for words of 64 bits.
//!
//! All `unsafe` of the crate is here and in these two: the loads of a block, which stay within it, and calls
//! of functions that need what a machine must have. Whoever has it is a value of a type that comes only
//! from `detect`; [`machine`] makes the look at the features and the functions that use them of one list.
#![allow(unsafe_code, reason = "see above")]

mod avx2;
mod avx512;

use std::arch::x86_64::{_mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_set1_epi8};

use self::avx2::Avx2;
use self::avx512::Avx512;
use super::head::Head;
use super::{Limits, Malformed};
use crate::protocol::envelope::Envelope;

/// The low four bits of each kind of white space are its own, so a table by these gives what a byte must
/// be. Bytes above 0x7f look up a 0. Unused entries hold a byte that has its own.
const WHITE: [u8; 16] = *b"         \t\n  \r  ";

/// The same for what may stand behind a backslash, but `"`, `r` and `u`.
const ESCAPES: [u8; 16] = *b"//b/t/f/////\\/n/";

/// Scans by the best that the machine has. `None`: it has neither.
#[inline]
pub(super) fn scan<'a>(
    head: Option<&Head>,
    text: &'a str,
    limits: Limits,
) -> Option<Result<Envelope<'a>, Malformed>> {
    if let Some(machine) = Avx512::detect() {
        return Some(machine.scan(head, text, limits));
    }
    Avx2::detect().map(|machine| machine.scan(head, text, limits))
}

/// What each of the two finds that the machine has.
pub(super) fn scan_each_way(text: &str, limits: Limits) -> Vec<Result<Envelope<'_>, Malformed>> {
    let wide = Avx512::detect().map(|machine| machine.scan(None, text, limits));
    let narrow = Avx2::detect().map(|machine| machine.scan(None, text, limits));
    wide.into_iter().chain(narrow).collect()
}

/// A machine with these features: the type, its detection, and the scan compiled for it. The functions
/// that make its masks stand beside.
macro_rules! machine {
    ($name:ident: $($feature:tt)+) => {
        /// A machine that has all features that are used here.
        #[derive(Clone, Copy)]
        pub(super) struct $name(());

        impl $name {
            /// Each feature is one look at a cached word.
            #[inline]
            pub(super) fn detect() -> Option<Self> {
                let is_there = $(std::arch::is_x86_feature_detected!($feature))&&+;
                is_there.then_some(Self(()))
            }

            #[inline]
            pub(super) fn scan<'a>(
                self,
                head: Option<&Head>,
                text: &'a str,
                limits: Limits,
            ) -> Result<Envelope<'a>, Malformed> {
                // SAFETY: this machine has all features that the function is compiled for.
                unsafe { scan(head, text, limits, self) }
            }
        }

        #[target_feature($(enable = $feature),+)]
        fn scan<'a>(
            head: Option<&Head>,
            text: &'a str,
            limits: Limits,
            machine: $name,
        ) -> Result<Envelope<'a>, Malformed> {
            tokens::scan(head, text, limits, machine)
        }

        #[target_feature($(enable = $feature),+)]
        fn nested_end(text: &[u8], at: usize, max_levels: u32, machine: $name) -> Option<usize> {
            blocks::end(text, at, max_levels, machine)
        }

        #[allow(clippy::inline_always, reason = "so that what they call becomes a part of the scan")]
        impl Shortcuts for $name {
            #[inline(always)]
            fn specials(self, block: &[u8; BLOCK]) -> u64 {
                // SAFETY: this machine has all features that the function is compiled for.
                unsafe { specials(block) }
            }

            #[inline(always)]
            fn nested_end(self, text: &[u8], at: usize, max_levels: u32) -> Option<usize> {
                // SAFETY: as above.
                unsafe { nested_end(text, at, max_levels, self) }
            }
        }

        #[allow(clippy::inline_always, reason = "as above")]
        impl Machine for $name {
            #[inline(always)]
            fn masks(self, block: &[u8; BLOCK]) -> Masks {
                // SAFETY: as above.
                unsafe { masks(block) }
            }

            #[inline(always)]
            fn number_masks(self, block: &[u8; BLOCK]) -> NumberMasks {
                // SAFETY: as above.
                unsafe { number_masks(block) }
            }

            #[inline(always)]
            fn escapes(self, block: &[u8; BLOCK]) -> u64 {
                // SAFETY: as above.
                unsafe { escapes(block) }
            }

            #[inline(always)]
            fn prefix_xor(self, bits: u64) -> u64 {
                // SAFETY: as above.
                unsafe { prefix_xor(bits) }
            }
        }
    };
}
use machine;

/// A product without carries by all ones is the parity of each bit and all below.
#[target_feature(enable = "pclmulqdq")]
#[inline]
fn prefix_xor(bits: u64) -> u64 {
    let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits.cast_signed()), _mm_set1_epi8(-1));
    _mm_cvtsi128_si64(product).cast_unsigned()
}

/// Eight bytes each as a word, as they lie in memory.
fn words(entries: [u8; 16]) -> [i64; 2] {
    [0, 8].map(|at| i64::from_le_bytes(entries[at..at + 8].try_into().expect("eight")))
}

#[cfg(test)]
mod tests;
