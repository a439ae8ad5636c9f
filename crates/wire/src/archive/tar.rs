//! As much of tar as a snapshot needs: three small headers to write, and to read whatever common tools make of three files.

use std::io::{self, Read};

/// The unit of a tar file.
pub(super) const BLOCK_SIZE: usize = 512;

/// What ends a tar file.
pub(super) const END: [u8; 2 * BLOCK_SIZE] = [0; 2 * BLOCK_SIZE];

/// The most bytes of an extended header or a long name that are read; ours and the original's have none.
const EXTENSION_SIZE_MAX: u64 = 64 << 10;

/// The largest size that 11 octal digits hold.
const OCTAL_SIZE_MAX: u64 = 0o77_777_777_777;

/// The header of a regular file of root's, as the original writes it.
pub(super) fn header(name: &str, size: u64, mtime: u64) -> [u8; BLOCK_SIZE] {
    let mut block = [0; BLOCK_SIZE];
    put(&mut block, 0, name.as_bytes());
    put(&mut block, 100, b"0000600\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    if size <= OCTAL_SIZE_MAX {
        put(&mut block, 124, format!("{size:011o}\0").as_bytes());
    } else {
        // GNU's form for sizes from 8 GiB on: a set bit, then the number in binary.
        block[124] = 0x80;
        put(&mut block, 128, &size.to_be_bytes());
    }
    put(
        &mut block,
        136,
        format!("{:011o}\0", mtime.min(OCTAL_SIZE_MAX)).as_bytes(),
    );
    block[156] = b'0';
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 329, b"0000000\0");
    put(&mut block, 337, b"0000000\0");
    let sum = checksums(&block).0;
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Zeros that fill the last block of a file.
pub(super) fn padding(size: u64) -> &'static [u8] {
    &END[..padding_len(size)]
}

fn padding_len(size: u64) -> usize {
    let used = usize::try_from(size % BLOCK_SIZE as u64).expect("less than a block");
    if used == 0 { 0 } else { BLOCK_SIZE - used }
}

fn put(block: &mut [u8; BLOCK_SIZE], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The sum of the header's bytes with the checksum itself as blanks; as signed bytes too, since some writers did that.
fn checksums(block: &[u8; BLOCK_SIZE]) -> (u64, i64) {
    let mut sums = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        };
        sums.0 += u64::from(byte);
        sums.1 += i64::from(i8::from_be_bytes([byte]));
    }
    sums
}

/// Walks through the files of a tar stream.
#[derive(Debug)]
pub(super) struct Files<R> {
    input: R,
    /// Bytes of the current file that nobody has read, and the padding after them.
    left: u64,
    padding: usize,
}

/// What a header says of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
}

/// Why there is no next file.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    #[error("archive/tar: invalid tar header")]
    Header,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl<R: Read> Files<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// The next file, whose bytes are then to be read from `self`; `None` at the end of the tar.
    pub(super) fn next_file(&mut self) -> Result<Option<File>, TarError> {
        let mut long = Extensions::default();
        loop {
            self.pass()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            if block == [0; BLOCK_SIZE] {
                return match self.block()? {
                    None => Ok(None),
                    Some(second) if second == [0; BLOCK_SIZE] => Ok(None),
                    Some(_) => Err(TarError::Header),
                };
            }
            let mut file = parse(&block)?;
            let kind = block[156];
            if matches!(kind, b'x' | b'L') {
                let bytes = self.extension(file.size)?;
                if kind == b'x' {
                    long.pax(&bytes)?
                } else {
                    long.name = Some(until_nul(&bytes).to_vec())
                }
                continue;
            }
            if matches!(kind, b'g' | b'K') {
                // Settings for all files and long link targets say nothing about our three.
                self.extension(file.size)?;
                continue;
            }
            if let Some(name) = long.name {
                file.name = name;
            }
            if let Some(size) = long.size {
                file.size = size;
            }
            if matches!(kind, b'1'..=b'6') {
                // Links, devices and directories have no bytes, whatever their header says.
                file.size = 0;
            }
            self.left = file.size;
            self.padding = padding_len(file.size);
            return Ok(Some(file));
        }
    }

    /// What comes after the end of the tar.
    pub(super) fn into_inner(self) -> R {
        self.input
    }

    /// One block, or `None` if the stream ends before it.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK_SIZE]>> {
        let mut block = [0; BLOCK_SIZE];
        let mut filled = 0;
        while filled < BLOCK_SIZE {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(block))
    }

    /// Passes over what is left of the current file.
    fn pass(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        let mut padding = [0; BLOCK_SIZE];
        self.input.read_exact(&mut padding[..self.padding])?;
        self.padding = 0;
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_SIZE_MAX {
            return Err(TarError::Header);
        }
        self.left = size;
        self.padding = padding_len(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Reads the current file; that the stream ends inside of it is an error.
impl<R: Read> Read for Files<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut into[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What an extended header says about the file after it.
#[derive(Debug, Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extensions {
    /// Takes the records of a pax header: a decimal length of the whole record, a blank, `key=value` and a newline.
    fn pax(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        while !records.is_empty() {
            let blank = records
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or(TarError::Header)?;
            let len: usize = decimal(&records[..blank]).ok_or(TarError::Header)?;
            let record = records.get(blank + 1..len).ok_or(TarError::Header)?;
            records = &records[len..];
            let record = record.strip_suffix(b"\n").ok_or(TarError::Header)?;
            if let Some(name) = record.strip_prefix(b"path=") {
                self.name = Some(name.to_vec());
            } else if let Some(size) = record.strip_prefix(b"size=") {
                self.size = Some(decimal(size).ok_or(TarError::Header)?);
            }
        }
        Ok(())
    }
}

fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse(block: &[u8; BLOCK_SIZE]) -> Result<File, TarError> {
    let claimed = octal(&block[148..156]).ok_or(TarError::Header)?;
    let (unsigned, signed) = checksums(block);
    if claimed != unsigned && i64::try_from(claimed) != Ok(signed) {
        return Err(TarError::Header);
    }
    let mut name = until_nul(&block[..100]).to_vec();
    if block[257..263] == *b"ustar\0" {
        let prefix = until_nul(&block[345..500]);
        if !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
    }
    let size = &block[124..136];
    let size = match size[0] {
        0x80 if size[1..4] == [0; 3] => size[4..]
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        0x80..=0xff => return Err(TarError::Header),
        _ => octal(size).ok_or(TarError::Header)?,
    };
    // No stream is that long; and what is added to it must not overflow.
    if i64::try_from(size).is_err() {
        return Err(TarError::Header);
    }
    Ok(File { name, size })
}

/// A number in octal digits with blanks and zeros around it; nothing is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let is_filler = |byte: &u8| matches!(byte, b' ' | b'\0');
    let start = field
        .iter()
        .position(|byte| !is_filler(byte))
        .unwrap_or(field.len());
    let end = field
        .iter()
        .rposition(|byte| !is_filler(byte))
        .map_or(start, |last| last + 1);
    field[start..end]
        .iter()
        .try_fold(0_u64, |sum, byte| match byte {
            b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        })
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}
