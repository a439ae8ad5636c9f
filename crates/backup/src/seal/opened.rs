//! A snapshot's file, read whether it is encrypted or not.

use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use age::armor::ArmoredReader;
use age::stream::StreamReader;
use age::{DecryptError, Decryptor, Identity};

use super::Identities;

/// How the first line of an encrypted file begins.
pub(super) const MAGIC: &[u8] = b"age-encryption.org/";
/// How it begins where the file was made to be text.
pub(super) const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// The whole first line, with the one version there is.
const FIRST_LINE: &[u8] = b"age-encryption.org/v1\n";

/// So much of the start of a magic text, and no more of the file, tells that it was cut.
const MAGIC_PART_MIN: usize = 4;
/// The longest header that is read: some five hundred recipients.
const HEADER_SIZE_MAX: usize = 64 << 10;
/// The longest line of a file that was made to be text; such lines have 64 characters.
const LINE_SIZE_MAX: usize = 128;

/// Why an encrypted snapshot can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Nobody said with what to open it.
    #[error("this snapshot is encrypted; give -identity FILE")]
    NoIdentity,
    /// It was encrypted to others.
    #[error("none of the identities opens this snapshot; it was encrypted to other recipients")]
    WrongIdentity,
    /// It was encrypted by hand, with a passphrase.
    #[error(
        "this snapshot is encrypted with a passphrase, not to a recipient; decrypt it first, with age -d"
    )]
    Passphrase,
    /// It is of a version of the format that we don't know.
    #[error("this snapshot is encrypted in a later version of the age format")]
    Version,
    /// Its header makes no sense, or isn't as it was written.
    #[error("the header of the encrypted snapshot is damaged")]
    Header,
    /// It ends too early.
    #[error("the encrypted snapshot is cut off")]
    Cut,
    /// It isn't as it was written.
    #[error("the encrypted snapshot is damaged")]
    Damaged,
    /// It can't be read from where it is.
    #[error("{0}")]
    Source(io::Error),
}

impl From<io::Error> for SealError {
    fn from(why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            io::ErrorKind::InvalidData => Self::Damaged,
            _ => Self::Source(why),
        }
    }
}

impl From<SealError> for io::Error {
    fn from(why: SealError) -> Self {
        match why {
            SealError::Source(why) => why,
            _ => Self::new(io::ErrorKind::InvalidData, why),
        }
    }
}

/// Reads a snapshot's file: what is encrypted is decrypted on the way, what isn't passes as it is.
///
/// Nothing is given out that isn't as it was written. That it is all there is known at the end, which whoever takes an archive apart reads up to.
/// It holds one chunk of 64 KiB and its buffers, however long the file is.
pub struct Opened<R: Read> {
    body: Body<R>,
    /// Once it failed it goes on failing, so that nobody reads on behind what was damaged.
    has_failed: bool,
}

enum Body<R: Read> {
    Plain(Peeked<R>),
    Sealed(Box<Decrypted<R>>),
}

/// The file, with the start of it that was looked at.
type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

impl<R: Read> Opened<R> {
    /// Reads the start of a file. `identities` are looked at only if it is encrypted.
    ///
    /// # Errors
    /// [`SealError`] if it is encrypted and none of them opens it, or if its start can't be read.
    pub fn new(input: R, identities: Option<&Identities>) -> Result<Self, SealError> {
        let (start, input) = peek(input).map_err(SealError::Source)?;
        let is_text = start.starts_with(ARMOR);
        let body = if is_text || start.starts_with(MAGIC) {
            let whole = Cursor::new(start).chain(input);
            Body::Sealed(open(Unwrapped::new(whole, is_text), identities)?)
        } else if is_cut(&start, MAGIC) || is_cut(&start, ARMOR) {
            return Err(SealError::Cut);
        } else {
            Body::Plain(Cursor::new(start).chain(input))
        };
        Ok(Self {
            body,
            has_failed: false,
        })
    }

