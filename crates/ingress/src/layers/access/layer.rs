//! An access layer: the opinion of a rule about a visitor, as a verdict.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use adit_codec::ProtocolType;
use adit_link::{LogLimit, Reason};
use adit_net::HostNetwork;
use adit_trace::Printable;
use uuid::Uuid;

use crate::{
    forward::{
        denial::Denial,
        layer::{Layer, NoResponse, Verdict},
        request_meta::{RequestMeta, Visitor},
        session::Session,
    },
    layers::{
        access::{
            bans::Banning,
            basic_auth::{BasicAuth, Credentials},
            config::{AccessConfig, AccessRule},
            forward_auth,
            header_token::HeaderToken,
            ip,
            opinion::Opinion,
            passwords::Busy,
            rate_limit::{Begins, Limits},
            state::Access,
        },
        network::Network,
    },
};

/// Where an access layer stands.
pub(crate) struct Position<'p> {
    /// The name of its list.
    pub(crate) place: &'p Arc<str>,
    /// Its place in the list.
    pub(crate) index: usize,
    /// The access layers behind it in the list.
    pub(crate) later: &'p [&'p AccessConfig],
}

/// The layers of one access layer of a configuration.
pub(crate) fn access_layers(
    config: &AccessConfig,
    position: &Position<'_>,
    access: &Arc<Access>,
) -> Vec<Box<dyn Layer>> {
    // A rule that is not met is final, unless a later one can still be met instead.
    // A dry run is as if all dry runs were enforced.
    let can_grant =
        |later: &&&AccessConfig| (later.enforces() || !config.enforces()) && later.rule().grants();
    let mut grants = position.later.iter().filter(can_grant);
    let is_last = grants.clone().next().is_none();
    let is_last_of_session = !grants.any(|later| later.rule().fits_sessions());
    let make = |check: Check| {
        Box::new(AccessLayer {
            check,
            kind: config.rule().kind(),
            place: position.place.clone(),
            access: access.clone(),
            enforce: config.enforces(),
            sufficient: config.is_sufficient(),
            is_last,
            is_last_of_session,
        }) as Box<dyn Layer>
    };
    let identity = config.identity(position.place, position.index);
    match config.rule() {
        // Two layers: the networks that are denied are so for visitors with a grant as well.
        AccessRule::Ip(ip) => {
            let deny = (!ip.denied().is_empty()).then(|| Check::Deny(ip.denied().into()));
            let allow = (!ip.allowed().is_empty()).then(|| Check::Allow(ip.allowed().into()));
            deny.into_iter().chain(allow).map(make).collect()
        }
        AccessRule::BasicAuth(basic) => vec![make(Check::Password(basic.clone(), identity))],
        AccessRule::HeaderToken(token) => vec![make(Check::Token(token.clone()))],
        AccessRule::RateLimit(limit) => {
            let limits = Limits::new(limit, identity, position.place, &access.rates);
            vec![make(Check::Rates(limits))]
        }
        AccessRule::ForwardAuth(provider) => {
            vec![make(Check::Provider(provider.as_str().into(), identity))]
        }
        AccessRule::Ban(rule) => {
            let place = if config.enforces() {
                position.place.clone()
            } else {
                format!("{} (dry run)", position.place).into()
            };
            let banning = Banning::new(*rule, place, position.index, &access.bans);
            vec![make(Check::Ban(banning))]
        }
    }
}

/// What a layer checks.
enum Check {
    Deny(Box<[Network]>),
    Allow(Box<[Network]>),
    /// With the identity of the layer.
    Password(BasicAuth, [u8; 32]),
    Token(HeaderToken),
    Rates(Limits),
    Ban(Banning),
    /// The provider with this name, and the identity of the layer.
    Provider(Arc<str>, [u8; 32]),
}

struct AccessLayer {
    check: Check,
    kind: &'static str,
    /// The list that the layer is in, for logs.
    place: Arc<str>,
    access: Arc<Access>,
    enforce: bool,
    sufficient: bool,
    /// No rule behind this one can be met instead: by a request, or by a session.
    is_last: bool,
    is_last_of_session: bool,
}

