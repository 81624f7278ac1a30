//! `Debug` of the messages with secrets: a message that is logged shows none.

use std::fmt;

use crate::{
    Credential, EnrolRequest, EnrolResponse, RegisterRequest, RegisterResponse, credential,
    enrol_response,
};

/// The messages whose `Debug`, with that of their alternatives, is not generated.
pub const SECRET_MESSAGES: [&str; 5] = [
    ".adit.tunnel.v1.RegisterRequest",
    ".adit.tunnel.v1.RegisterResponse",
    ".adit.tunnel.v1.Credential",
    ".adit.tunnel.v1.EnrolRequest",
    ".adit.tunnel.v1.EnrolResponse",
];

/// In the place of a secret.
const HIDDEN: &str = "..";

impl fmt::Debug for RegisterRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterRequest")
            .field("protocol_version", &self.protocol_version)
            .field("capabilities", &self.capabilities)
            .field("client_id", &self.client_id)
            .field("group_id", &self.group_id)
            .field("credential", &self.credential)
            .field("lanes", &self.lanes)
            .field("client_version", &self.client_version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RegisterResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterResponse")
            .field("protocol_version", &self.protocol_version)
            .field("capabilities", &self.capabilities)
            .field("epoch", &self.epoch)
            .field("settings", &self.settings)
            .field("revision", &self.revision)
            .field("server_version", &self.server_version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("kind", &self.kind)
            .finish()
    }
}

impl fmt::Debug for credential::Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.debug_tuple("Token").field(&HIDDEN).finish(),
        }
    }
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest")
            .field("protocol_version", &self.protocol_version)
            .field("client_id", &self.client_id)
            .field("client_version", &self.client_version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EnrolResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolResponse")
            .field("user", &self.user)
            .field("credential", &self.credential)
            .field("awaits_approval", &self.awaits_approval)
            .field("credential_id", &self.credential_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for enrol_response::Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(_) => f.debug_tuple("ApiKey").field(&HIDDEN).finish(),
            Self::Certificate(one) => f.debug_tuple("Certificate").field(one).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Control, CredentialRenewal, control};

    #[test]
    fn no_message_shows_a_secret() {
        let secret = || "the-secret".to_owned();
        let credential = || Credential {
            kind: Some(credential::Kind::Token(secret())),
        };
        let register = RegisterRequest {
            client_id: "office".to_owned(),
            instance_secret: secret().into_bytes().into(),
            credential: Some(credential()),
            ..RegisterRequest::default()
        };
        let registered = RegisterResponse {
            session: secret(),
            ..RegisterResponse::default()
        };
        let enrol = EnrolRequest {
            key: secret(),
            client_id: "office".to_owned(),
            ..EnrolRequest::default()
        };
        let enrolled = EnrolResponse {
            credential: Some(enrol_response::Credential::ApiKey(secret())),
            ..EnrolResponse::default()
        };
        let renewal = Control {
            kind: Some(control::Kind::CredentialRenewal(CredentialRenewal {
                sequence: 1,
                credential: Some(credential()),
            })),
        };
        let shown = format!("{register:?} {registered:?} {enrol:?} {enrolled:?} {renewal:?}");
        assert!(!shown.contains("secret\""), "{shown}");
        assert!(!shown.contains("the-secret"), "{shown}");
        // The bytes of the instance secret are shown as text, or as numbers.
        assert!(!shown.contains("116, 104"), "{shown}");
        assert!(shown.contains("office"), "{shown}");
    }
}
