//! The settings of the server.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

use adit_auth::{GroupId, MIN_TOKEN_BYTES, TokenAuthenticator, TunnelName, UserName};
use adit_router::{GrpcPattern, HeaderMatch, HostPattern, PathPrefix, Rule, Table};
use adit_server::{
    HostRules, Limits, NamedToken, PortRanges, RuleSettings, RuleTarget, Settings, SharedGroup,
    Timeouts, UpstreamProtocol, UpstreamSettings,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    document::Node,
    environment::Variables,
    error::{ConfigError, Kind, Origin},
    layers::{Loaded, default_threads, gather, path, side, within},
    overrides::ServerOverrides,
    problems::read_all,
    proxies::{public_url, trusted_proxies},
    read::{Item, Section},
    state::StateDir,
    telemetry, token,
    tunnel::host_pattern,
    upstream,
    vocabulary::{self, NOTHING},
};

/// Counts: at least one, and few enough that a table of them fits into memory.
pub(crate) const COUNT: RangeInclusive<u64> = 1..=1_000_000;
/// A window must hold a chunk and its cost; a larger one than 1 GiB is a mistake.
pub(crate) const WINDOW: RangeInclusive<u64> = 4 << 10..=1 << 30;
/// Percent of all permits.
const SHARE: RangeInclusive<u64> = 1..=100;
/// A lowest rate of a visitor, in bytes a second; 0: there is none. Above 1 MiB a second few would be left.
pub(crate) const RATE: RangeInclusive<u64> = 0..=1 << 20;
/// At least some messages, at most what takes no longer than a few milliseconds.
pub(crate) const TURN: RangeInclusive<u64> = 4 << 10..=4 << 20;
/// Budgets may be nothing: then windows do not grow.
pub(crate) const BUDGET: RangeInclusive<u64> = 0..=1 << 40;
/// More threads than any machine has.
pub(crate) const THREADS: RangeInclusive<u64> = 1..=1_024;
/// More data streams than help.
pub(crate) const LANES: RangeInclusive<u64> = 1..=64;
/// The router takes no longer paths.
const LOCATION: RangeInclusive<u64> = 1..=2_048;
/// A wait of zero would always have passed.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
/// Shorter ones would have whoever waits look all the time.
pub(crate) const PROGRESS: Duration = Duration::from_millis(100);
const PORT: RangeInclusive<u64> = 0..=65_535;

/// Whose a token is when nobody says so.
const DEFAULT_USER: &str = "default";

/// Reads the settings of the server from `file`, if there is one, and what `environment` and `overrides` lay over it.
///
/// # Errors
/// [`ConfigError`] with all that is wrong.
pub fn load_server(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &ServerOverrides,
) -> Result<Loaded<Settings>, ConfigError> {
    let variables = Variables::new(environment);
    let (mut root, mut found) = gather(file, &variables, "server")?;
    let laid = overrides.lay_over(&mut root);
    found.extend(laid.err().map(|error| within(error, file)));
    read_all(root, found, |root| {
        read(root, file, &variables, overrides).map_err(|error| within(error, file))
    })
}

