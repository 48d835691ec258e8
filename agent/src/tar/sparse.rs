//! Where the data of a file with holes goes: GNU's old headers, and the three ways of PAX.

use std::io::{Read, Result};

use super::header::{Header, REAL_SIZE, SPARSE, SPARSE_CONTINUES, malformed, number};
use super::pax::{Records, decimal};
use super::{BLOCK, Sparse};

/// Pieces of one file; more would be a bomb.
const LIMIT: usize = 1 << 18;

fn pair(bytes: &[u8]) -> Result<Option<(u64, u64)>> {
    let size = |field: &[u8]| u64::try_from(number(field)?).map_err(|_| malformed("a sparse map"));
    if bytes[0] == 0 { Ok(None) } else { Ok(Some((size(&bytes[..12])?, size(&bytes[12..24])?))) }
}

/// GNU's: a few pairs in the header, more in blocks behind it.
pub(super) fn of_gnu(header: &Header, reader: &mut impl Read) -> Result<Sparse> {
    let mut sparse = Sparse { real_size: header.size(REAL_SIZE)?, pieces: Vec::new() };
    for bytes in header.0[SPARSE].chunks_exact(24) {
        sparse.pieces.extend(pair(bytes)?);
    }
    let mut continues = header.0[SPARSE_CONTINUES] != 0;
    while continues {
        let mut block = [0; BLOCK];
        reader.read_exact(&mut block)?;
        for bytes in block[..21 * 24].chunks_exact(24) {
            sparse.pieces.extend(pair(bytes)?);
        }
        if sparse.pieces.len() > LIMIT {
            return Err(malformed("a sparse map of too many pieces"));
        }
        continues = block[21 * 24] != 0;
    }
    Ok(sparse)
}

/// PAX's: version 0.0 repeats two keys, 0.1 has them in one, and 1.0 begins the data with the map. Gives the map, and how
/// many bytes of the data it took.
pub(super) fn of_pax(records: &Records, reader: &mut impl Read, size: u64) -> Result<Option<(Sparse, u64)>> {
    let wrong = || malformed("a sparse map");
    if records.text("GNU.sparse.major")? == Some(b"1") {
        let real_size = records.number("GNU.sparse.realsize")?.ok_or_else(wrong)?;
        let mut source = Map { reader, left: size, taken: 0, block: [0; BLOCK], at: BLOCK };
        let count = source.number()?;
        if count > LIMIT as u64 {
            return Err(malformed("a sparse map of too many pieces"));
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((source.number()?, source.number()?));
        }
        return Ok(Some((Sparse { real_size, pieces }, source.taken)));
    }
    let Some(real_size) = records.number("GNU.sparse.size")? else { return Ok(None) };
    let numbers: Vec<u64> = match records.text("GNU.sparse.map")? {
        Some(b"") => Vec::new(),
        Some(map) => map.split(|byte| *byte == b',').map(decimal).collect::<Option<_>>().ok_or_else(wrong)?,
        None => records
            .all()
            .filter(|(key, _)| [b"GNU.sparse.offset".as_slice(), b"GNU.sparse.numbytes"].contains(key))
            .map(|(_, value)| decimal(value))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
    };
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > LIMIT {
        return Err(wrong());
    }
    let pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    Ok(Some((Sparse { real_size, pieces }, 0)))
}

/// Version 1.0's numbers, a line each, in whole blocks.
struct Map<'a, R> {
    reader: &'a mut R,
    left: u64,
    taken: u64,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Map<'_, R> {
    fn number(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(|| malformed("a sparse map"))?;
                self.reader.read_exact(&mut self.block)?;
                self.taken += BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return decimal(&digits).ok_or_else(|| malformed("a sparse map")),
                _ if digits.len() == 20 => return Err(malformed("a sparse map")),
                _ => digits.push(byte),
            }
        }
    }
}

/// Whether the pieces are in order, apart, inside the file, and have all the data.
pub(super) fn check(sparse: &mut Sparse, size: u64) -> Result<()> {
    let mut end = 0_u64;
    let mut data = 0_u64;
    for (offset, length) in &sparse.pieces {
        let next = offset.checked_add(*length).filter(|next| *next <= sparse.real_size && *offset >= end);
        end = next.ok_or_else(|| malformed("a sparse map that overlaps or leads out of its file"))?;
        data += length;
    }
    if data != size {
        return Err(malformed("a sparse map of other data than follows"));
    }
    sparse.pieces.retain(|(_, length)| *length > 0);
    Ok(())
}
