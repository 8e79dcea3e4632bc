//! The masks and the parity, against what they are by definition.

use proptest::prelude::*;

use super::super::blocks::tests::ByDefinition;
use super::super::random::config;
use super::*;

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn masks_say_which_byte_is_what(bytes in prop::array::uniform32(any::<[u8; 2]>()), bits in any::<u64>()) {
        let Some(machine) = Avx2::detect() else { return Ok(()) };
        let block: &[u8; BLOCK] = bytes.as_flattened().try_into().unwrap();
        prop_assert_eq!(machine.masks(block), ByDefinition.masks(block));
        prop_assert_eq!(machine.number_masks(block), ByDefinition.number_masks(block));
        prop_assert_eq!(machine.escapes(block), ByDefinition.escapes(block));
        prop_assert_eq!(machine.specials(block), ByDefinition.specials(block));
        prop_assert_eq!(machine.prefix_xor(bits), ByDefinition.prefix_xor(bits));
    }
}

#[test]
fn every_byte_is_told_apart_in_every_place() {
    let Some(machine) = Avx2::detect() else { return };
    for byte in 0..=u8::MAX {
        for place in 0..BLOCK {
            let mut block = [b'x'; BLOCK];
            block[place] = byte;
            assert_eq!(machine.masks(&block), ByDefinition.masks(&block), "{byte:#04x} at {place}");
            assert_eq!(
                machine.number_masks(&block),
                ByDefinition.number_masks(&block),
                "{byte:#04x} at {place}"
            );
            assert_eq!(machine.escapes(&block), ByDefinition.escapes(&block), "{byte:#04x} at {place}");
            assert_eq!(machine.specials(&block), ByDefinition.specials(&block), "{byte:#04x} at {place}");
        }
    }
}
