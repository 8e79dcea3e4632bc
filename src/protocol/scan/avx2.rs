//! The masks of 64 bytes by AVX2, and the scan by blocks compiled for machines that have it.
//!
//! All `unsafe` of the crate is here: the loads of a block, which stay within it, and calls of
//! functions that need what a machine must have: an [`Avx2`], which has it, comes only from
//! [`Avx2::detect`].
#![allow(unsafe_code, reason = "see above")]

use std::arch::x86_64::{
    __m256i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_set1_epi8, _mm256_cmpeq_epi8,
    _mm256_loadu_si256, _mm256_max_epu8, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256,
    _mm256_set1_epi8, _mm256_setr_epi64x, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_sub_epi8,
};

use super::blocks::{self, Machine, Masks, NumberMasks};
use super::head::Head;
use super::strings::BLOCK;
use super::tokens::{self, Shortcuts};
use super::{Limits, Malformed};
use crate::protocol::envelope::Envelope;

/// A machine that has all features that are used here.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// Each feature is one look at a cached word. A machine with AVX2 has the others, except under
    /// emulators.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        let is_there = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("popcnt");
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

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,pclmulqdq,popcnt")]
fn scan<'a>(
    head: Option<&Head>,
    text: &'a str,
    limits: Limits,
    machine: Avx2,
) -> Result<Envelope<'a>, Malformed> {
    tokens::scan(head, text, limits, machine)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,pclmulqdq,popcnt")]
fn nested_end(text: &[u8], at: usize, max_levels: u32, machine: Avx2) -> Option<usize> {
    blocks::end(text, at, max_levels, machine)
}

#[allow(clippy::inline_always, reason = "so that what they call becomes a part of the scan")]
impl Shortcuts for Avx2 {
    #[inline(always)]
    fn specials(self, block: &[u8; BLOCK]) -> u64 {
        // SAFETY: this machine has AVX2.
        unsafe { specials(block) }
    }

    #[inline(always)]
    fn nested_end(self, text: &[u8], at: usize, max_levels: u32) -> Option<usize> {
        // SAFETY: this machine has all features that the function is compiled for.
        unsafe { nested_end(text, at, max_levels, self) }
    }
}

#[allow(clippy::inline_always, reason = "as above")]
impl Machine for Avx2 {
    #[inline(always)]
    fn masks(self, block: &[u8; BLOCK]) -> Masks {
        // SAFETY: this machine has AVX2.
        unsafe { masks(block) }
    }

    #[inline(always)]
    fn number_masks(self, block: &[u8; BLOCK]) -> NumberMasks {
        // SAFETY: this machine has AVX2.
        unsafe { number_masks(block) }
    }

    #[inline(always)]
    fn escapes(self, block: &[u8; BLOCK]) -> u64 {
        // SAFETY: this machine has AVX2.
        unsafe { escapes(block) }
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: this machine has PCLMULQDQ.
        unsafe { prefix_xor(bits) }
    }
}

/// A block in two halves of 32 bytes.
type Halves = [__m256i; 2];

#[target_feature(enable = "avx2")]
#[inline]
fn masks(block: &[u8; BLOCK]) -> Masks {
    let halves = load(block);
    // `[` and `{` differ in one bit, and so do `]` and `}`.
    let braces = halves.map(|half| _mm256_or_si256(half, _mm256_set1_epi8(0x20)));
    Masks {
        quotes: equal(halves, b'"'),
        backslashes: equal(halves, b'\\'),
        controls: bits(halves.map(|half| controls(half))),
        white: bits(halves.map(|half| white(half))),
        opening: equal(braces, b'{'),
        closing: equal(braces, b'}'),
        // That bit as the highest, of which masks are made.
        braces: bits(halves.map(|half| _mm256_slli_epi16::<2>(half))),
        colons: equal(halves, b':'),
        commas: equal(halves, b','),
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn number_masks(block: &[u8; BLOCK]) -> NumberMasks {
    let halves = load(block);
    NumberMasks {
        digits: bits(halves.map(|half| {
            let value = _mm256_sub_epi8(half, _mm256_set1_epi8(b'0'.cast_signed()));
            _mm256_cmpeq_epi8(_mm256_min_epu8(value, _mm256_set1_epi8(9)), value)
        })),
        zeros: equal(halves, b'0'),
        minuses: equal(halves, b'-'),
        dots: equal(halves, b'.'),
    }
}

/// The low four bits of most escapes are their own; see [`white`].
#[target_feature(enable = "avx2")]
#[inline]
fn escapes(block: &[u8; BLOCK]) -> u64 {
    let table = table(*b"//b/t/f/////\\/n/");
    bits(load(block).map(|half| {
        let most = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, half), half);
        let quotes = _mm256_cmpeq_epi8(half, _mm256_set1_epi8(b'"'.cast_signed()));
        let returns = _mm256_cmpeq_epi8(half, _mm256_set1_epi8(b'r'.cast_signed()));
        _mm256_or_si256(most, _mm256_or_si256(quotes, returns))
    }))
}

#[target_feature(enable = "avx2")]
#[inline]
fn specials(block: &[u8; BLOCK]) -> u64 {
    let halves = load(block);
    equal(halves, b'"') | equal(halves, b'\\') | bits(halves.map(|half| controls(half)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(block: &[u8; BLOCK]) -> Halves {
    let start: *const __m256i = block.as_ptr().cast();
    // SAFETY: a block has the 64 bytes that two loads of 32 read; they may stand anywhere.
    unsafe { [_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))] }
}

/// One bit for each byte, the first lowest: its highest.
#[target_feature(enable = "avx2")]
#[inline]
fn bits(halves: Halves) -> u64 {
    let [first, second] = halves.map(|half| _mm256_movemask_epi8(half).cast_unsigned());
    u64::from(second) << 32 | u64::from(first)
}

#[target_feature(enable = "avx2")]
#[inline]
fn equal(halves: Halves, byte: u8) -> u64 {
    bits(halves.map(|half| _mm256_cmpeq_epi8(half, _mm256_set1_epi8(byte.cast_signed()))))
}

#[target_feature(enable = "avx2")]
#[inline]
fn controls(half: __m256i) -> __m256i {
    let last = _mm256_set1_epi8(0x1f);
    _mm256_cmpeq_epi8(_mm256_max_epu8(half, last), last)
}

/// The low four bits of each kind of white space are its own, so a table by these gives what a byte must
/// be. Bytes above 0x7f look up a 0.
#[target_feature(enable = "avx2")]
#[inline]
fn white(half: __m256i) -> __m256i {
    let table = table(*b"         \t\n  \r  ");
    _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, half), half)
}

/// The same table for both parts of a half. Unused entries hold a byte that has its own.
#[target_feature(enable = "avx2")]
#[inline]
fn table(entries: [u8; 16]) -> __m256i {
    let [low, high] = [0, 8].map(|at| i64::from_le_bytes(entries[at..at + 8].try_into().expect("eight")));
    _mm256_setr_epi64x(low, high, low, high)
}

/// A product without carries by all ones is the parity of each bit and all below.
#[target_feature(enable = "pclmulqdq")]
#[inline]
fn prefix_xor(bits: u64) -> u64 {
    let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits.cast_signed()), _mm_set1_epi8(-1));
    _mm_cvtsi128_si64(product).cast_unsigned()
}

#[cfg(test)]
mod tests;
