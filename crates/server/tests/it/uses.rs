//! The last uses of credentials.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use adit_auth::{
    ACCESS_KEY_RANDOM_BYTES, AccessKey, CredentialId, EnrolStoreError, KeyKind, NewCredential,
    Proof, RecordStore, Records, Scopes, StoreError, UserName,
};
use adit_link::control::{Channel as _, Transport as _};
use adit_server::{FixedSource, Server};
use adit_tls::Connector;
use adit_trace::NoObserver;
use secrecy::ExposeSecret;

use crate::support::{registration, settings, transport};

/// A store that keeps the last uses in memory.
struct Store {
    records: Mutex<Option<Arc<Records>>>,
    uses: Mutex<Vec<CredentialId>>,
}

impl RecordStore for Store {
    fn changed(&self) -> Result<Option<Arc<Records>>, StoreError> {
        Ok(self.records.lock().unwrap().take())
    }

    fn enrol(
        &self,
        _: &AccessKey,
        _: IpAddr,
        _: NewCredential,
        _: u64,
    ) -> Result<(UserName, bool), EnrolStoreError> {
        Err(StoreError("not here".to_owned()).into())
    }

    fn note_uses(&self, uses: &[(CredentialId, u64)]) -> Result<(), StoreError> {
        let ids = uses.iter().map(|(id, _)| *id);
        self.uses.lock().unwrap().extend(ids);
        Ok(())
    }
}

#[tokio::test]
async fn the_last_uses_are_stored_when_the_server_stops() {
    let key = AccessKey::from_random(KeyKind::Api, [7; ACCESS_KEY_RANDOM_BYTES]);
    let ann: UserName = "ann".parse().unwrap();
    let mut records = Records::default();
    records.add_user(ann.clone(), Scopes::default(), 1).unwrap();
    let new = NewCredential {
        id: key.id(),
        proof: Proof::Key(key.hash()),
        label: String::new(),
        expires_at: None,
        scopes: Scopes::default(),
    };
    records.add_credential(ann, new, 1).unwrap();
    let store = Arc::new(Store {
        records: Mutex::new(Some(Arc::new(records))),
        uses: Mutex::default(),
    });
    let source = Arc::new(FixedSource::new(settings(Vec::new())));
    let observer = Arc::new(NoObserver) as _;
    let server = Server::start_from(source, store.clone(), &observer).unwrap();
    let connected = transport(&server, &Connector::off()).connect().await;
    let (channel, driver) = connected.unwrap();
    let driving = tokio::spawn(driver);
    let text = key.to_text();
    let registration = registration(text.expose_secret(), "one");
    channel.register(registration).await.unwrap();
    server.stop().await;
    assert_eq!(*store.uses.lock().unwrap(), [key.id()]);
    driving.abort();
}
