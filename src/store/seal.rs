//! Encryption of what is stored: AES-256-GCM (NIST SP 800-38D) over each value, keys of entries hidden by HMAC-SHA256.
//!
//! Nothing is encrypted with the operator's key itself. Of it, and of a salt that each file has of its own, HKDF-SHA256 (RFC 5869)
//! makes one key that hides entries' keys, one that names the operator's key, and those of the epochs.
//!
//! **No nonce is used twice.** Each time a file is opened, an epoch begins: 128 random bits, from which the key of its messages
//! is derived, and a counter, which is their nonce. So within an epoch nonces differ because they are counted, and epochs have
//! different keys; two with the same 128 bits are not to be expected before 2^64 starts. After 2^32 messages a new epoch begins, far
//! below what GCM allows one key. Random nonces under one key would have to stop for ever at 2^32 messages, which a busy server writes in
//! days. Rejected for that, and a key derived for each message because it costs as much as the encryption. What the counter does
//! not survive is a virtual machine that is copied while it runs, and both copies go on.
//!
//! **Each entry is bound to its place**: the table and the hidden key are associated data, so that a value that was put in another's
//! place does not decrypt. What was encrypted holds the entry's own key, since the hidden one does not lead back to it. That an
//! entry was taken away, or put back as it once was, is not noticed.
//!
//! A sealed text is `epoch:16 counter:u64 ciphertext tag:16`, little-endian.

mod key;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, hmac, rand};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase};

use super::format::{self, FORMAT, KEY_CHECK, META, SALT, SEALED};
use super::{StoreError, read};

pub use key::{Key, KeySource};

/// Messages of one epoch.
const MESSAGES_MAX: u64 = 1 << 32;
const EPOCH: usize = 16;

/// What a sealed text belongs to.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Place {
    Record = b'r',
    Status = b's',
    Journal = b'j',
    Backup = b'b',
}

/// How entries stand in a file.
pub(super) enum Form {
    Plain,
    Sealed(Box<Seal>),
}

/// The keys of one file.
pub(super) struct Seal {
    operators: Key,
    pub(super) salt: u128,
    /// Names the operator's key: equal for no other one.
    pub(super) check: u128,
    epochs: hkdf::Prk,
    names: hmac::Key,
    current: Mutex<Epoch>,
    /// The keys of epochs that were read.
    known: Mutex<HashMap<[u8; EPOCH], Arc<LessSafeKey>>>,
}

struct Epoch {
    id: [u8; EPOCH],
    key: Arc<LessSafeKey>,
    next: u64,
}

fn failed(_: Unspecified) -> io::Error {
    io::Error::other("the cipher or the system's random numbers failed")
}

/// A key for one purpose.
fn derive(from: &hkdf::Prk, purpose: &[&[u8]]) -> Result<[u8; 32], Unspecified> {
    let mut key = [0; 32];
    from.expand(purpose, hkdf::HKDF_SHA256)?.fill(&mut key)?;
    Ok(key)
}

impl Epoch {
    fn begin(epochs: &hkdf::Prk) -> Result<Self, Unspecified> {
        let mut id = [0; EPOCH];
        rand::fill(&mut id)?;
        Ok(Self { id, key: Self::key(epochs, &id)?, next: 0 })
    }

    fn key(epochs: &hkdf::Prk, id: &[u8; EPOCH]) -> Result<Arc<LessSafeKey>, Unspecified> {
        let key = derive(epochs, &[b"rollcall epoch", id])?;
        Ok(Arc::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?)))
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut octets = [0; 12];
    octets[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(octets)
}

fn bound_to(place: Place, what: &[u8]) -> Vec<u8> {
    [&[place as u8], what].concat()
}

