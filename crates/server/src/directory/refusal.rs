//! What a refused announcement is answered.

use adit_proto::Error as ProtoError;

pub(super) fn refusal(code: &str, message: String) -> ProtoError {
    ProtoError {
        code: code.into(),
        message,
        detail: String::new(),
    }
}
