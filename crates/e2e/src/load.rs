//! A visitor that sends requests without a pause.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use tokio::{sync::watch, task::JoinHandle};

use crate::{Visitor, within};

const LAST_RESPONSE: Duration = Duration::from_secs(60);

/// Requests `/who` repeatedly on one connection. Every response must have status 200 and the expected body.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    responses: watch::Receiver<usize>,
    visitor: JoinHandle<()>,
}

impl Load {
    /// Starts, and waits for the first response.
    ///
    /// # Panics
    /// Panics when no response arrives.
    pub async fn start(addr: SocketAddr, host: &str, body: &'static str) -> Self {
        Self::on(Visitor::http1(addr, host).await, body).await
    }

    /// Starts on the connection of this visitor, and waits for the first response.
    ///
    /// # Panics
    /// Panics when no response arrives.
    pub async fn on(mut visitor: Visitor, body: &'static str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, responses) = watch::channel(0);
        let visitor = tokio::spawn(async move {
            while !*stopped.borrow() {
                let response = visitor.get("/who").await;
                let found = (response.status, response.text());
                assert_eq!(
                    found,
                    (StatusCode::OK, body.to_owned()),
                    "{}",
                    response.reason()
                );
                count.send_modify(|count| *count += 1);
            }
        });
        let load = Self {
            stop,
            responses,
            visitor,
        };
        load.goes_on().await;
        load
    }

    /// Waits for two more responses: the second one is to a request that began after the call.
    ///
    /// # Panics
    /// Panics when a response was not the expected one, or there are no more responses.
    pub async fn goes_on(&self) {
        let mut responses = self.responses.clone();
        let wanted = *responses.borrow() + 2;
        let more = responses.wait_for(|count| *count >= wanted);
        let more = within("more responses", LAST_RESPONSE, more).await;
        assert!(more.is_ok(), "the visitor has failed");
    }

    /// Ends after the response to the running request.
    ///
    /// # Panics
    /// Panics when a response was not the expected one.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let ended = within("the last response", LAST_RESPONSE, self.visitor).await;
        ended.expect("every response as expected");
    }
}
