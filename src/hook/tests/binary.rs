//! What the binary is made of.

use std::path::Path;

/// Names of the shared libraries that an ELF file asks for (`DT_NEEDED`), 64 bit little endian.
fn needed(elf: &[u8]) -> Vec<String> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let u64_at = |at: usize| {
        usize::try_from(u64::from_le_bytes(elf[at..at + 8].try_into().unwrap())).unwrap()
    };
    let u32_at = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "a 64 bit little endian ELF file");
    let (headers, size, count) = (u64_at(32), u16_at(54), u16_at(56));
    let segments: Vec<_> = (0..count)
        .map(|i| headers + i * size)
        .map(|at| (u32_at(at), u64_at(at + 8), u64_at(at + 16), u64_at(at + 32)))
        .collect();
    let (_, dynamic, _, length) =
        *segments.iter().find(|(kind, ..)| *kind == 2).expect("PT_DYNAMIC");
    let entries: Vec<_> = (0..length / 16)
        .map(|i| (u64_at(dynamic + i * 16), u64_at(dynamic + i * 16 + 8)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let strings = entries.iter().find(|(tag, _)| *tag == 5).expect("DT_STRTAB").1;
    let strings = segments
        .iter()
        .find(|(kind, _, address, size)| {
            *kind == 1 && (*address..address + size).contains(&strings)
        })
        .map(|(_, offset, address, _)| strings - address + offset)
        .expect("a PT_LOAD with the strings");
    entries
        .iter()
        .filter(|(tag, _)| *tag == 1)
        .map(|(_, at)| {
            let bytes = &elf[strings + at..];
            let end = bytes.iter().position(|b| *b == 0).unwrap();
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        })
        .collect()
}

#[test]
fn the_hook_needs_nothing_but_libc() {
    let elf = std::fs::read(Path::new(env!("CARGO_BIN_EXE_rendergate-ffmpeg"))).unwrap();
    let needed = needed(&elf);
    assert!(needed.iter().any(|name| name == "libc.so.6"), "{needed:?}");
    for name in needed {
        assert!(name == "libc.so.6" || name.starts_with("ld-linux"), "{name}");
    }
}