impl Seal {
    /// For a file with this salt.
    pub(super) fn new(operators: &Key, salt: u128) -> io::Result<Self> {
        let made = || -> Result<Self, Unspecified> {
            let root = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt.to_be_bytes()).extract(operators.octets());
            let named = derive(&root, &[b"rollcall key check"])?;
            let check = named.iter().take(16).fold(0u128, |sum, octet| sum << 8 | u128::from(*octet));
            let names = hmac::Key::new(hmac::HMAC_SHA256, &derive(&root, &[b"rollcall names"])?);
            let epochs = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &derive(&root, &[b"rollcall values"])?);
            let current = Mutex::new(Epoch::begin(&epochs)?);
            let known = Mutex::default();
            Ok(Self { operators: operators.clone(), salt, check, epochs, names, current, known })
        };
        made().map_err(failed)
    }

    /// For a new file.
    pub(super) fn fresh(operators: &Key) -> io::Result<Self> {
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(failed)?;
        Self::new(operators, u128::from_be_bytes(salt))
    }

    pub(super) fn operators(&self) -> &Key {
        &self.operators
    }

    /// Encrypts a text that is bound to a place and to what says where it stands there.
    pub(super) fn seal(&self, place: Place, at: &[u8], text: &[u8]) -> io::Result<Vec<u8>> {
        let (id, key, counter) = {
            let mut current = self.current.lock();
            if current.next >= MESSAGES_MAX {
                *current = Epoch::begin(&self.epochs).map_err(failed)?;
            }
            current.next += 1;
            (current.id, current.key.clone(), current.next)
        };
        let mut sealed = text.to_vec();
        let aad = Aad::from(bound_to(place, at));
        key.seal_in_place_append_tag(nonce(counter), aad, &mut sealed).map_err(failed)?;
        Ok([&id[..], &counter.to_le_bytes(), &sealed].concat())
    }

    /// The text; `None` where it was changed, or sealed by another key or for another place.
    pub(super) fn open(&self, place: Place, at: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = sealed.split_first_chunk::<EPOCH>()?;
        let (counter, rest) = rest.split_first_chunk::<8>()?;
        let key = {
            let mut known = self.known.lock();
            match known.get(id) {
                Some(key) => key.clone(),
                None => {
                    let key = Epoch::key(&self.epochs, id).ok()?;
                    known.insert(*id, key.clone());
                    key
                }
            }
        };
        let mut text = rest.to_vec();
        let aad = Aad::from(bound_to(place, at));
        let length = key.open_in_place(nonce(u64::from_le_bytes(*counter)), aad, &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    fn hidden(&self, place: Place, key: &[u8]) -> Vec<u8> {
        hmac::sign(&self.names, &bound_to(place, key)).as_ref().to_vec()
    }

    /// An entry's own key and value, from what stands in the file.
    pub(super) fn entry(
        &self,
        place: Place,
        hidden: &[u8],
        sealed: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let opened = || {
            let text = self.open(place, hidden, sealed)?;
            let (length, rest) = text.split_first_chunk::<4>()?;
            let (key, value) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            (self.hidden(place, key) == hidden).then(|| (key.to_vec(), value.to_vec()))
        };
        opened().ok_or_else(|| {
            let name = data_encoding::HEXLOWER.encode(&hidden[..hidden.len().min(8)]);
            StoreError::new(format!(
                "the encrypted entry {name}... is damaged, or stands in another's place: it does not decrypt. Nothing was \
                 changed. Restore a backup with `rollcall restore --replace FILE`"
            ))
        })
    }
}

impl Form {
    /// That of a new file.
    pub(super) fn fresh(key: Option<&Key>) -> Result<Self, StoreError> {
        let Some(key) = key else { return Ok(Self::Plain) };
        Seal::fresh(key).map(|seal| Self::Sealed(seal.into())).map_err(|e| StoreError::new(e.to_string()))
    }

    /// That of a file which is there. Errs unless the key is the one that it wants, or there is none and it wants none.
    pub(super) fn of(database: &Database, key: Option<&Key>) -> Result<Self, StoreError> {
        let numbers = || -> Result<[u128; 3], redb::Error> {
            let meta = database.begin_read()?.open_table(META)?;
            let number = |name: &str| -> Result<u128, redb::Error> {
                Ok(meta.get(name)?.map_or(0, |value| value.value()))
            };
            Ok([number(FORMAT)?, number(SALT)?, number(KEY_CHECK)?])
        };
        let [form, salt, check] =
            numbers().map_err(|e| StoreError::new(format!("the registry cannot be read: {e}")))?;
        read::check_format(form)?;
        match (form >= SEALED, key) {
            (false, None) => Ok(Self::Plain),
            (false, Some(_)) => Err(StoreError::new(
                "the registry is not encrypted, but there is a key for it ([store] key_file or ROLLCALL_STORE_KEY). \
                 To encrypt it, stop the server and run `rollcall store rotate --from-plain`; or take the key away",
            )),
            (true, None) => Err(StoreError::new(
                "the registry is encrypted, and there is no key for it: set [store] key_file, or ROLLCALL_STORE_KEY",
            )),
            (true, Some(key)) => {
                let seal = Seal::new(key, salt).map_err(|e| StoreError::new(e.to_string()))?;
                if seal.check != check {
                    return Err(StoreError::new(format!(
                        "the registry is encrypted with another key: with {}, and the one that is given is {}. \
                         Set [store] key_file or ROLLCALL_STORE_KEY to the right one. Nothing was changed",
                        shown(check),
                        shown(seal.check)
                    )));
                }
                Ok(Self::Sealed(seal.into()))
            }
        }
    }

    /// The number that stands in the file for its form.
    pub(super) fn number(&self) -> u128 {
        match self {
            Self::Plain => u128::from(format::FILE),
            Self::Sealed(_) => SEALED + u128::from(format::FILE),
        }
    }

    /// An entry's key as it stands in the file.
    pub(super) fn key<'a>(&self, place: Place, key: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Plain => Cow::Borrowed(key),
            Self::Sealed(seal) => Cow::Owned(seal.hidden(place, key)),
        }
    }

    /// An entry's value as it stands in the file under `stored`, its key there.
    pub(super) fn value(
        &self,
        place: Place,
        key: &[u8],
        stored: &[u8],
        value: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(value),
            Self::Sealed(seal) => {
                seal.seal(place, stored, &[&(key.len() as u32).to_le_bytes(), key, &value].concat())
            }
        }
    }

    /// An entry's value, from what stands in the file under `stored`.
    pub(super) fn opened<'a>(
        &self,
        place: Place,
        stored: &[u8],
        value: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, StoreError> {
        match self {
            Self::Plain => Ok(Cow::Borrowed(value)),
            Self::Sealed(seal) => Ok(Cow::Owned(seal.entry(place, stored, value)?.1)),
        }
    }
}

