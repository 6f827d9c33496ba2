//! Whole files, made here: what is right, what is wrong, cut and flipped.

use super::{
    elf,
    notes::tests::{sample, written},
};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x3000;
const BASE: u64 = 0x2000;

/// A file with a segment of code at 0x1000 (file offset 0x200), one of data at 0x3000 (0x300), the
/// notes, `.stapsdt.base`, and a symbol table.
fn file(notes: &[u8], base: u64, symbols: &[(&str, u64)]) -> Vec<u8> {
    let names = b"\0.note.stapsdt\0.stapsdt.base\0.symtab\0.strtab\0.shstrtab\0";
    let name = |text: &str| {
        let at = names
            .windows(text.len() + 1)
            .position(|part| part[..text.len()] == *text.as_bytes() && part[text.len()] == 0);
        at.unwrap() as u32
    };
    let (mut strings, mut table) = (vec![0u8], vec![0u8; 24]);
    for (symbol, address) in symbols {
        table.extend((strings.len() as u32).to_le_bytes());
        // Global, an object, in section 1.
        table.extend([0x11, 0, 1, 0]);
        table.extend(address.to_le_bytes());
        table.extend(8u64.to_le_bytes());
        strings.extend(symbol.as_bytes());
        strings.push(0);
    }
    let mut bytes = vec![0u8; 0x400];
    let mut place = |part: &[u8]| {
        let at = bytes.len() as u64;
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        (at, part.len() as u64)
    };
    let [notes, table, strings, names_at] =
        [place(notes), place(&table), place(&strings), place(names)];
    let headers = bytes.len() as u64;
    // Name, type, address, (offset, size), link, entry size.
    for section in [
        (0, 0u32, 0, (0, 0), 0u32, 0u64),
        (name(".note.stapsdt"), 7, 0, notes, 0, 0),
        (name(".stapsdt.base"), 1, base, (0x300, 1), 0, 0),
        (name(".symtab"), 2, 0, table, 4, 24),
        (name(".strtab"), 3, 0, strings, 0, 0),
        (name(".shstrtab"), 3, 0, names_at, 0, 0),
    ] {
        write_section(&mut bytes, section);
    }
    write_header(&mut bytes, headers);
    bytes
}

type Section = (u32, u32, u64, (u64, u64), u32, u64);