    /// Whether the file is encrypted.
    pub fn is_sealed(&self) -> bool {
        matches!(self.body, Body::Sealed(_))
    }
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let sealed = match &mut self.body {
            Body::Plain(plain) => return plain.read(into),
            Body::Sealed(sealed) => sealed,
        };
        if self.has_failed {
            return Err(SealError::Damaged.into());
        }
        sealed.read(into).map_err(|why| {
            self.has_failed = true;
            SealError::from(why).into()
        })
    }
}

impl<R: Read> fmt::Debug for Opened<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("is_sealed", &self.is_sealed())
            .field("has_failed", &self.has_failed)
            .finish_non_exhaustive()
    }
}

/// As much as is needed to tell what a file is, if there is so much.
fn peek<R: Read>(mut input: R) -> io::Result<(Vec<u8>, R)> {
    let mut start = Vec::new();
    input
        .by_ref()
        .take(ARMOR.len() as u64)
        .read_to_end(&mut start)?;
    Ok((start, input))
}

fn is_cut(start: &[u8], magic: &[u8]) -> bool {
    start.len() >= MAGIC_PART_MIN && magic.starts_with(start)
}

/// What follows the header, behind the header itself, which the library wants to see too.
type Decrypted<R> = StreamReader<Chain<Cursor<Vec<u8>>, BufReader<Unwrapped<R>>>>;

/// Reads the header, and finds the identity that opens the rest.
fn open<R: Read>(
    input: Unwrapped<R>,
    identities: Option<&Identities>,
) -> Result<Box<Decrypted<R>>, SealError> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let header = header(&mut input)?;
    let decryptor = Decryptor::new_buffered(Cursor::new(header).chain(input)).map_err(refused)?;
    if decryptor.is_scrypt() {
        return Err(SealError::Passphrase);
    }
    let identities = identities.ok_or(SealError::NoIdentity)?;
    decryptor
        .decrypt(identities.0.iter().map(|it| it as &dyn Identity))
        .map(Box::new)
        .map_err(refused)
}

fn refused(why: DecryptError) -> SealError {
    match why {
        DecryptError::NoMatchingKeys => SealError::WrongIdentity,
        DecryptError::UnknownFormat => SealError::Version,
        DecryptError::Io(why) => why.into(),
        _ => SealError::Header,
    }
}

/// The header up to the line with its own hash, in bounds that the library doesn't set.
fn header(input: &mut impl BufRead) -> Result<Vec<u8>, SealError> {
    let mut header = Vec::new();
    loop {
        let start = header.len();
        let room = HEADER_SIZE_MAX - start;
        input
            .by_ref()
            .take(room as u64)
            .read_until(b'\n', &mut header)?;
        let line = &header[start..];
        if !line.ends_with(b"\n") {
            return Err(if header.len() < HEADER_SIZE_MAX {
                SealError::Cut
            } else {
                SealError::Header
            });
        }
        if start == 0 && line != FIRST_LINE {
            return Err(SealError::Version);
        }
        if line.starts_with(b"---") {
            return Ok(header);
        }
    }
}

/// An encrypted file as bytes, whether it was made to be text or not.
enum Unwrapped<R: Read> {
    Bytes(Peeked<R>),
    Text(Box<ArmoredReader<BufReader<Lines<Peeked<R>>>>>),
}

impl<R: Read> Unwrapped<R> {
    fn new(input: Peeked<R>, is_text: bool) -> Self {
        if is_text {
            let lines = Lines { input, length: 0 };
            Self::Text(Box::new(ArmoredReader::new(lines)))
        } else {
            Self::Bytes(input)
        }
    }
}

impl<R: Read> Read for Unwrapped<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(into),
            Self::Text(text) => text.read(into),
        }
    }
}

/// Refuses text with long lines, each of which the library would hold in memory as a whole.
struct Lines<R> {
    input: R,
    /// Of the line that has not ended yet.
    length: usize,
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(into)?;
        for line in into[..read].split_inclusive(|byte| *byte == b'\n') {
            self.length += line.len();
            if self.length > LINE_SIZE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if line.ends_with(b"\n") {
                self.length = 0;
            }
        }
        Ok(read)
    }
}
