//! The destination of the visitors of one entry: its upstream, on the current link.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_auth::{ClientClaim, ClientId, Grant, GroupId, NameError, TunnelName, UserName};
use adit_ingress::{Destination, Direction, Director, Layers, RequestMeta, RetryBudget, Session};
use adit_link::{Compression, Lane};

use crate::{
    links::{CurrentLink, Links},
    settings::{EntrySettings, Settings},
};

/// The upstream of one entry, and the links to it.
pub(super) struct Route {
    upstream: TunnelName,
    grant: Grant,
    links: Arc<Links>,
    wait: Duration,
    /// The compression of the visitors' payload.
    compression: Option<Compression>,
    retries: RetryBudget,
}

impl Route {
    /// The route of `entry`.
    ///
    /// # Errors
    /// The client's own names are invalid.
    pub(super) fn new(
        entry: &EntrySettings,
        settings: &Settings,
        links: Arc<Links>,
    ) -> Result<Self, NameError> {
        Ok(Self {
            upstream: entry.upstream.clone(),
            grant: grant(settings)?,
            links,
            wait: settings.timeouts.link_wait,
            compression: entry.compression,
            retries: RetryBudget::new(Instant::now()),
        })
    }

    fn destination(&self, (lane, link): (Arc<Lane>, Arc<CurrentLink>)) -> Destination {
        Destination {
            lane,
            grant: self.grant.for_tunnel(self.upstream.clone(), link.revision),
            tunnel: self.upstream.clone().into(),
            revision: link.revision,
            link: link.epoch,
            layers: Layers::default(),
            limits: None,
            compression: self.compression,
            permit: None,
            hold: Box::new(()),
        }
    }
}

/// The identity of the entries' visitors: the client vouches to the server for all of them.
fn grant(settings: &Settings) -> Result<Grant, NameError> {
    let claim = ClientClaim {
        client_id: ClientId::parse(&settings.client_id)?,
        group_id: GroupId::parse(&settings.group_id)?,
    };
    Ok(Grant::for_link(
        UserName::parse(&settings.client_id)?,
        claim,
    ))
}

/// Directs every visitor of one entry to its upstream.
pub(super) struct EntryDirector(pub(super) Arc<Route>);

impl EntryDirector {
    /// Does not choose a link in `avoid`: the next link may be up within the wait.
    fn direct_any(&self, avoid: &[u64]) -> Direction {
        let route = &self.0;
        if avoid.is_empty() {
            route.retries.on_request(Instant::now());
        }
        if let Some(found) = route.links.lane(avoid) {
            return Direction::Go(route.destination(found));
        }
        let (route, avoid) = (route.clone(), avoid.to_vec());
        Direction::Wait(Box::pin(async move {
            let found = route.links.wait(&avoid, route.wait).await?;
            Ok(route.destination(found))
        }))
    }
}

impl Director for EntryDirector {
    fn direct(&self, _: &RequestMeta, avoid: &[u64]) -> Direction {
        self.direct_any(avoid)
    }

    fn direct_session(&self, _: &Session, avoid: &[u64]) -> Direction {
        self.direct_any(avoid)
    }

    fn needs_host(&self, _: u16) -> bool {
        false
    }

    fn may_retry(&self) -> bool {
        self.0.retries.try_retry(Instant::now())
    }
}