fn write_section(bytes: &mut Vec<u8>, section: Section) {
    let (name, kind, address, (offset, size), link, entry) = section;
    bytes.extend(name.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    for word in [0, address, offset, size] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(link.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(8u64.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
}

/// The file's header and those of its two segments.
fn write_header(bytes: &mut [u8], headers: u64) {
    bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes[16..20].copy_from_slice(&[3, 0, 62, 0]);
    bytes[20] = 1;
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[40..48].copy_from_slice(&headers.to_le_bytes());
    for (at, value) in [(52, 64u16), (54, 56), (56, 2), (58, 64), (60, 6), (62, 5)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    for (i, (flags, offset, address)) in [(5u32, 0x200u64, CODE), (6, 0x300, DATA)]
        .into_iter()
        .enumerate()
    {
        let at = 64 + i * 56;
        bytes[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
        for (word, value) in [offset, address, address, 0x100, 0x200, 0x1000]
            .into_iter()
            .enumerate()
        {
            let at = at + 8 + word * 8;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    }
}

#[test]
fn places_in_the_file_are_found() {
    let bytes = file(&written(&sample("wait__start")), BASE, &[]);
    let binary = elf::read(&bytes[..]).unwrap();
    let [probe] = &binary.probes[..] else {
        panic!("{binary:?}");
    };
    assert_eq!(
        (probe.provider.as_str(), probe.name.as_str()),
        ("shop", "wait__start")
    );
    assert_eq!((probe.location, probe.offset), (0x1010, Some(0x210)));
    let semaphore = probe.semaphore.unwrap();
    assert_eq!((semaphore.address, semaphore.offset), (0x3002, Some(0x302)));
    assert_eq!(probe.arguments.as_ref().unwrap().len(), 2);
    assert_eq!((probe.refused.as_ref(), binary.malformed), (None, 0));
}

/// The linker put the base at 0x2000, and the file is at 0x2080 now: all addresses moved by 0x80.
#[test]
fn a_prelinked_file_has_moved() {
    let bytes = file(&written(&sample("moved")), BASE + 0x80, &[]);
    let probe = &elf::read(&bytes[..]).unwrap().probes[0];
    assert_eq!((probe.location, probe.offset), (0x1090, Some(0x290)));
    assert_eq!(probe.semaphore.unwrap().address, 0x3082);
    // A note that does not know the base is taken as it is.
    let mut note = sample("fixed");
    note.base = 0;
    let bytes = file(&written(&note), BASE + 0x80, &[]);
    assert_eq!(elf::read(&bytes[..]).unwrap().probes[0].location, 0x1010);
}

#[test]
fn what_is_outside_of_code_and_data_is_refused_by_name() {
    let mut notes = Vec::new();
    for (name, location, semaphore) in [
        ("nowhere", 0x9000, 0),
        ("in_data", DATA, 0),
        ("semaphore_in_code", CODE, CODE),
        // Behind what the file holds of the segment: memory that starts as zeros has no place in it.
        ("semaphore_in_zeros", CODE, DATA + 0x180),
        ("wraps", u64::MAX, u64::MAX),
        ("good", CODE + 4, DATA + 4),
    ] {
        let mut note = sample(name);
        (note.location, note.semaphore) = (location, semaphore);
        notes.extend(written(&note));
    }
    let binary = elf::read(&file(&notes, BASE, &[])[..]).unwrap();
    let good: Vec<_> = binary
        .probes
        .iter()
        .filter(|probe| probe.refused.is_none())
        .map(|probe| probe.name.as_str())
        .collect();
    assert_eq!((binary.probes.len(), good), (6, vec!["good"]));
}

#[test]
fn symbols_are_looked_up_and_two_of_a_name_are_none() {
    let mut notes = Vec::new();
    for (name, arguments) in [
        ("known", "-4@4+counter(%rip) 8@$counter"),
        ("unknown", "8@%rax -4@missing(%rip)"),
        ("twice", "-4@same(%rip)"),
        ("strange", "8@%rax 16@%xmm0"),
    ] {
        let mut note = sample(name);
        note.arguments = arguments.into();
        notes.extend(written(&note));
    }
    let symbols = [("counter", DATA + 8), ("same", DATA), ("same", DATA + 16)];
    let binary = elf::read(&file(&notes, BASE, &symbols)[..]).unwrap();
    assert_eq!(binary.symbols.get("counter"), Some(&(DATA + 8)));
    assert!(binary.probes[0].arguments.is_ok());
    let why = |i: usize| binary.probes[i].arguments.as_ref().unwrap_err();
    assert!(
        why(1).contains("argument 1") && why(1).contains("`missing`"),
        "{}",
        why(1)
    );
    assert!(why(2).contains("`same`"), "{}", why(2));
    assert!(why(3).contains("16@%xmm0"), "{}", why(3));
}

/// Each section is within the limit, and both together are not; and so many sections are no program's.
#[test]
fn many_large_sections_are_not_read() {
    const MIB: usize = 1 << 20;
    let empty = file(&[], BASE, &[]);
    let headers = u64::from_le_bytes(empty[40..48].try_into().unwrap()) as usize;
    let mut bytes = empty[..headers].to_vec();
    let at = bytes.len() as u64;
    bytes.resize(bytes.len() + 9 * MIB, 0);
    let table = bytes.len();
    bytes.extend(&empty[headers..]);
    bytes[40..48].copy_from_slice(&(table as u64).to_le_bytes());
    let with = |sections: &[usize]| {
        let mut bytes = bytes.clone();
        for section in sections {
            // Name and type of the notes, and all that is between.
            let header = table + section * 64;
            bytes.copy_within(table + 64..table + 128, header);
            bytes[header + 24..header + 32].copy_from_slice(&at.to_le_bytes());
            bytes[header + 32..header + 40].copy_from_slice(&(9 * MIB as u64).to_le_bytes());
        }
        elf::read(&bytes[..])
    };
    assert!(with(&[1]).is_ok());
    let error = with(&[1, 3]).unwrap_err();
    assert!(error.contains("16 MiB"), "{error}");
    // No number in the file's header: the first section tells it.
    bytes[60..62].fill(0);
    bytes[table + 32..table + 40].copy_from_slice(&65_537u64.to_le_bytes());
    let error = elf::read(&bytes[..]).unwrap_err();
    assert!(error.contains("too many sections"), "{error}");
}

#[test]
fn files_of_another_kind_are_told_so() {
    let good = file(&[], BASE, &[]);
    for (at, byte, why) in [
        (0, b'x', "no ELF file"),
        (4, 1, "64 bits"),
        (5, 2, "little-endian"),
        (18, 40, "machine 40"),
        (40, 0xff, "ELF structure"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let error = elf::read(&bytes[..]).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    assert!(elf::read(&b"\x7fEL"[..]).is_err());
    assert!(elf::read(&good[..]).unwrap().probes.is_empty());
}

/// Cut anywhere and with any one bit another: an answer of a bounded size, never a panic.
#[test]
fn any_file_is_survived() {
    let mut notes = written(&sample("wait__start"));
    let mut note = sample("wait__done");
    note.arguments = "8@counter(%rip)".into();
    notes.extend(written(&note));
    let bytes = file(&notes, BASE, &[("counter", DATA)]);
    for end in 0..bytes.len() {
        if let Ok(binary) = elf::read(&bytes[..end]) {
            assert!(binary.probes.len() <= 2);
        }
    }
    for bit in 0..bytes.len() * 8 {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        if let Ok(binary) = elf::read(&other[..]) {
            assert!(binary.probes.len() <= 2, "bit {bit}");
        }
    }
}
