//! Little-endian numbers in bytes that may end too early; and a hash for addresses.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// The word at an offset.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

/// Half a word at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

/// The same, signed.
pub(super) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

/// A map by addresses. They come from a target that could choose them to collide, so the hash multiplies by
/// a number that differs from run to run.
pub(super) type AddrMap<V> = HashMap<u64, V, BuildHasherDefault<AddrHasher>>;

/// A set of addresses.
pub(super) type AddrSet = std::collections::HashSet<u64, BuildHasherDefault<AddrHasher>>;

/// See [`AddrMap`].
#[derive(Clone, Copy)]
pub(super) struct AddrHasher(u64);

impl Default for AddrHasher {
    fn default() -> Self {
        AddrHasher(seed())
    }
}

fn seed() -> u64 {
    use std::{hash::BuildHasher as _, sync::OnceLock};
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| std::collections::hash_map::RandomState::new().hash_one(0u64) | 1)
}

impl Hasher for AddrHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // The folded product of 128 bits: both ends of the result depend on all of the word.
        let product = u128::from(word ^ self.0) * u128::from(seed());
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_with_the_bytes() {
        let bytes = [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(u64_at(&bytes, 0), Some(0xffff_ffff_0000_0001));
        assert_eq!(i32_at(&bytes, 4), Some(-1));
        assert_eq!(u32_at(&bytes, 5), None);
        assert_eq!(u64_at(&bytes, usize::MAX), None);
    }

    #[test]
    fn addresses_spread() {
        let mut map: AddrMap<usize> = AddrMap::default();
        for i in 0..100_000u64 {
            map.insert(0xc000_0000_0000 + i * 480, i as usize);
        }
        assert_eq!(map[&(0xc000_0000_0000 + 480 * 77)], 77);
    }
}
