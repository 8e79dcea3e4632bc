//! The masks of 64 bytes by AVX-512: one comparison makes each.

use std::arch::x86_64::{
    __m512i, _mm512_cmpeq_epi8_mask, _mm512_cmple_epu8_mask, _mm512_cmplt_epu8_mask, _mm512_or_si512,
    _mm512_set_epi64, _mm512_set1_epi8, _mm512_shuffle_epi8, _mm512_sub_epi8, _mm512_test_epi8_mask,
};

use super::{
    BLOCK, ESCAPES, Envelope, Head, Limits, Machine, Malformed, Masks, NumberMasks, Shortcuts, WHITE, blocks,
    compiled_for, prefix_xor, tokens, whole, words,
};

// VBMI2 is asked for, though not used: machines that have AVX-512 without it clock lower while they work on
// 512 bits, and are better off with AVX2.
compiled_for!(Avx512: "avx512f" "avx512bw" "avx512vbmi2" "avx2" "bmi1" "bmi2" "lzcnt" "pclmulqdq" "popcnt");

#[target_feature(enable = "avx512bw")]
#[inline]
fn masks(block: &[u8; BLOCK]) -> Masks {
    let bytes = whole(block);
    // `[` and `{` differ in one bit, and so do `]` and `}`.
    let bit = _mm512_set1_epi8(0x20);
    let braces = _mm512_or_si512(bytes, bit);
    Masks {
        quotes: equal(bytes, b'"'),
        backslashes: equal(bytes, b'\\'),
        controls: controls(bytes),
        white: in_table(bytes, WHITE),
        opening: equal(braces, b'{'),
        closing: equal(braces, b'}'),
        braces: _mm512_test_epi8_mask(bytes, bit),
        colons: equal(bytes, b':'),
        commas: equal(bytes, b','),
    }
}

#[target_feature(enable = "avx512bw")]
#[inline]
fn number_masks(block: &[u8; BLOCK]) -> NumberMasks {
    let bytes = whole(block);
    let values = _mm512_sub_epi8(bytes, _mm512_set1_epi8(b'0'.cast_signed()));
    NumberMasks {
        digits: _mm512_cmple_epu8_mask(values, _mm512_set1_epi8(9)),
        zeros: equal(bytes, b'0'),
        minuses: equal(bytes, b'-'),
        dots: equal(bytes, b'.'),
    }
}

#[target_feature(enable = "avx512bw")]
#[inline]
fn escapes(block: &[u8; BLOCK]) -> u64 {
    let bytes = whole(block);
    in_table(bytes, ESCAPES) | equal(bytes, b'"') | equal(bytes, b'r')
}

#[target_feature(enable = "avx512bw")]
#[inline]
fn specials(block: &[u8; BLOCK]) -> u64 {
    let bytes = whole(block);
    equal(bytes, b'"') | equal(bytes, b'\\') | controls(bytes)
}

#[target_feature(enable = "avx512bw")]
#[inline]
fn equal(bytes: __m512i, byte: u8) -> u64 {
    _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte.cast_signed()))
}

#[target_feature(enable = "avx512bw")]
#[inline]
fn controls(bytes: __m512i) -> u64 {
    _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(0x20))
}

/// The bytes that stand where a table has them.
#[target_feature(enable = "avx512bw")]
#[inline]
fn in_table(bytes: __m512i, entries: [u8; 16]) -> u64 {
    let [low, high] = words(entries);
    let table = _mm512_set_epi64(high, low, high, low, high, low, high, low);
    _mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(table, bytes), bytes)
}