fn read(
    root: &Node,
    file: Option<&Path>,
    variables: &Variables,
    overrides: &ServerOverrides,
) -> Result<Loaded<Settings>, ConfigError> {
    let mut server = side(root, "server", "client")?;
    let bind_addr = match server.item("bind_addr") {
        Some(item) => ip(&item)?,
        None => Ipv4Addr::LOCALHOST.into(),
    };
    let (mut bind_port, mut http_port) = (7000_u16, 7080_u16);
    server.set_number("bind_port", PORT, &mut bind_port)?;
    let mut max_clients = 1_000_usize;
    server.set_number("max_clients", COUNT, &mut max_clients)?;
    let mut http = server.section("http")?;
    http.set_number("bind_port", PORT, &mut http_port)?;
    http.finish(&vocabulary::HTTP)?;
    let trusted_proxies = trusted_proxies(&mut server)?;
    let public_url = public_url(server.section("public_url")?)?;
    let admin = admin(&mut server, SocketAddr::from((Ipv4Addr::LOCALHOST, 7500)))?;
    let admin_addr = admin.addr;
    let mut warnings = variables.misspelt();
    let tokens = tokens(&mut server, file, variables, &mut warnings)?;
    let shared_groups = shared_groups(&mut server, &tokens)?;
    let limits = limits(&mut server.section("limits")?)?;
    let timeouts = timeouts(&mut server.section("timeouts")?)?;
    let mut threads = default_threads();
    server.set_number("threads", THREADS, &mut threads)?;
    let domain = server
        .item("domain")
        .map(|item| host_name(&item, "visitors' port is `http.bind_port`"))
        .transpose()?;
    let upstreams = match server.item("upstreams") {
        Some(item) => upstream::read_all(&item, file)?,
        None => Vec::new(),
    };
    let rules = rules(&mut server, &upstreams)?;
    let state_dir = match server.item("state_dir") {
        Some(item) => Some(path(&item, file)?),
        None => None,
    };
    let telemetry = telemetry::read(&mut server, file, "adit-server")?;
    server.finish(&vocabulary::SERVER)?;

    let tunnel_addr = SocketAddr::new(bind_addr, bind_port);
    let http_addr = SocketAddr::new(bind_addr, http_port);
    if bind_port != 0 && tunnel_addr == http_addr {
        return Err(server.conflict(
            &["http", "bind_port"],
            format!("clients and visitors cannot share port {bind_port}"),
        ));
    }
    if let Some(admin) = admin_addr
        && admin.port() != 0
        && [tunnel_addr, http_addr].contains(&admin)
    {
        return Err(server.conflict(
            &["admin", "bind_port", "http"],
            format!("{admin} is taken by clients or visitors, and cannot serve status too"),
        ));
    }
    let state_dir = StateDir::choose(overrides.state_dir.as_deref(), state_dir, variables);
    let settings = Settings {
        tunnel_addr,
        http_addr,
        admin_addr,
        max_clients,
        threads,
        domain,
        tokens,
        shared_groups,
        state_dir: state_dir.path().to_path_buf(),
        trusted_proxies,
        public_url,
        limits,
        timeouts,
        rules,
        upstreams,
    };
    Ok(Loaded {
        settings,
        telemetry,
        admin_hosts: admin.hosts,
        warnings,
    })
}

fn ip(item: &Item<'_>) -> Result<IpAddr, ConfigError> {
    const WHAT: &str = "an IP address such as 0.0.0.0, 127.0.0.1 or ::";
    let text = item.text(WHAT)?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare.unwrap_or(text).parse() {
        Ok(ip) => Ok(ip),
        Err(_) => item.parse_as(WHAT),
    }
}

/// `admin` of either side.
pub(crate) struct AdminPort {
    /// An address with port, a port on loopback, or `off`.
    pub(crate) addr: Option<SocketAddr>,
    /// Names under which it answers.
    pub(crate) hosts: Vec<String>,
}

pub(crate) fn admin(
    section: &mut Section<'_>,
    default: SocketAddr,
) -> Result<AdminPort, ConfigError> {
    let mut admin = section.section("admin")?;
    let addr = match admin.item("bind") {
        None => Some(default),
        Some(item) if item.is_off() => None,
        Some(item) => Some(match item.number::<u16>(PORT) {
            Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Err(_) => item.parse_as("an address with port such as 127.0.0.1:7500, or off")?,
        }),
    };
    let mut hosts = Vec::new();
    if let Some(item) = admin.item("allowed_hosts") {
        for item in item.one_or_more("host names")? {
            hosts.push(host_name(&item, "the port is that of `bind`")?);
        }
    }
    admin.finish(&vocabulary::ADMIN)?;
    Ok(AdminPort { addr, hosts })
}

/// A host name without a wildcard. `rest` says where a path or a port belongs.
fn host_name(item: &Item<'_>, rest: &str) -> Result<String, ConfigError> {
    let pattern = host_pattern(item, rest)?;
    if pattern.is_wildcard() {
        return Err(item
            .error("expected a host name without a wildcard")
            .with_help(format!("write {}", pattern.name())));
    }
    Ok(pattern.name().to_owned())
}

