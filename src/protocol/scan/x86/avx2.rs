//! The masks of 64 bytes by AVX2, BMI and PCLMULQDQ, which most machines have.

use std::arch::x86_64::{
    __m256i, _mm256_cmpeq_epi8, _mm256_max_epu8, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256,
    _mm256_set1_epi8, _mm256_setr_epi64x, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_sub_epi8,
};

use super::{
    BLOCK, ESCAPES, Envelope, Head, Limits, Machine, Malformed, Masks, NumberMasks, Shortcuts, WHITE, blocks,
    compiled_for, halves, prefix_xor, tokens, words,
};

// A machine with AVX2 has the others, except under emulators.
compiled_for!(Avx2: "avx2" "bmi1" "bmi2" "lzcnt" "pclmulqdq" "popcnt");

/// Two halves of a block, 32 bytes each.
type Halves = [__m256i; 2];

#[target_feature(enable = "avx2")]
#[inline]
fn masks(block: &[u8; BLOCK]) -> Masks {
    let halves = halves(block);
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
    let halves = halves(block);
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

#[target_feature(enable = "avx2")]
#[inline]
fn escapes(block: &[u8; BLOCK]) -> u64 {
    let table = table(ESCAPES);
    bits(halves(block).map(|half| {
        let most = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, half), half);
        let quotes = _mm256_cmpeq_epi8(half, _mm256_set1_epi8(b'"'.cast_signed()));
        let returns = _mm256_cmpeq_epi8(half, _mm256_set1_epi8(b'r'.cast_signed()));
        _mm256_or_si256(most, _mm256_or_si256(quotes, returns))
    }))
}

#[target_feature(enable = "avx2")]
#[inline]
fn specials(block: &[u8; BLOCK]) -> u64 {
    let halves = halves(block);
    equal(halves, b'"') | equal(halves, b'\\') | bits(halves.map(|half| controls(half)))
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

#[target_feature(enable = "avx2")]
#[inline]
fn white(half: __m256i) -> __m256i {
    let table = table(WHITE);
    _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, half), half)
}

/// The same table for both parts of a half.
#[target_feature(enable = "avx2")]
#[inline]
fn table(entries: [u8; 16]) -> __m256i {
    let [low, high] = words(entries);
    _mm256_setr_epi64x(low, high, low, high)
}
