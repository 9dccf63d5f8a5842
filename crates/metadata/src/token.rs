//! Session tokens: the time at which one expires, sealed with a key that nobody knows (AES-256
//! in Galois/counter mode, NIST SP 800-38D). The key lives as long as the service, so that a
//! token is of no use to a machine that was restored, or to another.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64ct::{Base64, Encoding};

use crate::service::Random;

/// For how long a token may be asked for, in seconds.
pub(crate) const TTLS: RangeInclusive<u32> = 1..=21_600;

/// A token is no longer than this, in base64.
const LONGEST: usize = 70;

/// Random nonces under one key (SP 800-38D, 8.3).
const USES: u64 = 1 << 32;

const KEY: usize = 32;
const NONCE: usize = 12;
const EXPIRY: usize = 8;

/// Makes tokens, and knows its own.
pub(crate) struct Authority {
    /// Absent until the first token is asked for.
    key: Option<(Aes256Gcm, u64)>,
    /// What a token is bound to.
    machine: Vec<u8>,
    random: Random,
}

impl Authority {
    /// The authority of the machine called `id`.
    pub(crate) fn new(id: &str, random: Random) -> Self {
        Self { key: None, machine: format!("microvmid={id}").into_bytes(), random }
    }

    /// A token that is valid from `now` on for `seconds`, of [`TTLS`].
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn issue(&mut self, seconds: u32, now: Duration) -> io::Result<String> {
        let expires = now + Duration::from_secs(seconds.into());
        let expires = u64::try_from(expires.as_millis()).unwrap_or(u64::MAX);
        let mut nonce = [0; NONCE];
        (self.random)(&mut nonce)?;
        let (cipher, uses) = match self.key.take().filter(|(_, uses)| *uses < USES) {
            Some(key) => key,
            None => (self.new_key()?, 0),
        };
        let payload = Payload { msg: &expires.to_le_bytes(), aad: &self.machine };
        let sealed = cipher.encrypt(&Nonce::from(nonce), payload);
        self.key = Some((cipher, uses + 1));
        // Only gigabytes are too much to seal.
        let sealed = sealed.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Base64::encode_string(&[&nonce[..], &sealed].concat()))
    }

    /// Whether `token` is one of its own, and still valid `now`.
    pub(crate) fn is_valid(&self, token: &str, now: Duration) -> bool {
        let Some((cipher, _)) = &self.key else { return false };
        if token.len() > LONGEST {
            return false;
        }
        let Ok(bytes) = Base64::decode_vec(token) else { return false };
        let Some((nonce, sealed)) = bytes.split_first_chunk::<NONCE>() else { return false };
        let payload = Payload { msg: sealed, aad: &self.machine };
        let Ok(opened) = cipher.decrypt(&Nonce::from(*nonce), payload) else { return false };
        let expires = <[u8; EXPIRY]>::try_from(opened).map(u64::from_le_bytes);
        expires.is_ok_and(|expires| now < Duration::from_millis(expires))
    }

    fn new_key(&self) -> io::Result<Aes256Gcm> {
        let mut key = [0; KEY];
        (self.random)(&mut key)?;
        Ok(Aes256Gcm::new(&Key::<Aes256Gcm>::from(key)))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of the key.
        f.write_str("Authority")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::random_enough;

    const SECOND: Duration = Duration::from_secs(1);

    fn authority(id: &str) -> Authority {
        Authority::new(id, random_enough)
    }

    #[test]
    fn a_token_is_valid_until_its_time_is_over() {
        let mut authority = authority("web");
        let token = authority.issue(60, 5 * SECOND).unwrap();
        assert!(token.len() <= LONGEST, "{token}");
        assert!(authority.is_valid(&token, 5 * SECOND));
        assert!(authority.is_valid(&token, 64 * SECOND));
        assert!(!authority.is_valid(&token, 65 * SECOND));
    }

    #[test]
    fn a_token_of_another_machine_or_another_life_is_none() {
        let mut first = authority("web");
        let token = first.issue(60, SECOND).unwrap();
        let mut second = authority("web");
        assert!(!second.is_valid(&token, SECOND));
        second.issue(60, SECOND).unwrap();
        assert!(!second.is_valid(&token, SECOND));
        // Even under the same key.
        second.key = first.key.take();
        assert!(second.is_valid(&token, SECOND));
        second.machine = authority("db").machine;
        assert!(!second.is_valid(&token, SECOND));
    }

    #[test]
    fn a_token_with_one_bit_changed_is_none() {
        let mut authority = authority("web");
        let token = Base64::decode_vec(&authority.issue(60, SECOND).unwrap()).unwrap();
        for bit in 0..token.len() * 8 {
            let mut changed = token.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!authority.is_valid(&Base64::encode_string(&changed), SECOND), "{bit}");
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        let mut authority = authority("web");
        let token = authority.issue(60, SECOND).unwrap();
        for text in ["", "=", "AAAA", "ä", &token[4..], &format!("{token}AAAA"), &"A".repeat(9999)]
        {
            assert!(!authority.is_valid(text, SECOND), "{text}");
        }
    }

    #[test]
    fn a_key_is_used_so_often_and_no_more() {
        let mut authority = authority("web");
        let old = authority.issue(60, SECOND).unwrap();
        authority.key.as_mut().unwrap().1 = USES;
        let new = authority.issue(60, SECOND).unwrap();
        assert!(!authority.is_valid(&old, SECOND));
        assert!(authority.is_valid(&new, SECOND));
    }

    #[test]
    fn without_random_numbers_there_is_no_token() {
        let mut authority = Authority::new("web", |_| Err(io::ErrorKind::NotFound.into()));
        assert!(authority.issue(60, SECOND).is_err());
        assert!(!authority.is_valid("AAAA", SECOND));
    }
}
