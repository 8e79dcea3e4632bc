//! The scan on x86-64, compiled for what a machine may have: [`avx512`] or [`avx2`] for the masks of 64
//! bytes, and what both have for words of 64 bits.
//!
//! All `unsafe` of the crate is here: the loads of a block, which stay within it, and calls of functions that
//! need what a machine must have. A value of [`Avx512`] or [`Avx2`], which only `detect` gives, says that the
//! machine has it. [`compiled_for`] takes both the look at the features and what the functions are compiled
//! for from one list, and lets the compiler see that the functions need nothing else.
#![allow(unsafe_code, reason = "see above")]

mod avx2;
mod avx512;

use std::arch::x86_64::{
    __m256i, __m512i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_set1_epi8,
    _mm256_loadu_si256, _mm512_loadu_si512,
};

use self::avx2::Avx2;
use self::avx512::Avx512;
use super::blocks::{self, Machine, Masks, NumberMasks};
use super::head::Head;
use super::strings::BLOCK;
use super::tokens::{self, Shortcuts};
use super::{Limits, Malformed};
use crate::protocol::envelope::Envelope;

/// The low four bits of each kind of white space are its own, so a table by these gives what a byte must
/// be. Bytes above 0x7f look up a 0. Unused entries hold a byte that has its own.
const WHITE: [u8; 16] = *b"         \t\n  \r  ";

/// The same for what may stand behind a backslash, but `"`, `r` and `u`.
const ESCAPES: [u8; 16] = *b"//b/t/f/////\\/n/";

/// The best that a machine has.
enum Best {
    Avx512(Avx512),
    Avx2(Avx2),
}

impl Best {
    /// `None`: the machine has neither.
    #[inline]
    fn detect() -> Option<Self> {
        Avx512::detect().map(Self::Avx512).or_else(|| Avx2::detect().map(Self::Avx2))
    }
}

/// Scans by the best that the machine has. `None`: it has neither.
#[inline]
pub(super) fn scan<'a>(
    head: Option<&Head>,
    text: &'a str,
    limits: Limits,
) -> Option<Result<Envelope<'a>, Malformed>> {
    Some(match Best::detect()? {
        Best::Avx512(machine) => machine.scan(head, text, limits),
        Best::Avx2(machine) => machine.scan(head, text, limits),
    })
}

/// What each of the two finds that the machine has.
pub(super) fn scan_each_way<'a>(
    head: Option<&Head>,
    text: &'a str,
    limits: Limits,
) -> impl Iterator<Item = Result<Envelope<'a>, Malformed>> {
    let wide = Avx512::detect().map(|machine| machine.scan(head, text, limits));
    let narrow = Avx2::detect().map(|machine| machine.scan(head, text, limits));
    wide.into_iter().chain(narrow)
}

/// A machine with these features: the type, its detection, and the scan compiled for it. Where this is used
/// stand the functions that make its masks, and the imports that all this needs.
macro_rules! compiled_for {
    ($name:ident: $($feature:tt)+) => {
        /// A machine that has all features that are used here.
        #[derive(Clone, Copy)]
        pub(super) struct $name(());

        impl $name {
            /// Each feature is one look at a cached word.
            #[inline]
            pub(super) fn detect() -> Option<Self> {
                ($(std::arch::is_x86_feature_detected!($feature))&&+).then_some(Self(()))
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

        /// Never called: it compiles only where each function needs no more than is in the list.
        #[target_feature($(enable = $feature),+)]
        #[allow(dead_code, reason = "see above")]
        fn need_no_more(block: &[u8; BLOCK]) -> (Masks, NumberMasks, [u64; 3]) {
            (masks(block), number_masks(block), [escapes(block), specials(block), prefix_xor(0)])
        }

        #[target_feature($(enable = $feature),+)]
        fn nested_end(text: &[u8], at: usize, max_levels: u32, machine: $name) -> Option<usize> {
            blocks::end(text, at, max_levels, machine)
        }

        #[allow(clippy::inline_always, reason = "so that what they call becomes a part of the scan")]
        impl Shortcuts for $name {
            #[inline(always)]
            fn specials(self, block: &[u8; BLOCK]) -> u64 {
                // SAFETY: this machine has all features that the functions are compiled for.
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
use compiled_for;

/// A product without carries by all ones is the parity of each bit and all below.
#[target_feature(enable = "pclmulqdq")]
#[inline]
fn prefix_xor(bits: u64) -> u64 {
    let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits.cast_signed()), _mm_set1_epi8(-1));
    _mm_cvtsi128_si64(product).cast_unsigned()
}

#[target_feature(enable = "avx2")]
#[inline]
fn halves(block: &[u8; BLOCK]) -> [__m256i; 2] {
    let start: *const __m256i = block.as_ptr().cast();
    // SAFETY: a block has the 64 bytes that two loads of 32 read; they may stand anywhere.
    unsafe { [_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))] }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn whole(block: &[u8; BLOCK]) -> __m512i {
    // SAFETY: as above, one load of 64.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

/// Eight bytes each as a word, as they lie in memory.
fn words(entries: [u8; 16]) -> [i64; 2] {
    [0, 8].map(|at| i64::from_le_bytes(entries[at..at + 8].try_into().expect("eight")))
}

#[cfg(test)]
mod tests;
