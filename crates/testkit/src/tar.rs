//! Layers: tar archives of a few plain files, as small as the format allows.

use std::io::{self, Read, Write};

const BLOCK: u64 = 512;

/// Writes one file of `length` bytes read from `contents`, with mode 0644 and a fixed date.
pub fn write_file(
    archive: &mut dyn Write,
    name: &str,
    contents: &mut dyn Read,
    length: u64,
    mode: u32,
) -> io::Result<()> {
    archive.write_all(&header(name, length, mode)?)?;
    let copied = io::copy(&mut contents.take(length), archive)?;
    if copied != length {
        return Err(io::Error::other(format!("{name}: {copied} bytes where {length} were promised")));
    }
    let padding = (BLOCK - length % BLOCK) % BLOCK;
    io::copy(&mut io::repeat(0).take(padding), archive)?;
    Ok(())
}

/// Writes the end of the archive.
pub fn finish(archive: &mut dyn Write) -> io::Result<()> {
    archive.write_all(&[0; 2 * BLOCK as usize])
}

/// An archive of these files.
pub fn archive(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, contents) in files {
        write_file(&mut bytes, name, &mut &contents[..], contents.len() as u64, 0o644)?;
    }
    finish(&mut bytes)?;
    Ok(bytes)
}

/// A ustar header (POSIX 1003.1, pax, "ustar Interchange Format").
fn header(name: &str, length: u64, mode: u32) -> io::Result<[u8; BLOCK as usize]> {
    if name.len() > 100 {
        return Err(io::Error::other(format!("{name}: a name has at most 100 bytes here")));
    }
    let mut header = [0; BLOCK as usize];
    let mut put = |offset: usize, text: &str| header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{length:011o}"));
    put(136, "14000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

/// These bytes as a gzip stream (RFC 1952) of stored blocks: not smaller, but of the type that clients leave as it is.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = bytes.chunks(0xffff).peekable();
    if blocks.peek().is_none() {
        stream.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
    stream.extend_from_slice(&crc32(bytes).to_le_bytes());
    stream.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    stream
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (index, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(index as u32, |value, _| (value >> 1) ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 });
    }
    !bytes.iter().fold(!0, |sum, byte| (sum >> 8) ^ table[usize::from(*byte) ^ (sum as usize & 0xff)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_has_the_checksum_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let stream = gzip(&[1; 70_000]);
        assert_eq!(stream.len(), 10 + 2 * 5 + 70_000 + 8);
        assert_eq!(gzip(b"").len(), 10 + 5 + 8);
    }

    #[test]
    fn archives_have_whole_blocks_and_a_right_checksum() {
        let bytes = archive(&[("a", b"hello"), ("b", &[7; 512])]).unwrap();
        assert_eq!(bytes.len(), 512 * (2 + 2 + 2));
        assert_eq!(&bytes[512..517], b"hello");
        let mut copy = bytes[..512].to_vec();
        let stored = u32::from_str_radix(std::str::from_utf8(&copy[148..154]).unwrap(), 8).unwrap();
        copy[148..156].fill(b' ');
        assert_eq!(copy.iter().map(|byte| u32::from(*byte)).sum::<u32>(), stored);
    }
}
