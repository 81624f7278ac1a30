//! Renewals of credentials on a control stream.

use std::time::Duration;

use adit_auth::JwtRules;
use adit_link::control::{Channel as _, ControlMessage};
use adit_proto::{Credential, CredentialRenewal, Heartbeat, control::Kind, credential};
use adit_server::{IssuerSettings, KeySource, Server, UrlSource};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;

use crate::support::{TestClient, settings};

/// A token of an unknown key.
fn unknown_token() -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = encode(r#"{"alg":"ES256","kid":"new"}"#);
    format!("{header}.{}.c2ln", encode(r#"{"aud":"adit"}"#))
}

#[tokio::test]
async fn p_1_22_heartbeats_are_answered_while_keys_are_requested() {
    // It accepts connections, and never responds.
    let issuer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", issuer.local_addr().unwrap());
    let mut settings = settings(Vec::new());
    settings.timeouts.setup = Duration::from_secs(5);
    settings.issuers = vec![IssuerSettings {
        rules: JwtRules {
            audience: vec!["adit".to_owned()],
            ..JwtRules::default()
        },
        keys: KeySource::JwksUrl(UrlSource::new(url.parse().unwrap())),
    }];
    let server = Server::start(&settings).unwrap();
    let client = TestClient::connect(&server, "one").await;
    let mut control = client.channel.open_control(&client.session).await.unwrap();
    let renewal = Kind::CredentialRenewal(CredentialRenewal {
        sequence: 1,
        credential: Some(Credential {
            kind: Some(credential::Kind::Token(unknown_token())),
        }),
    });
    let heartbeat = Kind::Heartbeat(Heartbeat {
        sequence: 7,
        reply: false,
    });
    for kind in [renewal, heartbeat] {
        let message = ControlMessage::new(0, kind);
        control.outbound.send(message).await.unwrap();
    }
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        match control.inbound.next().await.unwrap().unwrap().kind {
            Some(Kind::Heartbeat(Heartbeat {
                sequence: 7,
                reply: true,
            })) => kinds.push("heartbeat"),
            Some(Kind::CredentialRenewalResult(result)) => {
                assert_eq!((result.sequence, result.error.is_some()), (1, true));
                kinds.push("result");
            }
            _ => {}
        }
    }
    assert_eq!(kinds, ["heartbeat", "result"]);
    server.stop().await;
}
