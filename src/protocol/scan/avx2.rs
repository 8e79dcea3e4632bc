//! The masks of 64 bytes by AVX2, and the scan by blocks compiled for machines that have it.
//!
//! All `unsafe` of the crate is here: the loads of a block, which stay within it, and calls of
//! functions that need what a machine must have: an [`Avx2`], which has it, comes only from
//! [`Avx2::detect`].
#![allow(unsafe_code, reason = "see above")]

use std::arch::x86_64::{
    __m256i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_set1_epi8, _mm256_cmpeq_epi8,
    _mm256_loadu_si256, _mm256_max_epu8, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256,
    _mm256_set1_epi8, _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_sub_epi8,
};

use super::Limits;
use super::blocks::{self, BLOCK, Machine, Masks};
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

    /// `None`: the message is malformed, or beyond what [`blocks`] looks at.
    #[inline]
    pub(super) fn scan(self, text: &str, limits: Limits) -> Option<Envelope<'_>> {
        // SAFETY: this machine has all features that the function is compiled for.
        unsafe { scan(text, limits, self) }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,pclmulqdq,popcnt")]
fn scan(text: &str, limits: Limits, machine: Avx2) -> Option<Envelope<'_>> {
    blocks::scan(text, limits, machine)
}

#[allow(clippy::inline_always, reason = "so that what they call becomes a part of `scan`")]
impl Machine for Avx2 {
    #[inline(always)]
    fn masks(self, block: &[u8; BLOCK]) -> Masks {
        // SAFETY: this machine has AVX2.
        unsafe { masks(block) }
    }

    #[inline(always)]
    fn digits(self, block: &[u8; BLOCK]) -> u64 {
        // SAFETY: this machine has AVX2.
        unsafe { digits(block) }
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: this machine has PCLMULQDQ.
        unsafe { prefix_xor(bits) }
    }
}

/// A block in two halves of 32 bytes.
#[derive(Clone, Copy)]
struct Halves(__m256i, __m256i);

#[target_feature(enable = "avx2")]
#[inline]
fn masks(block: &[u8; BLOCK]) -> Masks {
    let halves = load(block);
    Masks {
        quotes: equal(halves, b'"'),
        backslashes: equal(halves, b'\\'),
        controls: bits(halves, |half| {
            let last = _mm256_set1_epi8(0x1f);
            _mm256_cmpeq_epi8(_mm256_max_epu8(half, last), last)
        }),
        spaces: equal(halves, b' '),
        brackets: bits(halves, |half| brackets(half)),
        colons: equal(halves, b':'),
        commas: equal(halves, b','),
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn digits(block: &[u8; BLOCK]) -> u64 {
    bits(load(block), |half| {
        let value = _mm256_sub_epi8(half, _mm256_set1_epi8(b'0'.cast_signed()));
        _mm256_cmpeq_epi8(_mm256_min_epu8(value, _mm256_set1_epi8(9)), value)
    })
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(block: &[u8; BLOCK]) -> Halves {
    let start: *const __m256i = block.as_ptr().cast();
    // SAFETY: a block has the 64 bytes that two loads of 32 read; they may stand anywhere.
    unsafe { Halves(_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) }
}

/// One bit for each byte whose place in the answer is all ones, the first lowest.
#[target_feature(enable = "avx2")]
#[inline]
fn bits(halves: Halves, matching: impl Fn(__m256i) -> __m256i) -> u64 {
    let Halves(first, second) = halves;
    let first = _mm256_movemask_epi8(matching(first)).cast_unsigned();
    let second = _mm256_movemask_epi8(matching(second)).cast_unsigned();
    u64::from(second) << 32 | u64::from(first)
}

#[target_feature(enable = "avx2")]
#[inline]
fn equal(halves: Halves, byte: u8) -> u64 {
    bits(halves, |half| _mm256_cmpeq_epi8(half, _mm256_set1_epi8(byte.cast_signed())))
}

/// `[` and `{` differ in one bit, and so do `]` and `}`. Their low four bits are their own, so a
/// table by these gives what a byte must be with that bit set.
#[target_feature(enable = "avx2")]
#[inline]
fn brackets(half: __m256i) -> __m256i {
    const NONE: i8 = 0;
    let (open, close) = (b'{'.cast_signed(), b'}'.cast_signed());
    let table = _mm256_setr_epi8(
        NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, open, NONE, close, NONE,
        NONE, //
        NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, open, NONE, close, NONE, NONE,
    );
    let with_bit = _mm256_or_si256(half, _mm256_set1_epi8(0x20));
    _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, half), with_bit)
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
