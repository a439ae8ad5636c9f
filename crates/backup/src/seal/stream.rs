//! Encryption of a stream on its way.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::StreamWriter;
use age::{EncryptError, Encryptor};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;

use super::Recipient;
use crate::stores::Content;

/// How much is encrypted before it is passed on, however long the pieces are that come in.
const PIECE_SIZE: usize = 256 << 10;

/// Encrypts a stream so that each of the recipients can open it.
///
/// It ends in an error where `content` does, and at once if there are no recipients: what was to be a secret must not pass as it is.
/// What was encrypted before an error, or before this was dropped, isn't taken for a whole file by anybody who opens it.
pub fn sealed(content: Content, recipients: &[Recipient]) -> Content {
    let written = Written::default();
    let state = encryptor(recipients)
        .and_then(|encryptor| encryptor.wrap_output(written.clone()))
        .map(|writer| Sealing {
            content,
            writer,
            written,
            left: Bytes::new(),
        });
    stream::unfold(Some(state), async |state| match state? {
        Ok(sealing) => sealing.next().await,
        Err(why) => Some((Err(why), None)),
    })
    .boxed()
}

fn encryptor(recipients: &[Recipient]) -> io::Result<Encryptor> {
    Encryptor::with_recipients(recipients.iter().map(|it| &it.0 as _)).map_err(|why| match why {
        EncryptError::MissingRecipients => io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is nobody to encrypt the snapshot to",
        ),
        EncryptError::Io(why) => why,
        // Keys of the one kind that we take go together, and have no labels.
        _ => io::Error::other("the snapshot can't be encrypted to these recipients"),
    })
}

/// A stream that is being encrypted.
struct Sealing {
    content: Content,
    writer: StreamWriter<Written>,
    written: Written,
    /// What came and is still to be encrypted.
    left: Bytes,
}

/// The next piece, and what is to be done after it.
type Step = Option<(io::Result<Bytes>, Option<io::Result<Sealing>>)>;

impl Sealing {
    async fn next(mut self) -> Step {
        loop {
            while !self.left.is_empty() {
                let piece = self.left.split_to(self.left.len().min(PIECE_SIZE));
                if let Err(why) = self.writer.write_all(&piece) {
                    return Some((Err(why), None));
                }
                if let Some(bytes) = self.written.take() {
                    return Some((Ok(bytes), Some(Ok(self))));
                }
            }
            match self.content.next().await {
                Some(Ok(bytes)) => self.left = bytes,
                Some(Err(why)) => return Some((Err(why), None)),
                None => {
                    let finished = self.writer.finish();
                    return finished
                        .map(|written| written.take())
                        .transpose()
                        .map(|last| (last, None));
                }
            }
        }
    }
}

/// Where the encrypted bytes go. The writer keeps its end for itself until it finishes, so there are two.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn take(&self) -> Option<Bytes> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!written.is_empty()).then(|| Bytes::from(std::mem::take(&mut *written)))
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