impl AccessLayer {
    /// The verdict for an opinion (P-15.3). `is_last`: no rule behind this one can be met instead. A layer that does not
    /// enforce its rule continues (P-15.4).
    fn verdict<'v, R>(
        &self,
        opinion: Opinion,
        is_last: bool,
        (visitor, uuid): (&Visitor, &Uuid),
    ) -> Verdict<'v, R> {
        let denial = match opinion {
            Opinion::Pass => return Verdict::Continue,
            Opinion::Granted if self.sufficient && self.enforce => return Verdict::Grant,
            Opinion::Granted if self.sufficient => return Verdict::WouldGrant,
            Opinion::Granted => return Verdict::Continue,
            Opinion::Unproven(denial) if self.sufficient && !is_last => {
                return if self.enforce {
                    Verdict::Unmet(denial)
                } else {
                    Verdict::Continue
                };
            }
            Opinion::Unproven(denial) | Opinion::Denied(denial) => denial,
        };
        self.access.counters.count(self.kind, self.enforce);
        if self.enforce {
            return Verdict::Deny(denial);
        }
        self.log_would_deny(&denial, visitor, uuid);
        Verdict::Continue
    }

    fn of_request<'v>(&self, opinion: Opinion, request: &RequestMeta) -> Verdict<'v> {
        self.verdict(opinion, self.is_last, (&request.visitor, &request.uuid))
    }

    fn log_would_deny(&self, denial: &Denial, visitor: &Visitor, uuid: &Uuid) {
        WOULD_DENY.note(WouldDeny {
            id: *uuid,
            kind: self.kind,
            place: self.place.clone(),
            visitor: visitor.as_str().to_owned(),
            reason: denial.failure().reason.as_str(),
            detail: denial.failure().detail.to_string(),
        });
    }

    /// Checks the password of a visitor.
    fn check_password<'r>(
        &'r self,
        basic: &'r BasicAuth,
        identity: &[u8; 32],
        request: &'r mut RequestMeta,
    ) -> Verdict<'r> {
        let Some(credentials) = Credentials::of(&request.headers) else {
            return self.of_request(basic.unproven(false), request);
        };
        let passwords = &self.access.passwords;
        let key = passwords.key(identity, credentials.user(), credentials.password());
        if passwords.is_verified(&key) {
            return self.admit_user(basic, &credentials, request);
        }
        let Some(place) = self.access.waits.enter(identity) else {
            return self.unchecked(busy(), request);
        };
        let network = HostNetwork::of(request.visitor.addr().ip());
        let check = basic.check(credentials.user());
        let password = credentials.password().to_vec();
        let verifying = passwords.verify(key, network, move || check.run(&password));
        Verdict::Wait(Box::pin(async move {
            let verified = verifying.await;
            drop(place);
            match verified {
                Ok(true) => self.admit_user(basic, &credentials, request),
                Ok(false) => self.of_request(basic.unproven(true), request),
                Err(Busy) => self.unchecked(busy(), request),
            }
        }))
    }

    /// The verdict without a check. A dry run does not report it: nothing is known about the visitor.
    fn unchecked<'v>(&self, denial: Denial, request: &RequestMeta) -> Verdict<'v> {
        if !self.enforce {
            return Verdict::Continue;
        }
        self.of_request(Opinion::unproven(denial), request)
    }

    fn admit_user<'v>(
        &self,
        basic: &BasicAuth,
        credentials: &Credentials,
        request: &mut RequestMeta,
    ) -> Verdict<'v> {
        if self.enforce {
            basic.admit(credentials.user(), &mut request.headers);
        }
        self.of_request(Opinion::Granted, request)
    }

    fn check_token<'v>(&self, token: &HeaderToken, request: &mut RequestMeta) -> Verdict<'v> {
        let opinion = token.opinion(&request.headers);
        if self.enforce && matches!(opinion, Opinion::Granted) {
            token.remove_tokens(&mut request.headers);
        }
        self.of_request(opinion, request)
    }

    /// Asks the provider about a request.
    fn ask<'r>(
        &'r self,
        provider: &str,
        identity: &[u8; 32],
        request: &'r mut RequestMeta,
    ) -> Verdict<'r> {
        let Some(provider) = self.access.providers.find(provider) else {
            let unknown = Denial::new(Reason::Internal, "the provider of forward auth is unknown");
            let unknown = unknown.unchecked().without_ban();
            return self.of_request(Opinion::unproven(unknown), request);
        };
        let Some(place) = self.access.waits.enter(identity) else {
            return self.unchecked(busy(), request);
        };
        Verdict::Wait(Box::pin(async move {
            let lines = forward_auth::lines_for(request, &*provider);
            let answer = provider.ask(lines).await;
            drop(place);
            let (opinion, lines) = forward_auth::opinion(request, answer, provider.copied());
            if self.enforce && matches!(opinion, Opinion::Granted) {
                forward_auth::copy(lines, provider.copied(), &mut request.headers);
            }
            self.of_request(opinion, request)
        }))
    }

    /// The opinion of a ban about an address.
    fn opinion_of_ban(&self, ban: &Banning, visitor: IpAddr) -> Opinion {
        match self.access.bans.left(ban, HostNetwork::of(visitor)) {
            Some(left) => Opinion::denied(banned(left)),
            None => Opinion::Pass,
        }
    }
}

