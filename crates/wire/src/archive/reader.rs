//! Taking an archive apart, and believing it only when all of it agrees.

use std::io::{self, BufReader, Read, Write};

use super::gzip::{self, GzipError};
use super::sums::{self, Hasher, SumsError};
use super::tar::{Files, TarError};
use super::{META, META_SIZE_MAX, Meta, STATE, SUMS, SUMS_SIZE_MAX};

/// How much is read at a time.
const READ_SIZE: usize = 64 << 10;

/// The most zeros after the end of the tar; common tools fill up to 10 kB.
const FILLER_SIZE_MAX: u64 = 1 << 20;

/// What an archive holds, beside the state that [`unpack`] wrote elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The metadata.
    pub meta: Meta,
    /// How long the state really is; [`Meta::check_restorable`] wants to know.
    pub state_size: u64,
}

/// What is wrong with an archive. Where the original refuses too, the text is the original's.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The gzip layer is not sound.
    #[error("failed to decompress snapshot: {0}")]
    Gzip(GzipError),
    /// The archive could not be read to its end.
    #[error("failed to decompress snapshot: {}", text(.0))]
    Source(io::Error),
    /// The tar layer is not sound, or ends too early.
    #[error("failed to read snapshot file: failed reading snapshot: {0}")]
    Tar(String),
    /// More than zeros after the end of the tar.
    #[error("failed to read snapshot file: unexpected data after the end of the tar")]
    Junk,
    /// A file that doesn't belong in a snapshot.
    #[error("failed to read snapshot file: unexpected file {0:?} in snapshot")]
    Stranger(String),
    /// A file is there twice.
    #[error("failed to read snapshot file: file {0:?} is there twice")]
    Twice(&'static str),
    /// A small file is not small.
    #[error("failed to read snapshot file: file {0:?} is longer than {1} bytes")]
    TooLong(&'static str, u64),
    /// The metadata makes no sense.
    #[error("failed to read snapshot file: failed to decode snapshot metadata: {0}")]
    Meta(String),
    /// The state ends too early, or could not be written to where it should go.
    #[error("failed to read snapshot file: failed to read or write snapshot data: {0}")]
    State(String),
    /// The hashes don't agree.
    #[error("failed to read snapshot file: failed checking integrity of snapshot: {0}")]
    Sums(#[from] SumsError),
}

/// Takes an archive apart: writes its state to `state` and returns the rest.
///
/// Nothing that was written to `state` is to be believed unless this succeeds.
/// Then every byte agreed with its hash, there was nothing else in the archive, and nothing after it.
/// The state may be far longer than the archive: it is up to `state` to refuse what it has no room for.
pub fn unpack(input: impl Read, state: &mut impl Write) -> Result<Contents, ArchiveError> {
    let input = BufReader::with_capacity(READ_SIZE, input);
    let mut files = Files::new(gzip::Decoder::open(input).map_err(gzip_error)?);
    let mut meta = None;
    let mut sums = None;
    let mut state_hash = None;
    while let Some(file) = files.next_file().map_err(tar_error)? {
        match file.name.as_slice() {
            name if name == META.as_bytes() => {
                let bytes = small_file(&mut files, META, META_SIZE_MAX)?;
                let decoded = Meta::decode(&bytes).map_err(ArchiveError::Meta)?;
                once(&mut meta, (decoded, hash(&bytes)), META)?;
            }
            name if name == STATE.as_bytes() => {
                // Not read at all the second time, so that it can't mix with the first.
                if state_hash.is_some() {
                    return Err(ArchiveError::Twice(STATE));
                }
                state_hash = Some(copy_state(&mut files, state)?);
            }
            name if name == SUMS.as_bytes() => {
                let bytes = small_file(&mut files, SUMS, SUMS_SIZE_MAX)?;
                once(&mut sums, bytes, SUMS)?;
            }
            name => {
                return Err(ArchiveError::Stranger(
                    String::from_utf8_lossy(name).into_owned(),
                ));
            }
        }
    }
    // The hash of nothing stands for a file that isn't there: so does the original, and its messages show it.
    let (meta, meta_hash) = match meta {
        Some((meta, hash)) => (Some(meta), hash),
        None => (None, hash(&[])),
    };
    let state = state_hash;
    let state_hash = state.map_or_else(|| hash(&[]), |(hash, _)| hash);
    sums::check(&sums.unwrap_or_default(), &meta_hash, &state_hash)?;
    let (Some(meta), Some((_, state_size))) = (meta, state) else {
        // Someone listed the hash of nothing for it.
        let name = if state.is_none() { STATE } else { META };
        return Err(SumsError::Mismatch(name).into());
    };
    pass_filler(files.into_inner())?;
    Ok(Contents { meta, state_size })
}

/// Reads an archive to its end and says what it holds, if all of it agrees.
pub fn verify(input: impl Read) -> Result<Contents, ArchiveError> {
    unpack(input, &mut io::sink())
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), ArchiveError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ArchiveError::Twice(name)),
    }
}

fn hash(bytes: &[u8]) -> sums::Hash {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

fn small_file(
    files: &mut Files<impl Read>,
    name: &'static str,
    size_max: u64,
) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    let mut limited = files.take(size_max + 1);
    limited
        .read_to_end(&mut bytes)
        .map_err(|error| ArchiveError::Tar(text(&error)))?;
    if bytes.len() as u64 > size_max {
        return Err(ArchiveError::TooLong(name, size_max));
    }
    Ok(bytes)
}

fn copy_state(
    files: &mut Files<impl Read>,
    state: &mut impl Write,
) -> Result<(sums::Hash, u64), ArchiveError> {
    let failed = |error: io::Error| ArchiveError::State(text(&error));
    let mut hasher = Hasher::default();
    let mut size = 0;
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let read = match files.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        hasher.update(&buffer[..read]);
        state.write_all(&buffer[..read]).map_err(failed)?;
        size += read as u64;
    }
}

/// Reads on to the end of the file, where the checksum of the gzip layer is compared.
fn pass_filler(input: impl Read) -> Result<(), ArchiveError> {
    let mut input = input.take(FILLER_SIZE_MAX + 1);
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match input.read(&mut buffer) {
            Ok(0) if input.limit() == 0 => return Err(ArchiveError::Junk),
            Ok(0) => return Ok(()),
            Ok(read) if buffer[..read].iter().any(|byte| *byte != 0) => {
                return Err(ArchiveError::Junk);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(gzip_error(error)),
        }
    }
}

fn gzip_error(error: io::Error) -> ArchiveError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<GzipError>())
    {
        Some(gzip) => ArchiveError::Gzip(*gzip),
        None => ArchiveError::Source(error),
    }
}

fn tar_error(error: TarError) -> ArchiveError {
    match error {
        TarError::Header => ArchiveError::Tar(error.to_string()),
        TarError::Io(error) => ArchiveError::Tar(text(&error)),
    }
}

/// The text of an error, where the end of the input has the name that the original gives it.
fn text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        _ => error.to_string(),
    }
}
