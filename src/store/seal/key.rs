//! The operator's key: 32 octets, in base64, from a file or the environment. It encrypts nothing itself: what does is derived
//! from it ([`seal`](super)).

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64;

use super::super::StoreError;
use crate::model::private;

const OCTETS: usize = 32;
/// Octets of a file with a key in it: more is something else.
const FILE_OCTETS_MAX: u64 = 4096;

/// A key. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Key([u8; OCTETS]);

impl Key {
    /// From base64, with white space around it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted =
            || format!("a key is {OCTETS} octets in base64, as `openssl rand -base64 {OCTETS}` makes them");
        let octets = BASE64.decode(text.trim().as_bytes()).map_err(|_| wanted())?;
        octets.try_into().map(Self).map_err(|_| wanted())
    }

    /// From a file. Warns where others may open it.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display();
        let failed = |e: &dyn fmt::Display| StoreError::new(format!("the key of the store in {shown}: {e}"));
        let file = File::open(path).map_err(|e| failed(&e))?;
        let ours = nix::unistd::geteuid().as_raw();
        if let Some(remedy) = file.metadata().ok().and_then(|data| private::remedy(&data, ours)) {
            tracing::warn!("{shown}, the key of the store, {remedy}");
        }
        let mut text = String::new();
        file.take(FILE_OCTETS_MAX).read_to_string(&mut text).map_err(|e| failed(&e))?;
        Self::parse(&text).map_err(|why| failed(&why))
    }

    pub(super) fn octets(&self) -> &[u8; OCTETS] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// Where the key of a store comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum KeySource {
    /// The store is not encrypted.
    #[default]
    None,
    File(PathBuf),
    Given(Key),
}

impl KeySource {
    pub fn read(&self) -> Result<Option<Key>, StoreError> {
        match self {
            Self::None => Ok(None),
            Self::File(path) => Key::read(path).map(Some),
            Self::Given(key) => Ok(Some(key.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_octets_in_base64_and_is_not_shown() {
        let key = Key::parse(" AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
        assert_eq!(key.octets()[31], 31);
        assert_eq!(format!("{key:?} {:?}", KeySource::Given(key.clone())), "Key(..) Given(Key(..))");
        for wrong in ["", "AAEC", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "not base64 at all!"] {
            assert!(Key::parse(wrong).unwrap_err().contains("openssl rand"), "{wrong}");
        }
    }
}