impl Layer for AccessLayer {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let visitor = request.visitor.addr().ip();
        let opinion = match &self.check {
            Check::Deny(networks) => ip::deny(networks, visitor),
            Check::Allow(networks) => ip::allow(networks, visitor),
            Check::Password(basic, identity) => {
                return self.check_password(basic, identity, request);
            }
            Check::Token(token) => return self.check_token(token, request),
            Check::Provider(provider, identity) => return self.ask(provider, identity, request),
            Check::Rates(limits) => {
                let begins = Begins::Request(request.visitor.counted_by());
                limits.opinion(&self.access.rates, HostNetwork::of(visitor), begins)
            }
            Check::Ban(ban) => self.opinion_of_ban(ban, visitor),
        };
        self.of_request(opinion, request)
    }

    fn on_session<'s>(&'s self, session: &'s Session) -> Verdict<'s, NoResponse> {
        let visitor = session.visitor.addr().ip();
        let opinion = match &self.check {
            Check::Deny(networks) => ip::deny(networks, visitor),
            Check::Allow(networks) => ip::allow(networks, visitor),
            Check::Rates(limits) => {
                let begins = match session.protocol {
                    ProtocolType::Udp => Begins::Flow,
                    _ => Begins::Connection,
                };
                limits.opinion(&self.access.rates, HostNetwork::of(visitor), begins)
            }
            Check::Ban(ban) => self.opinion_of_ban(ban, visitor),
            // A session has no head (P-15.1).
            Check::Password(..) | Check::Token(_) | Check::Provider(..) => Opinion::Pass,
        };
        let whose = (&session.visitor, &session.uuid);
        self.verdict(opinion, self.is_last_of_session, whose)
    }

    fn needs_grant(&self) -> bool {
        match &self.check {
            Check::Allow(_) | Check::Password(..) | Check::Token(_) | Check::Provider(..) => true,
            Check::Deny(_) | Check::Rates(_) | Check::Ban(_) => false,
        }
    }

    fn enforces(&self) -> bool {
        self.enforce
    }

    fn on_skipped(&self, request: &mut RequestMeta) {
        if !self.enforce {
            return;
        }
        match &self.check {
            Check::Password(basic, _) => basic.remove_credentials(&mut request.headers),
            Check::Token(token) => token.remove_tokens(&mut request.headers),
            Check::Deny(_)
            | Check::Allow(_)
            | Check::Rates(_)
            | Check::Ban(_)
            | Check::Provider(..) => {}
        }
    }

    fn on_denied(&self, visitor: IpAddr, denial: &Denial) {
        let Check::Ban(ban) = &self.check else { return };
        let network = HostNetwork::of(visitor);
        if denial.counts_for_bans() && self.access.bans.on_denied(ban, network) {
            let (place, seconds) = (&*ban.place, ban.rule.duration().as_secs());
            tracing::info!(%network, place, seconds, "address banned");
        }
    }
}

fn busy() -> Denial {
    let text = "too many requests wait to be authenticated";
    let denial = Denial::new(Reason::Limit, text).unchecked().without_ban();
    denial.retry_after(Duration::from_secs(1))
}

fn banned(left: Duration) -> Denial {
    let text = "requests from this address were denied too often";
    let denial = Denial::new(Reason::Banned, text).without_ban();
    denial.retry_after(left)
}

/// A visitor that a layer would not have admitted.
struct WouldDeny {
    id: Uuid,
    kind: &'static str,
    place: Arc<str>,
    visitor: String,
    reason: &'static str,
    detail: String,
}

/// One limit for the whole process: a layer may not admit any visitor.
static WOULD_DENY: LazyLock<Arc<LogLimit<WouldDeny>>> = LazyLock::new(|| {
    LogLimit::per_sec(5, |would: &WouldDeny, count| {
        tracing::info!(
            request_id = %would.id,
            layer = would.kind,
            place = %would.place,
            visitor = would.visitor,
            reason = would.reason,
            count = (count > 1).then_some(count),
            "would deny: {}",
            Printable(&would.detail)
        );
    })
});
