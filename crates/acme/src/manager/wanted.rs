//! A name that wants a certificate.

use std::sync::Arc;

use crate::name::CertName;

/// A name that wants a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name.
    pub name: CertName,
    /// Whose name it is, such as a user: the first orders of an owner are bounded. Empty: it has no owner.
    pub owner: Arc<str>,
    /// Why no certificate can be obtained for it, or why one would not be used. Nothing is ordered then.
    pub obstacle: Option<Arc<str>>,
}

impl From<CertName> for Wanted {
    fn from(name: CertName) -> Self {
        Self {
            name,
            owner: Arc::default(),
            obstacle: None,
        }
    }
}
