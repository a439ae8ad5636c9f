//! The keys that a pool encrypts its gossip with, and the file that they are kept in.
//!
//! The first key of a ring is the primary one: it seals everything that goes out, while every key opens what comes in.
//! That is what makes a change of keys possible without silence: install the new one everywhere, use it everywhere,
//! remove the old one everywhere.
//!
//! A sealed packet is a nonce of twelve bytes, the ciphertext, and a tag of sixteen bytes.
//! Nonces are drawn at random, so two packets of one key share one with a chance of about q²/2⁹⁷ after q packets: one
//! in 400,000 after a year in which a thousand members send twenty packets a second each.
//! It takes two things from the caller: the generator is seeded from the operating system wherever keys are real, and
//! no two members share its seed.
//!
//! `docs/gossip-files.md` describes the file.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aes::Aes192;
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, AesGcm, KeyInit, Nonce, Tag};
use rand::Rng;

use crate::handle::KeyOperation;
use crate::replace::replace;

/// Bytes of a key as `keygen` makes it; 24 and 32 are taken as well.
pub const KEY_BYTES: usize = 16;

/// The most keys in one ring. A rotation needs two; every one more makes foreign packets dearer to refuse.
pub const KEYS_MAX: usize = 64;

/// Bytes that sealing adds to a packet.
pub const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// The largest file that is believed to be a keyring; one of [`KEYS_MAX`] keys has about 3 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a key or a ring is refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The text of a key is not base64.
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
    /// A key of another size.
    #[error("key size must be 16, 24 or 32 bytes")]
    KeySize,
    /// The primary key seals what goes out; another one must take its place first.
    #[error("Removing the primary key is not allowed")]
    RemovePrimary,
    /// Only an installed key can become the primary one.
    #[error("Requested key is not in the keyring")]
    NotInstalled,
    /// There are [`KEYS_MAX`] keys already.
    #[error("a keyring holds at most {KEYS_MAX} keys")]
    Full,
    /// What a ring is to be made of has no key in it.
    #[error("a keyring needs at least one key")]
    Empty,
    /// The content of a keyring file.
    #[error("not a JSON list of keys: {0}")]
    Json(String),
    /// What is wrong with a keyring file.
    #[error("keyring {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// The file could not be read or written.
    #[error("{verb} keyring {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A keyring as it was found, or made.
#[derive(Debug)]
pub struct Loaded {
    /// The keys.
    pub keyring: Keyring,
    /// Whether a key was given that has no effect, because the ring existed already. The user should be told.
    pub ignored_given: bool,
}

/// A handle on the keys of one pool; its clones are handles on the same keys.
///
/// Every change is in the file before it takes effect. A change whose file can't be written changes nothing.
#[derive(Clone)]
pub struct Keyring(Arc<Shared>);

struct Shared {
    /// Never empty. Replaced as a whole, so that whoever seals or opens holds the lock for a moment only.
    ring: RwLock<Arc<Vec<Key>>>,
    /// Where changes are written; held during a change, which may wait for the disk.
    file: Mutex<Option<PathBuf>>,
}

impl Keyring {
    /// Takes the keys from a file. If there is none, makes it from the key that was given; without one there is no
    /// encryption.
    pub fn load_or_create(
        path: &Path,
        given: Option<&str>,
    ) -> Result<Option<Loaded>, KeyringError> {
        let in_file = |source| KeyringError::File {
            path: path.to_path_buf(),
            source: Box::new(source),
        };
        if let Some(content) = read(path).map_err(failed("read", path))? {
            let keys = decode_keys(&content).map_err(in_file)?;
            let keyring = Self::new(keys, Some(path.to_path_buf())).map_err(in_file)?;
            return Ok(Some(Loaded {
                keyring,
                ignored_given: given.is_some(),
            }));
        }
        let Some(given) = given else { return Ok(None) };
        let keyring = Self::new(vec![parse_key(given)?], Some(path.to_path_buf()))?;
        let list = serde_json::to_vec(&keyring.list()).expect("a list of texts is JSON");
        replace(path, &list).map_err(failed("write", path))?;
        Ok(Some(Loaded {
            keyring,
            ignored_given: false,
        }))
    }

    /// A ring that no file keeps, the primary key first.
    pub fn in_memory(keys: Vec<Vec<u8>>) -> Result<Self, KeyringError> {
        Self::new(keys, None)
    }