/// `auth`: one method or a list of them. `ADIT__TOKEN` is the token of the user `default`, whatever the file says; with
/// neither there are none, and the server makes a token.
fn tokens(
    server: &mut Section<'_>,
    file: Option<&Path>,
    variables: &Variables,
    warnings: &mut Vec<String>,
) -> Result<Vec<NamedToken>, ConfigError> {
    let mut tokens = Vec::new();
    let auth = server.item("auth");
    if let Some(item) = &auth {
        for item in item.one_or_more("methods")? {
            tokens.extend(method_token(&mut item.section()?, file, warnings)?);
        }
    }
    if let Some(text) = variables.value("ADIT__TOKEN") {
        let is_default = |token: &NamedToken| token.user == DEFAULT_USER;
        if tokens.is_empty() || tokens.iter().any(is_default) {
            let refused = |problem: String| {
                ConfigError::new(Origin::Variable("ADIT__TOKEN".to_owned()), "", problem)
            };
            tokens.retain(|token| !is_default(token));
            tokens.push(NamedToken {
                user: DEFAULT_USER.to_owned(),
                token: long_enough(token::good(text).map_err(refused)?).map_err(refused)?,
            });
        } else {
            warnings.push(format!(
                "ADIT__TOKEN is ignored: it is the token of the user `{DEFAULT_USER}`, and server.auth names others"
            ));
        }
    }
    if !tokens.is_empty() {
        let origin = auth.map_or(Origin::Default, |item| item.origin().clone());
        let known = tokens
            .iter()
            .map(|named| UserName::parse(&named.user).map(|user| (user, named.token.clone())));
        let refused = |message: String| {
            ConfigError::new(origin.clone(), "server.auth", message).of_kind(Kind::Together)
        };
        let known: Vec<(UserName, SecretString)> = known
            .collect::<Result<_, _>>()
            .map_err(|error| refused(error.to_string()))?;
        TokenAuthenticator::new(known).map_err(|error| refused(error.to_string()))?;
    }
    Ok(tokens)
}

/// Refuses a token that can be guessed.
fn long_enough(token: SecretString) -> Result<SecretString, String> {
    if token.expose_secret().len() < MIN_TOKEN_BYTES {
        return Err(format!(
            "the token is shorter than {MIN_TOKEN_BYTES} characters and can be guessed, expected a long random one"
        ));
    }
    Ok(token)
}

