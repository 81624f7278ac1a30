//! The key of a client that gets certificates of the server's own CA.

use std::fmt;

use rcgen::KeyPair;
use secrecy::SecretString;

use crate::authority::AuthorityError;

/// A key pair of P-256. The private key leaves the client only into its own file.
pub struct ClientKey(KeyPair);

impl ClientKey {
    /// A new key.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`].
    pub fn generate() -> Result<Self, AuthorityError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The public key, for [`Authority::issue_client`](crate::Authority::issue_client).
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    /// The private key in PEM, for the client's file.
    #[must_use]
    pub fn to_pem(&self) -> SecretString {
        self.0.serialize_pem().into()
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(..)")
    }
}