    fn new(keys: Vec<Vec<u8>>, path: Option<PathBuf>) -> Result<Self, KeyringError> {
        let mut ring: Vec<Key> = Vec::new();
        for bytes in keys {
            let key = Key::new(&bytes)?;
            if !ring.iter().any(|known| known.bytes == key.bytes) {
                ring.push(key);
            }
        }
        if ring.is_empty() {
            return Err(KeyringError::Empty);
        }
        if ring.len() > KEYS_MAX {
            return Err(KeyringError::Full);
        }
        Ok(Self(Arc::new(Shared {
            ring: RwLock::new(Arc::new(ring)),
            file: Mutex::new(path),
        })))
    }

    /// The key that seals what goes out, in base64.
    pub fn primary(&self) -> String {
        encode_key(&self.ring()[0].bytes)
    }

    /// All keys in base64, the primary one first.
    pub fn list(&self) -> Vec<String> {
        texts(&self.ring())
    }

    /// Adds a key that opens from now on. One that is there already is fine.
    pub fn install(&self, key: &[u8]) -> Result<(), KeyringError> {
        self.change(|ring| {
            let key = Key::new(key)?;
            if ring.iter().any(|known| known.bytes == key.bytes) {
                return Ok(());
            }
            if ring.len() == KEYS_MAX {
                return Err(KeyringError::Full);
            }
            ring.push(key);
            Ok(())
        })
    }

    /// Makes an installed key the primary one.
    pub fn use_key(&self, key: &[u8]) -> Result<(), KeyringError> {
        self.change(|ring| {
            let place = ring.iter().position(|known| known.bytes == key);
            let place = place.ok_or(KeyringError::NotInstalled)?;
            ring[..=place].rotate_right(1);
            Ok(())
        })
    }

    /// Removes a key, but not the primary one. One that isn't there is fine.
    pub fn remove(&self, key: &[u8]) -> Result<(), KeyringError> {
        self.change(|ring| {
            if ring[0].bytes == key {
                return Err(KeyringError::RemovePrimary);
            }
            ring.retain(|known| known.bytes != key);
            Ok(())
        })
    }

    /// Encrypts with the primary key. What is associated is not in the packet, but the packet opens with it only.
    pub fn seal(
        &self,
        chance: &mut (impl Rng + ?Sized),
        associated: &[u8],
        plain: &[u8],
    ) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        chance.fill_bytes(&mut nonce);
        let mut packet = Vec::with_capacity(plain.len() + SEAL_BYTES);
        packet.extend_from_slice(&nonce);
        packet.extend_from_slice(plain);
        let tag = self.ring()[0].seal(&nonce, associated, &mut packet[NONCE_BYTES..]);
        packet.extend_from_slice(&tag);
        packet
    }

    /// Decrypts with whichever key fits. `None` if none does, or if the packet or what is associated was changed.
    pub fn open(&self, associated: &[u8], packet: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = packet.split_first_chunk::<NONCE_BYTES>()?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        // A key that doesn't fit notices before it decrypts, so the copy stays good for the next one.
        let mut plain = sealed.to_vec();
        self.ring()
            .iter()
            .any(|key| key.open(nonce, associated, &mut plain, tag))
            .then_some(plain)
    }

    fn ring(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.0.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes one change: on a copy, then in the file, then for everybody.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Key>) -> Result<(), KeyringError>,
    ) -> Result<(), KeyringError> {
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ring = Vec::clone(&self.ring());
        change(&mut ring)?;
        if let Some(path) = &*file {
            let list = serde_json::to_vec_pretty(&texts(&ring)).expect("a list of texts is JSON");
            replace(path, &list).map_err(failed("write", path))?;
        }
        *self.0.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(())
    }
}

/// A change of keys that is to be made; it waits for the disk.
#[derive(Debug)]
pub struct Change {
    pub(crate) keyring: Keyring,
    pub(crate) operation: KeyOperation,
}

/// What became of a change of keys.
#[derive(Debug)]
pub struct Changed(pub(crate) Result<(), KeyringError>);

impl Change {
    /// Makes it.
    pub fn run(self) -> Changed {
        let keyring = &self.keyring;
        Changed(match &self.operation {
            KeyOperation::List => Ok(()),
            KeyOperation::Install(key) => parse_key(key).and_then(|key| keyring.install(&key)),
            KeyOperation::Use(key) => parse_key(key).and_then(|key| keyring.use_key(&key)),
            KeyOperation::Remove(key) => parse_key(key).and_then(|key| keyring.remove(&key)),
        })
    }
}

impl std::fmt::Debug for Keyring {
    /// Says how many keys there are, and never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("keys", &self.ring().len())
            .finish_non_exhaustive()
    }
}

/// One key and its expanded form; it has no `Debug` on purpose.
#[derive(Clone)]
struct Key {
    bytes: Vec<u8>,
    cipher: Arc<Cipher>,
}

enum Cipher {
    Aes128(Aes128Gcm),
    Aes192(AesGcm<Aes192, U12>),
    Aes256(Aes256Gcm),
}

