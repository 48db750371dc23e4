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

#[cfg(test)]
mod tests {
    use super::*;

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