fn method_token(
    auth: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<NamedToken>, ConfigError> {
    if let Some(item) = auth.item("method") {
        match item.text("`token`")? {
            "token" => {}
            method @ ("jwt" | "api_key" | "mtls") => {
                return Err(item
                    .error(format!(
                        "`method: {method}` is not supported by this version"
                    ))
                    .with_help("this version knows clients by token"));
            }
            _ => return Err(item.error("unknown method, expected `token`")),
        }
    }
    let user = match auth.item("user") {
        Some(item) => item.parse::<UserName>("a user name")?.as_str().to_owned(),
        None => DEFAULT_USER.to_owned(),
    };
    let text = auth.item("token");
    let file_item = auth.item("token_file");
    auth.finish(&NOTHING)?;
    let token = match (text, file_item) {
        (Some(_), Some(_)) => {
            return Err(auth.conflict(&["token_file"], "expected either `token` or `token_file`"));
        }
        (Some(item), None) => {
            let refused = |problem: String| item.error(problem);
            let token = token::good(item.secret("a token")?).map_err(refused)?;
            Some(long_enough(token).map_err(refused)?)
        }
        (None, Some(item)) => {
            let refused = |problem: String| item.error(problem);
            let token = token::read_file(&path(&item, file)?, warnings).map_err(refused)?;
            Some(long_enough(token).map_err(refused)?)
        }
        (None, None) => None,
    };
    Ok(token.map(|token| NamedToken { user, token }))
}

/// `shared_groups`: groups that several users share, each once, of users that there are.
fn shared_groups(
    server: &mut Section<'_>,
    tokens: &[NamedToken],
) -> Result<Vec<SharedGroup>, ConfigError> {
    let mut groups: Vec<SharedGroup> = Vec::new();
    let Some(item) = server.item("shared_groups") else {
        return Ok(groups);
    };
    let is_known = |user: &UserName| {
        let user = user.as_str();
        // Without a token the server makes one, for this user.
        (tokens.is_empty() && user == DEFAULT_USER) || tokens.iter().any(|known| known.user == user)
    };
    for item in item.list("groups")? {
        let mut section = item.section()?;
        let (group, users) = (section.item("group"), section.item("users"));
        section.finish(&NOTHING)?;
        let group_item = group.ok_or_else(|| section.missing("group", "the name of a group"))?;
        let group: GroupId = group_item.parse("the name of a group")?;
        if groups.iter().any(|known| known.group == group) {
            return Err(group_item.error(format!("the group {group} is listed twice")));
        }
        let list = users.ok_or_else(|| section.missing("users", "a list of users"))?;
        let mut users = Vec::new();
        for item in list.one_or_more("users")? {
            let user: UserName = item.parse("the name of a user")?;
            if !is_known(&user) {
                return Err(item
                    .error(format!("there is no user called {user}"))
                    .with_help("give the user a token in `server.auth`"));
            }
            users.push(user);
        }
        groups.push(SharedGroup { group, users });
    }
    Ok(groups)
}

fn limits(section: &mut Section<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    section.set_number("max_requests", COUNT, &mut limits.max_requests)?;
    section.set_number(
        "max_requests_per_client",
        COUNT,
        &mut limits.max_requests_per_client,
    )?;
    section.set_number("max_waiting", 0..=*COUNT.end(), &mut limits.max_waiting)?;
    section.set_number("tunnel_share", SHARE, &mut limits.tunnel_share_percent)?;
    section.set_number("visitor_share", SHARE, &mut limits.visitor_share_percent)?;
    section.set_size("min_rate", RATE, &mut limits.min_rate_bytes_per_sec)?;
    section.set_number("max_connections", COUNT, &mut limits.max_connections)?;
    section.set_number(
        "max_tcp_connections",
        COUNT,
        &mut limits.max_tcp_connections,
    )?;
    section.set_number("max_udp_flows", COUNT, &mut limits.max_udp_flows)?;
    if let Some(item) = section.item("allow_ports") {
        limits.allow_ports = ports(&item)?;
    }
    if let Some(item) = section.item("allow_hosts") {
        limits.allow_hosts = hosts(&item)?;
    }
    section.set_number(
        "max_unauthenticated",
        COUNT,
        &mut limits.max_unauthenticated,
    )?;
    section.set_number(
        "max_unauthenticated_per_address",
        COUNT,
        &mut limits.max_unauthenticated_per_address,
    )?;
    section.set_number(
        "max_tunnels_per_client",
        COUNT,
        &mut limits.max_tunnels_per_client,
    )?;
    for (key, slot) in [
        ("max_domains_per_tunnel", &mut limits.max_domains_per_tunnel),
        (
            "max_locations_per_tunnel",
            &mut limits.max_locations_per_tunnel,
        ),
        ("max_routes_per_tunnel", &mut limits.max_routes_per_tunnel),
        ("max_routes", &mut limits.max_routes),
        (
            "max_kept_names_per_user",
            &mut limits.max_kept_names_per_user,
        ),
    ] {
        section.set_number(key, COUNT, slot)?;
    }
    section.set_size(
        "max_location_bytes",
        LOCATION,
        &mut limits.max_location_bytes,
    )?;
    section.set_number("max_lanes", LANES, &mut limits.max_lanes)?;
    section.set_size("initial_window", WINDOW, &mut limits.initial_window_bytes)?;
    section.set_size("max_window", WINDOW, &mut limits.max_window_bytes)?;
    section.set_size("link_budget", BUDGET, &mut limits.link_budget_bytes)?;
    section.set_size("process_budget", BUDGET, &mut limits.process_budget_bytes)?;
    section.set_size("turn", TURN, &mut limits.turn_bytes)?;
    section.finish(&vocabulary::SERVER_LIMITS)?;
    if u64::from(limits.initial_window_bytes) > limits.max_window_bytes {
        return Err(section
            .conflict(
                &["initial_window", "max_window"],
                format!(
                    "initial_window ({}) is larger than max_window ({})",
                    bytesize::ByteSize(limits.initial_window_bytes.into()),
                    bytesize::ByteSize(limits.max_window_bytes)
                ),
            )
            .with_help("lower the one or raise the other"));
    }
    Ok(limits)
}

/// `[2222, "5000-5100"]`, or all of it in one text: `2222, 5000-5100`. An empty list is none.
fn ports(item: &Item<'_>) -> Result<PortRanges, ConfigError> {
    let mut ranges = Vec::new();
    for item in item.one_or_more("ports")? {
        let Ok(text) = item.text(PORTS) else {
            let port = item.number::<u16>(1..=65_535)?;
            ranges.push(port..=port);
            continue;
        };
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let port = |text: &str| text.trim().parse().ok().filter(|port| *port != 0);
            match (port(first), port(last)) {
                (Some(first), Some(last)) if first <= last => ranges.push(first..=last),
                _ => {
                    return Err(item.error(format!("expected {PORTS}, found {part:?}")));
                }
            }
        }
    }
    Ok(PortRanges::new(ranges))
}

