//! Why a tunnel is refused.

use adit_proto::Error as ProtoError;

/// Why a tunnel is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The code, for programs (P-1.4).
    pub(crate) code: &'static str,
    /// The reason, for the author of the tunnel.
    pub(crate) message: String,
}

pub(super) const fn refusal(code: &'static str, message: String) -> Refusal {
    Refusal { code, message }
}

impl From<Refusal> for ProtoError {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code.into(),
            message: refusal.message,
            detail: String::new(),
        }
    }
}
