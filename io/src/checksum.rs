//! Checksums: CRC-64/NVME, which `NVMe` drives and S3 use. Parts are summed as they pass, in any order.

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;

/// CRC-64/NVME of some bytes.
pub fn crc64_nvme(bytes: &[u8]) -> u64 {
    checksum(ALGORITHM, bytes)
}

/// The sum of a part of what is summed.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Where it begins in the whole.
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    pub(crate) sum: u64,
}

/// The sum of the whole, of parts that cover it.
pub(crate) fn whole(mut parts: Vec<Part>) -> u64 {
    parts.sort_unstable_by_key(|part| part.at);
    let empty = crc64_nvme(&[]);
    parts.iter().fold(empty, |sum, part| {
        checksum_combine(ALGORITHM, sum, part.sum, part.bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_any_order_come_to_the_sum_of_the_whole() {
        // The check value of the catalogue of CRCs, and of the `NVMe` specification.
        assert_eq!(crc64_nvme(b"123456789"), 0xae8b_1486_0a79_9888);
        let bytes: Vec<u8> = (0..10_000_u32)
            .map(|n| ((n * n) >> 3).to_le_bytes()[0])
            .collect();
        let part = |from: usize, to: usize| Part {
            at: from as u64,
            bytes: (to - from) as u64,
            sum: crc64_nvme(&bytes[from..to]),
        };
        let parts = vec![
            part(4096, 9999),
            part(9999, 10_000),
            part(0, 1),
            part(1, 4096),
        ];
        assert_eq!(whole(parts), crc64_nvme(&bytes));
        assert_eq!(whole(Vec::new()), crc64_nvme(&[]));
    }
}