/// `["*", "*.apps.example.net", shop.example.com]`, or all of it in one text. `*` is every exact name.
fn hosts(item: &Item<'_>) -> Result<HostRules, ConfigError> {
    let mut rules = HostRules {
        any_name: false,
        patterns: Vec::new(),
    };
    for item in item.one_or_more("hosts")? {
        for part in item
            .text("a host, *.HOST, or * for every exact name")?
            .split(',')
        {
            match part.trim() {
                "*" => rules.any_name = true,
                part => {
                    let pattern = part.parse::<HostPattern>();
                    let pattern = pattern.map_err(|error| item.error(error.to_string()))?;
                    rules.patterns.push(pattern);
                }
            }
        }
    }
    Ok(rules)
}

const PORTS: &str = "a port such as 2222 or a range such as \"5000-5100\"";

fn timeouts(section: &mut Section<'_>) -> Result<Timeouts, ConfigError> {
    let mut times = Timeouts::default();
    let none = Duration::ZERO;
    section.set_wait("startup_grace", none, &mut times.startup_grace)?;
    section.set_wait("client_wait", none, &mut times.client_wait)?;
    section.set_wait("permit_wait", none, &mut times.permit_wait)?;
    section.set_wait("dial", SHORTEST, &mut times.dial)?;
    section.set_wait("service", SHORTEST, &mut times.service)?;
    section.set_wait("stall", SHORTEST, &mut times.stall)?;
    section.set_wait("shortage_grace", SHORTEST, &mut times.shortage_grace)?;
    section.set_wait("head", SHORTEST, &mut times.head)?;
    section.set_wait("idle", SHORTEST, &mut times.idle)?;
    section.set_wait("session_stall", SHORTEST, &mut times.session_stall)?;
    section.set_wait("session_setup", SHORTEST, &mut times.session_setup)?;
    section.set_wait("session_keepalive", none, &mut times.session_keepalive)?;
    section.set_wait("session_close", SHORTEST, &mut times.session_close)?;
    section.set_wait("early_answer", PROGRESS, &mut times.early_answer)?;
    section.set_wait("continue_wait", none, &mut times.continue_wait)?;
    section.set_wait("half_close", SHORTEST, &mut times.half_close)?;
    section.set_wait("release", SHORTEST, &mut times.release)?;
    section.set_wait("setup", SHORTEST, &mut times.setup)?;
    section.set_wait("takeover_probe", SHORTEST, &mut times.takeover_probe)?;
    section.set_wait("heartbeat", SHORTEST, &mut times.heartbeat)?;
    section.set_wait("dead_after", SHORTEST, &mut times.dead_after)?;
    section.set_wait("drain", none, &mut times.drain)?;
    section.set_wait("tunnel_retention", none, &mut times.tunnel_retention)?;
    section.finish(&NOTHING)?;
    if times.dead_after <= times.heartbeat {
        return Err(section
            .conflict(
                &["dead_after", "heartbeat"],
                format!(
                    "dead_after ({:?}) is not longer than heartbeat ({:?}): every quiet link would be found dead",
                    times.dead_after, times.heartbeat
                ),
            )
            .with_help("three times the heartbeat leaves room for a lost probe"));
    }
    Ok(times)
}

