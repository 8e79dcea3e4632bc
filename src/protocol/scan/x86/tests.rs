//! The masks and the parity, against what they are by definition.

use proptest::prelude::*;

use super::super::blocks::tests::ByDefinition;
use super::super::random::config;
use super::*;

/// Compares where the machine is one of these.
fn compare(block: &[u8; BLOCK], bits: u64) {
    fn with<M: Machine + Shortcuts>(machine: Option<M>, block: &[u8; BLOCK], bits: u64) {
        let Some(machine) = machine else { return };
        let name = std::any::type_name::<M>();
        assert_eq!(machine.masks(block), ByDefinition.masks(block), "{name}: {block:?}");
        assert_eq!(machine.number_masks(block), ByDefinition.number_masks(block), "{name}: {block:?}");
        assert_eq!(machine.escapes(block), ByDefinition.escapes(block), "{name}: {block:?}");
        assert_eq!(machine.specials(block), ByDefinition.specials(block), "{name}: {block:?}");
        assert_eq!(machine.prefix_xor(bits), ByDefinition.prefix_xor(bits), "{name}: {bits:#x}");
    }
    with(Avx512::detect(), block, bits);
    with(Avx2::detect(), block, bits);
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn masks_say_which_byte_is_what(bytes in prop::array::uniform32(any::<[u8; 2]>()), bits in any::<u64>()) {
        compare(bytes.as_flattened().try_into().unwrap(), bits);
    }
}

#[test]
fn each_way_that_the_machine_has_is_compared() {
    let [wide, narrow] = [Avx512::detect().is_some(), Avx2::detect().is_some()];
    println!("compared here: AVX-512 {wide}, AVX2 {narrow}");
    let ways = scan_each_way(None, "{}", Limits { max_depth: 1 }).count();
    assert_eq!(ways, usize::from(wide) + usize::from(narrow));
}

/// On a machine that has but one of the two this shows nothing of the order.
#[test]
fn the_wider_is_taken_where_the_machine_has_it() {
    let [wide, narrow] = [Avx512::detect().is_some(), Avx2::detect().is_some()];
    assert_eq!(matches!(Best::detect(), Some(Best::Avx512(_))), wide);
    assert_eq!(matches!(Best::detect(), Some(Best::Avx2(_))), narrow && !wide);
}

#[test]
fn every_byte_is_told_apart_in_every_place() {
    for byte in 0..=u8::MAX {
        for place in 0..BLOCK {
            let mut block = [b'x'; BLOCK];
            block[place] = byte;
            compare(&block, 0);
        }
    }
}