/// A key's name, as operators see it.
pub(super) fn shown(check: u128) -> String {
    format!("key {:016x}", check >> 64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(octet: u8) -> Key {
        Key::parse(&data_encoding::BASE64.encode(&[octet; 32])).unwrap()
    }

    fn seal() -> Seal {
        Seal::new(&key(1), 7).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let (first, text) = (seal(), b"a text that nobody is to see".as_slice());
        let sealed = first.seal(Place::Record, b"at", text).unwrap();
        assert!(!sealed.windows(8).any(|part| part == &text[..8]));
        // In a later epoch, too.
        let later = seal();
        assert_eq!(later.open(Place::Record, b"at", &sealed).as_deref(), Some(text));
        for (place, at) in [(Place::Record, &b"au"[..]), (Place::Status, b"at"), (Place::Record, b"")] {
            assert!(later.open(place, at, &sealed).is_none());
        }
        assert!(Seal::new(&key(2), 7).unwrap().open(Place::Record, b"at", &sealed).is_none());
        assert!(Seal::new(&key(1), 8).unwrap().open(Place::Record, b"at", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(later.open(Place::Record, b"at", &changed).is_none(), "changed at {at}");
            assert!(later.open(Place::Record, b"at", &sealed[..at]).is_none(), "cut at {at}");
        }
    }

    /// Epoch and counter.
    const HEAD: usize = EPOCH + 8;

    #[test]
    fn no_nonce_comes_twice_under_one_key() {
        let heads = |seal: &Seal| -> Vec<Vec<u8>> {
            (0..100).map(|_| seal.seal(Place::Record, b"", b"same").unwrap()[..HEAD].to_vec()).collect()
        };
        let (first, second) = (seal(), seal());
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        seen.extend(heads(&first));
        seen.extend(heads(&second));
        first.current.lock().next = MESSAGES_MAX;
        seen.extend(heads(&first));
        assert_eq!(seen.len(), 300);
        let epochs: HashSet<&[u8]> = seen.iter().map(|head| &head[..EPOCH]).collect();
        assert_eq!(epochs.len(), 3, "one for each time it was opened, and one when the count was full");
    }

    #[test]
    fn keys_are_hidden_and_found_again() {
        let form = Form::Sealed(seal().into());
        let hidden = form.key(Place::Record, b"2n1\0web").into_owned();
        assert_eq!(hidden, *form.key(Place::Record, b"2n1\0web"));
        assert_ne!(hidden, *form.key(Place::Status, b"2n1\0web"));
        assert_ne!(
            hidden,
            *Form::Sealed(Seal::new(&key(1), 8).unwrap().into()).key(Place::Record, b"2n1\0web")
        );
        let stored = form.value(Place::Record, b"2n1\0web", &hidden, b"value".to_vec()).unwrap();
        assert_eq!(*form.opened(Place::Record, &hidden, &stored).unwrap(), *b"value");
        let other = form.key(Place::Record, b"2n1\0db").into_owned();
        let error = form.opened(Place::Record, &other, &stored).unwrap_err().to_string();
        assert!(error.contains("stands in another's place"), "{error}");
        assert!(!error.contains("web"), "{error}");
    }
}