fn rules(
    server: &mut Section<'_>,
    upstreams: &[UpstreamSettings],
) -> Result<Vec<RuleSettings>, ConfigError> {
    let Some(item) = server.item("rules") else {
        return Ok(Vec::new());
    };
    let (mut settings, mut rules) = (Vec::new(), Vec::new());
    for rule in item.list("rules")? {
        let rule = read_rule(&mut rule.section()?, upstreams)?;
        settings.push(RuleSettings {
            host: rule.host.as_ref().map(ToString::to_string),
            path: rule.path.as_ref().map(ToString::to_string),
            headers: rule
                .headers
                .iter()
                .map(|header| (header.name().to_owned(), header.value().to_owned()))
                .collect(),
            grpc: rule.grpc.as_ref().map(ToString::to_string),
            to: rule.target.clone(),
        });
        rules.push(rule);
    }
    // The table knows best which rules cannot stand side by side.
    Table::try_new(rules).map_err(|error| item.conflict(error.to_string()))?;
    Ok(settings)
}

fn read_rule(
    section: &mut Section<'_>,
    upstreams: &[UpstreamSettings],
) -> Result<Rule<RuleTarget>, ConfigError> {
    let mut rule = Rule::new(RuleTarget::Tunnel(String::new()));
    if let Some(item) = section.item("host") {
        rule.host = Some(host_pattern(
            &item,
            "a path belongs into `path`, and the port does not count",
        )?);
    }
    if let Some(item) = section.item("path") {
        rule.path = Some(item.parse::<PathPrefix>("a path prefix such as /api")?);
    }
    if let Some(item) = section.item("header") {
        for (name, value) in item.section()?.pairs() {
            let header = HeaderMatch::try_new(name, value.text("the value of a header")?)
                .map_err(|error| value.error(error.to_string()))?;
            rule.headers.push(header);
        }
    }
    if let Some(item) = section.item("grpc") {
        rule.grpc = Some(item.parse::<GrpcPattern>("a gRPC service or method")?);
    }
    let mut to = section.section("to")?;
    section.finish(&vocabulary::RULE)?;
    let tunnel = match to.item("tunnel") {
        Some(item) => Some(item.parse::<TunnelName>("the name of a tunnel")?),
        None => None,
    };
    let upstream = match to.item("upstream") {
        Some(item) => Some(upstream_of(&item, upstreams)?),
        None => None,
    };
    to.finish(&vocabulary::RULE_TARGET)?;
    rule.target = match (tunnel, upstream) {
        (Some(tunnel), None) => RuleTarget::Tunnel(tunnel.as_str().to_owned()),
        (None, Some(upstream)) => RuleTarget::Upstream(upstream),
        (None, None) => {
            let what = "`to: { tunnel: NAME }` or `to: { upstream: NAME }`";
            return Err(section.missing("to", what));
        }
        (Some(_), Some(_)) => {
            return Err(to.conflict(&["upstream"], "expected either `tunnel` or `upstream`"));
        }
    };
    Ok(rule)
}

/// An upstream that rules may lead to: rules choose by what only HTTP says.
fn upstream_of(item: &Item<'_>, upstreams: &[UpstreamSettings]) -> Result<String, ConfigError> {
    let name = upstream::name_of(item, "upstream name")?;
    match upstreams.iter().find(|upstream| upstream.name == name) {
        None => Err(item
            .conflict(format!("there is no upstream called {name}"))
            .with_help("define it in `server.upstreams`")),
        Some(upstream) if upstream.protocol == UpstreamProtocol::Tcp => Err(item.error(format!(
            "the upstream {name} speaks TCP, and rules are for HTTP"
        ))),
        Some(_) => Ok(name.as_str().to_owned()),
    }
}
