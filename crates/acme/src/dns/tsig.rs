//! Signatures of messages with a shared key (TSIG, RFC 8945).

use std::{fmt, sync::Arc, time::SystemTime};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use thiserror::Error;

use super::message::{Answer, MessageError, TSIG, put_name, put_record, set_count};

/// The class of TSIG records.
const ANY: u16 = 255;

/// The difference of two clocks that is accepted, in seconds (RFC 8945, 10).
const FUDGE: u16 = 300;

/// The hash of a key's signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// `hmac-sha256`.
    #[default]
    Sha256,
    /// `hmac-sha384`.
    Sha384,
    /// `hmac-sha512`.
    Sha512,
}

impl Algorithm {
    /// The name on the wire and in configurations of name servers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }
}

/// A key that this machine shares with a name server. Cheap to clone; `Debug` has no part of it.
#[derive(Clone)]
pub struct TsigKey {
    name: String,
    algorithm: Algorithm,
    key: Arc<hmac::Key>,
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TsigError {
    /// The name is not one of DNS.
    #[error("the name of the TSIG key, {0:?}, is not a name of DNS")]
    Name(String),
    /// The secret is not in base64.
    #[error("the secret of the TSIG key is not valid base64; copy it as `tsig-keygen` prints it")]
    Secret,
}

impl TsigKey {
    /// A key by its name and its secret in base64, as `tsig-keygen` prints them.
    ///
    /// # Errors
    /// [`TsigError`].
    pub fn new(name: &str, algorithm: Algorithm, secret: &str) -> Result<Self, TsigError> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name.is_empty() || put_name(&mut Vec::new(), &name).is_err() {
            return Err(TsigError::Name(name));
        }
        let secret = BASE64_STANDARD.decode(secret.trim());
        let secret = secret.map_err(|_| TsigError::Secret)?;
        if secret.is_empty() {
            return Err(TsigError::Secret);
        }
        let hash = match algorithm {
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha384 => hmac::HMAC_SHA384,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
        };
        Ok(Self {
            name,
            algorithm,
            key: Arc::new(hmac::Key::new(hash, &secret)),
        })
    }

    /// Signs a message that has no additional records. Returns its signature, which the answer refers to.
    pub(super) fn sign(
        &self,
        message: &mut Vec<u8>,
        now: SystemTime,
    ) -> Result<Vec<u8>, MessageError> {
        let time = now.duration_since(SystemTime::UNIX_EPOCH);
        let time = time.unwrap_or_default().as_secs();
        let id = message.get(..2).ok_or(MessageError::Invalid)?.to_vec();
        let mac = hmac::sign(
            &self.key,
            &[&message[..], &self.variables(time, FUDGE, 0, &[])?].concat(),
        );
        let mac = mac.as_ref().to_vec();
        let mut data = Vec::new();
        put_name(&mut data, self.algorithm.name())?;
        data.extend(time.to_be_bytes().get(2..).unwrap_or_default());
        data.extend(FUDGE.to_be_bytes());
        data.extend(length(&mac)?);
        data.extend(&mac);
        data.extend(id);
        data.extend([0; 4]);
        put_record(message, &self.name, (TSIG, ANY, 0), &data)?;
        set_count(message, 3, 1);
        Ok(mac)
    }

    /// Verifies the answer to a message with this signature.
    ///
    /// # Errors
    /// What is wrong, and what to change.
    pub(super) fn verify(
        &self,
        message: &[u8],
        answer: &Answer,
        request_mac: &[u8],
        now: SystemTime,
    ) -> Result<(), String> {
        let Some((name, signature, unsigned)) = answer.signature(message) else {
            return Err("its answer is not signed: is it a name server for updates, and does it know the key?".to_owned());
        };
        match signature.error {
            0 => {}
            16 => {
                return Err(
                    "it rejects the signature (BADSIG): is the secret the same on both sides?"
                        .to_owned(),
                );
            }
            17 => {
                return Err(format!(
                    "it does not know the key {:?} with {} (BADKEY)",
                    self.name,
                    self.algorithm.name()
                ));
            }
            18 => return Err("the clocks differ by more than five minutes (BADTIME)".to_owned()),
            error => return Err(format!("it rejects the signature with the error {error}")),
        }
        let invalid = || "its answer has an invalid signature".to_owned();
        if name != self.name || signature.algorithm != self.algorithm.name() {
            return Err(invalid());
        }
        let variables = self.variables(
            signature.time,
            signature.fudge,
            signature.error,
            &signature.other,
        );
        let request_length = length(request_mac).map_err(|_| invalid())?;
        let variables = variables.map_err(|_| invalid())?;
        let signed = [&request_length[..], request_mac, &unsigned, &variables];
        hmac::verify(&self.key, &signed.concat(), &signature.mac).map_err(|_| invalid())?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        if now.abs_diff(signature.time) > u64::from(FUDGE) {
            return Err("the clocks differ by more than five minutes".to_owned());
        }
        Ok(())
    }

    /// What a signature covers beside the message (RFC 8945, 4.3.3).
    fn variables(
        &self,
        time: u64,
        fudge: u16,
        error: u16,
        other: &[u8],
    ) -> Result<Vec<u8>, MessageError> {
        let mut variables = Vec::new();
        put_name(&mut variables, &self.name)?;
        variables.extend(ANY.to_be_bytes());
        variables.extend([0; 4]);
        put_name(&mut variables, self.algorithm.name())?;
        variables.extend(time.to_be_bytes().get(2..).unwrap_or_default());
        variables.extend(fudge.to_be_bytes());
        variables.extend(error.to_be_bytes());
        variables.extend(length(other)?);
        variables.extend(other);
        Ok(variables)
    }
}

fn length(bytes: &[u8]) -> Result<[u8; 2], MessageError> {
    let length = u16::try_from(bytes.len()).map_err(|_| MessageError::Invalid)?;
    Ok(length.to_be_bytes())
}

impl PartialEq for TsigKey {
    /// The secrets are equal if they sign alike.
    fn eq(&self, other: &Self) -> bool {
        let signed = |key: &Self| hmac::sign(&key.key, key.name.as_bytes());
        self.name == other.name
            && self.algorithm == other.algorithm
            && signed(self).as_ref() == signed(other).as_ref()
    }
}

impl Eq for TsigKey {}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_checked_and_never_printed() {
        let secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=";
        let key = TsigKey::new("Key.Example.", Algorithm::Sha512, secret).unwrap();
        let debug = format!("{key:?}");
        assert!(
            debug.contains("key.example") && !debug.contains("c2Vj"),
            "{debug}"
        );
        let error = TsigKey::new("a..b", Algorithm::Sha256, secret).err();
        assert_eq!(error, Some(TsigError::Name("a..b".to_owned())));
        for secret in ["", "!", "c2Vj cmV0"] {
            let error = TsigKey::new("k", Algorithm::Sha256, secret).err();
            assert_eq!(error, Some(TsigError::Secret));
        }
    }
}
