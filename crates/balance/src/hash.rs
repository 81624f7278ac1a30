//! A hash that is the same in every process and version.

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Hashes a name, a header value or an address for the hash policies.
///
/// FNV-1a over the bytes (draft-eastlake-fnv), then the 64-bit finalizer of MurmurHash3, because with FNV alone the
/// high bits of short inputs are nearly the same. The result never changes: it is the same on two servers and in two
/// releases. It does not resist deliberate collisions, which only direct the attacker's own requests to one member.
///
/// # Complexity
/// One multiplication per byte; meant for names, not for bodies.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    mix(fnv1a(bytes))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FNV_OFFSET, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    })
}

/// The 64-bit finalizer of MurmurHash3: a bijection in which each input bit changes about half of the output bits.
pub(crate) const fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_agrees_with_its_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn mix_agrees_with_murmur3() {
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0xb456_bcfc_34c2_cb2c);
        assert_eq!(mix(u64::MAX), 0x64b5_720b_4b82_5f21);
    }

    #[test]
    fn the_hash_of_a_name_is_pinned() {
        assert_eq!(hash_bytes(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(hash_bytes(b"office-1"), 0xfef8_88fe_278f_61f5);
        assert_ne!(hash_bytes(b"office-1"), hash_bytes(b"office-2"));
    }
}