impl Key {
    fn new(bytes: &[u8]) -> Result<Self, KeyringError> {
        let cipher = if let Ok(cipher) = Aes128Gcm::new_from_slice(bytes) {
            Cipher::Aes128(cipher)
        } else if let Ok(cipher) = AesGcm::new_from_slice(bytes) {
            Cipher::Aes192(cipher)
        } else if let Ok(cipher) = Aes256Gcm::new_from_slice(bytes) {
            Cipher::Aes256(cipher)
        } else {
            return Err(KeyringError::KeySize);
        };
        Ok(Self {
            bytes: bytes.to_vec(),
            cipher: Arc::new(cipher),
        })
    }

    /// Encrypts in place.
    fn seal(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], text: &mut [u8]) -> Tag {
        let nonce = Nonce::from(*nonce);
        let text = InOutBuf::from(text);
        match &*self.cipher {
            Cipher::Aes128(cipher) => cipher.encrypt_inout_detached(&nonce, associated, text),
            Cipher::Aes192(cipher) => cipher.encrypt_inout_detached(&nonce, associated, text),
            Cipher::Aes256(cipher) => cipher.encrypt_inout_detached(&nonce, associated, text),
        }
        .expect("gossip is shorter than the 64 GiB that one nonce can seal")
    }

    /// Decrypts in place and says whether that was right; where it was not, nothing has changed.
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        let nonce = Nonce::from(*nonce);
        let tag = Tag::from(*tag);
        let text = InOutBuf::from(text);
        match &*self.cipher {
            Cipher::Aes128(cipher) => cipher.decrypt_inout_detached(&nonce, associated, text, &tag),
            Cipher::Aes192(cipher) => cipher.decrypt_inout_detached(&nonce, associated, text, &tag),
            Cipher::Aes256(cipher) => cipher.decrypt_inout_detached(&nonce, associated, text, &tag),
        }
        .is_ok()
    }
}

/// A new key.
pub fn generate_key(chance: &mut (impl Rng + ?Sized)) -> Vec<u8> {
    let mut key = vec![0; KEY_BYTES];
    chance.fill_bytes(&mut key);
    key
}

/// Reads a key from base64 and checks its size.
pub fn parse_key(text: &str) -> Result<Vec<u8>, KeyringError> {
    let key = decode_base64(text)?;
    Key::new(&key)?;
    Ok(key)
}

/// A key in base64.
pub fn encode_key(key: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(key)
}

/// Reads padded base64 as Go does: line ends don't count, the bits that padding leaves over may be anything, and an
/// error names the same byte, which is what people compare.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, KeyringError> {
    let input: Vec<u8> = text
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    let mut bytes = Vec::with_capacity(input.len() / 4 * 3);
    for (group, quantum) in input.chunks(4).enumerate() {
        let start = group * 4;
        let digits = quantum.iter().map_while(|byte| digit(*byte)).count();
        let padding = match (digits, &quantum[digits..]) {
            (4, _) => 0,
            (_, []) => return Err(KeyringError::Base64(start)),
            (3, [b'=']) => 1,
            (2, [b'=', b'=']) => 2,
            // The second half of the padding is looked for where the text ends.
            (2, [b'=']) => return Err(KeyringError::Base64(input.len())),
            _ => return Err(KeyringError::Base64(start + digits)),
        };
        let bits = quantum
            .iter()
            .fold(0, |bits, byte| bits << 6 | digit(*byte).unwrap_or(0));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
        if padding > 0 && start + 4 < input.len() {
            return Err(KeyringError::Base64(start + 4));
        }
    }
    Ok(bytes)
}

fn digit(byte: u8) -> Option<u32> {
    let digit = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(digit))
}

/// Reads what is in a keyring file: a JSON list of keys in base64, the primary one first.
pub fn decode_keys(content: &[u8]) -> Result<Vec<Vec<u8>>, KeyringError> {
    // The error of the JSON reader may quote what it read, so it is told by its place only.
    let texts: Vec<String> = serde_json::from_slice(content).map_err(|error| {
        KeyringError::Json(format!("line {}, column {}", error.line(), error.column()))
    })?;
    if texts.len() > KEYS_MAX {
        return Err(KeyringError::Full);
    }
    texts.iter().map(|text| parse_key(text)).collect()
}

fn texts(ring: &[Key]) -> Vec<String> {
    ring.iter().map(|key| encode_key(&key.bytes)).collect()
}

/// The content of a file; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(Some(content))
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyringError {
    let path = path.to_path_buf();
    move |source| KeyringError::Io { verb, path, source }
}

#[cfg(test)]
mod tests;
