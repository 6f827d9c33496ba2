//! Many small structs in few system calls: those that lie close together are read as one piece.

use std::ops::Range;

use crate::inspect::memory::Memory;

/// Bytes between two structs that are read along rather than begin a new piece: copying them costs less
/// than looking another page up.
const GAP: u64 = 2048;
/// Largest piece: one that cannot be read is read again, struct by struct.
const MAX_PIECE: u64 = 256 << 10;
/// Bytes that [`each`] reads at once.
const MAX_ROOM: usize = 1 << 20;
/// Pieces that [`each`] reads at once: what fits in one system call.
const MAX_PIECES: usize = 1024;

/// A struct's address and size.
pub(super) type Wanted = (u64, u32);

/// Structs that were read. Its room is used again.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// Where each struct lies, in the order asked for; none: it could not be read.
    places: Vec<Option<Range<usize>>>,
}

impl Gathered {
    /// Reads these structs. As many as are asked for are in memory at once: ask for few, or see [`each`].
    pub(super) fn read(&mut self, memory: &dyn Memory, wanted: &[Wanted]) {
        let order = order(wanted);
        let pieces = pieces(wanted, &order);
        self.places.clear();
        self.places.resize(wanted.len(), None);
        let (bytes, places) = (&mut self.bytes, &mut self.places);
        read_pieces(memory, wanted, &order, &pieces, bytes, |i, place, _| {
            places[i] = Some(place);
        });
    }

    /// The struct that was asked for at `index`.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let place = self.places.get(index)?.clone()?;
        self.bytes.get(place)
    }
}

/// Reads structs of `size` bytes at any number of addresses, and hands over each that could be read, with its
/// number, in no order.
pub(super) fn each(
    memory: &dyn Memory,
    addrs: &[u64],
    size: usize,
    mut take: impl FnMut(usize, &[u8]),
) {
    let wanted: Vec<Wanted> = addrs.iter().map(|addr| (*addr, size as u32)).collect();
    let order = order(&wanted);
    let pieces = pieces(&wanted, &order);
    let mut bytes = Vec::new();
    let mut from = 0;
    while from < pieces.len() {
        let mut room = 0;
        let fits = |piece: &&Piece| {
            room += piece.length as usize;
            room <= MAX_ROOM
        };
        let some = pieces[from..].iter().take(MAX_PIECES).take_while(fits);
        let to = from + some.count().max(1);
        read_pieces(
            memory,
            &wanted,
            &order,
            &pieces[from..to],
            &mut bytes,
            |i, place, bytes| {
                take(i, &bytes[place]);
            },
        );
        from = to;
    }
}

/// Addresses that are read together, and the ranks of what is there.
struct Piece {
    addr: u64,
    length: u64,
    members: Range<usize>,
}

/// Numbers of the structs, by address.
fn order(wanted: &[Wanted]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..wanted.len() as u32).collect();
    if !wanted.is_sorted() {
        order.sort_unstable_by_key(|i| wanted[*i as usize].0);
    }
    order
}

fn pieces(wanted: &[Wanted], order: &[u32]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (rank, i) in order.iter().enumerate() {
        let (addr, size) = wanted[*i as usize];
        let size = u64::from(size);
        // No struct reaches around the end of memory: that one is read alone, in vain.
        if let Some(end) = addr.checked_add(size)
            && let Some(last) = pieces.last_mut()
            && let Some(last_end) = last.addr.checked_add(last.length)
            && addr <= last_end.saturating_add(GAP)
            && end - last.addr <= MAX_PIECE
        {
            last.length = last.length.max(end - last.addr);
            last.members.end = rank + 1;
        } else {
            pieces.push(Piece {
                addr,
                length: size,
                members: rank..rank + 1,
            });
        }
    }
    pieces
}

fn read_pieces(
    memory: &dyn Memory,
    wanted: &[Wanted],
    order: &[u32],
    pieces: &[Piece],
    bytes: &mut Vec<u8>,
    mut take: impl FnMut(usize, Range<usize>, &[u8]),
) {
    let total: usize = pieces.iter().map(|piece| piece.length as usize).sum();
    if bytes.len() < total {
        bytes.resize(total, 0);
    }
    let mut parts = Vec::with_capacity(pieces.len());
    let mut rest = &mut bytes[..total];
    for piece in pieces {
        let (part, behind) = rest.split_at_mut(piece.length as usize);
        parts.push((piece.addr, part));
        rest = behind;
    }
    let done = memory.read_many(&mut parts);
    let mut base = 0;
    for (piece, done) in pieces.iter().zip(done) {
        for i in &order[piece.members.clone()] {
            let (addr, size) = wanted[*i as usize];
            let at = base + (addr - piece.addr) as usize;
            let place = at..at + size as usize;
            if done || memory.read(addr, &mut bytes[place.clone()]) {
                take(*i as usize, place, bytes);
            }
        }
        base += piece.length as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from 0x1000 to 0x9000, each byte the low one of its address.
    struct Ramp;

    impl Memory for Ramp {
        fn read(&self, addr: u64, into: &mut [u8]) -> bool {
            let end = addr.checked_add(into.len() as u64);
            if addr < 0x1000 || end.is_none_or(|end| end > 0x9000) {
                return false;
            }
            for (i, byte) in into.iter_mut().enumerate() {
                *byte = (addr + i as u64) as u8;
            }
            true
        }
    }

    const ADDRS: [u64; 8] = [0x8ff8, 0x1003, 0x1001, 0x1001, 0x8ff9, 0, u64::MAX, 0x4000];
    const FIRST: [Option<u8>; 8] = [
        Some(0xf8),
        Some(3),
        Some(1),
        Some(1),
        None,
        None,
        None,
        Some(0),
    ];

    #[test]
    fn each_gets_its_own_bytes_in_any_order() {
        let mut gathered = Gathered::default();
        for _ in 0..2 {
            gathered.read(&Ramp, &ADDRS.map(|addr| (addr, 8)));
            let first = |i| gathered.get(i).map(|bytes: &[u8]| bytes[0]);
            assert_eq!((0..8).map(first).collect::<Vec<_>>(), FIRST);
            assert_eq!(first(8), None);
        }
        let mut found = [None; 8];
        each(&Ramp, &ADDRS, 8, |i, bytes| {
            assert_eq!(bytes.len(), 8);
            found[i] = Some(bytes[0]);
        });
        assert_eq!(found, FIRST);
    }

    #[test]
    fn structs_of_different_sizes_overlap() {
        let mut gathered = Gathered::default();
        gathered.read(
            &Ramp,
            &[(0x1000, 256), (0x1010, 4), (0x1f00, 16), (0x8fff, 2)],
        );
        let length = |i| gathered.get(i).map(<[u8]>::len);
        assert_eq!(
            [0, 1, 2, 3].map(length),
            [Some(256), Some(4), Some(16), None]
        );
        assert_eq!(gathered.get(1), Some(&[0x10, 0x11, 0x12, 0x13][..]));
    }
}
