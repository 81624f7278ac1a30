//! Keys that this version does not have: keys of planned capabilities, and keys of frp and ngrok that have another name
//! in adit.
//!
//! Keys that differ only in case and underscores (`localPort`) need no entry in these lists.

use crate::spelling::same_letters;

/// Known keys of a section besides those that it reads.
pub(crate) struct KeyNames {
    /// Keys of planned capabilities.
    pub(crate) unsupported: &'static [&'static str],
    /// A key of another program, and the name in adit.
    pub(crate) foreign_keys: &'static [(&'static str, &'static str)],
}

impl KeyNames {
    /// The replacement for a key of another program.
    pub(crate) fn suggestion(&self, key: &str) -> Option<String> {
        self.foreign_keys
            .iter()
            .find(|(theirs, _)| same_letters(theirs, key))
            .map(|(_, ours)| format!("adit calls it {ours}"))
    }
}

/// The names for a section without other known keys.
pub(crate) const NO_OTHER_KEYS: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[],
};

pub(crate) const TELEMETRY: KeyNames = KeyNames {
    unsupported: &["alerts"],
    foreign_keys: &[
        ("log", "`access_log` and `error_log`"),
        ("logs", "`access_log` and `error_log`"),
        ("otlp", "`tracing`"),
        ("prometheus", "`metrics`"),
        ("traces", "`tracing`"),
    ],
};

/// The top level of a file, where frp has no sections.
pub(crate) const ROOT: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("auth", "`server.auth`, and on a client `client.auth_token`"),
        ("auth_token", "`client.auth_token`"),
        ("authtoken", "`client.auth_token`"),
        ("agent", "`client`"),
        ("bind_addr", "`server.bind_addr`"),
        ("bind_port", "`server.bind_port`"),
        ("client_id", "`client.client_id`"),
        ("common", "`server` or `client`"),
        ("domain", "`server.domain`"),
        ("endpoints", "`client.tunnels`"),
        ("group_id", "`client.group_id`"),
        ("http", "`server.http`"),
        ("proxies", "`client.tunnels`"),
        ("server_addr", "`client.server_addr`"),
        ("server_host", "`client.server_addr`"),
        ("server_port", "`client.server_port`"),
        ("subdomain_host", "`server.domain`"),
        (
            "token",
            "`server.auth.token`, and on a client `client.auth_token`",
        ),
        ("tunnels", "`client.tunnels`"),
        ("vhost_http_port", "`server.http.bind_port`"),
    ],
};

pub(crate) const SERVER: KeyNames = KeyNames {
    unsupported: &["database"],
    foreign_keys: &[
        ("auth_token", "`auth.token`"),
        ("allow_hosts", "`limits.allow_hosts`"),
        ("allow_ports", "`limits.allow_ports`"),
        ("authtoken", "`auth.token`"),
        ("dashboard_addr", "`admin.bind`"),
        ("dashboard_port", "`admin.bind`"),
        ("http_port", "`http.bind_port`"),
        ("https_port", "`https.bind_port`"),
        ("listen", "`bind_addr` and `bind_port`"),
        ("max_ports_per_client", "`limits.max_tunnels_per_client`"),
        ("port", "`bind_port`"),
        ("subdomain_host", "`domain`"),
        ("token", "`auth.token`"),
        ("vhost_http_port", "`http.bind_port`"),
        ("vhost_https_port", "`https.bind_port`"),
        ("vhost_http_timeout", "`timeouts.service`"),
        ("web_server", "`admin.bind`"),
    ],
};

pub(crate) const HTTP: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("addr", "`server.bind_addr`, for clients and visitors alike"),
        (
            "bind_addr",
            "`server.bind_addr`, for clients and visitors alike",
        ),
        ("port", "`bind_port`"),
    ],
};

pub(crate) const HTTPS: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("addr", "`server.bind_addr`, for clients and visitors alike"),
        (
            "bind_addr",
            "`server.bind_addr`, for clients and visitors alike",
        ),
        ("cert", "`cert_file`"),
        ("crt_path", "`cert_file`"),
        ("key", "`key_file`"),
        ("key_path", "`key_file`"),
        ("port", "`bind_port`"),
        ("tls", "`cert_file` and `key_file`"),
    ],
};

pub(crate) const ADMIN: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("addr", "`bind`"),
        ("bind_addr", "`bind`, with address and port"),
        ("bind_port", "`bind`, with address and port"),
        ("listen", "`bind`"),
        ("port", "`bind`, with address and port"),
    ],
};

pub(crate) const SERVER_LIMITS: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("bandwidth", "`max_bandwidth`"),
        ("bandwidth_limit", "`max_bandwidth`"),
        ("max_clients", "`server.max_clients`"),
        ("max_ports_per_client", "`max_tunnels_per_client`"),
    ],
};

/// `limits.per_client`: what all clients have beside it.
pub(crate) const CLIENT_TRAFFIC: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("max_bandwidth", "`server.limits.max_bandwidth`"),
        (
            "max_running_requests",
            "`server.limits.max_requests_per_client`",
        ),
        ("max_tunnels", "`server.limits.max_tunnels_per_client`"),
    ],
};

pub(crate) const TUNNEL_TRAFFIC: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("bandwidth", "`max_bandwidth`"),
        (
            "max_tunnels",
            "`max_tunnels` in `per_user`, or `server.limits.max_tunnels_per_client`",
        ),
    ],
};

pub(crate) const TRAFFIC: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[("bandwidth", "`max_bandwidth`"), ("user", "`name`")],
};

pub(crate) const CLIENT_CERTIFICATES: KeyNames = KeyNames {
    unsupported: &["crl_file"],
    foreign_keys: &[
        ("ca_file", "`server.tls.client_ca_file`"),
        ("client_ca_file", "`server.tls.client_ca_file`"),
        ("scopes", "`scopes` of each of `users`"),
        ("user", "`users`, a list"),
        ("username_from", "`user_from`"),
    ],
};

pub(crate) const ISSUER: KeyNames = KeyNames {
    unsupported: &["discovery", "oidc_issuer"],
    foreign_keys: &[
        ("alg", "`algorithm`"),
        ("aud", "`audience`"),
        ("audiences", "`audience`"),
        ("clock_skew", "`leeway`"),
        ("iss", "`issuer`"),
        ("jwks_ca_file", "`ca_file`"),
        ("jwks_uri", "`jwks_url`"),
        ("public_key_file", "`key_file`"),
        ("subject_claim", "`user_claim`"),
    ],
};

pub(crate) const SCOPES: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("allow_hosts", "`hosts`"),
        ("allow_ports", "`ports`"),
        ("client_ids", "`clients`"),
        ("domains", "`hosts`"),
        ("ips", "`addresses`"),
    ],
};

pub(crate) const RULE: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("domain", "`host`"),
        ("headers", "`header`"),
        ("location", "`path`"),
        ("tunnel", "`to: { tunnel: NAME }`"),
        ("upstream", "`to`"),
    ],
};

pub(crate) const RULE_TARGET: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[],
};

pub(crate) const CLIENT: KeyNames = KeyNames {
    unsupported: &["database"],
    foreign_keys: &[
        ("auth", "`auth_token`"),
        ("authtoken", "`auth_token`"),
        ("endpoints", "`tunnels`"),
        ("group", "`group_id`"),
        ("login_fail_exit", "`reconnect.max_retries`"),
        ("proxies", "`tunnels`"),
        ("remote_addr", "`server_addr` and `server_port`"),
        ("server", "`server_addr` and `server_port`"),
        ("server_host", "`server_addr`"),
        ("services", "`tunnels`"),
        ("token", "`auth_token`"),
        ("token_file", "`auth_token_file`"),
        ("user", "`client_id`"),
        (
            "upstreams",
            "`entries`; the upstreams are defined by the server",
        ),
        ("visitors", "`entries`"),
    ],
};

pub(crate) const ENTRY: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("addr", "`listen`"),
        ("bind", "`listen`, with address and port"),
        ("bind_addr", "`listen`, with address and port"),
        ("bind_port", "`listen`, with address and port"),
        ("local_port", "`listen`, with address and port"),
        ("port", "`listen`, with address and port"),
        ("proto", "`type`"),
        ("protocol", "`type`"),
        ("server_name", "`upstream`"),
        ("to", "`upstream`"),
    ],
};

pub(crate) const UPSTREAM: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("addresses", "`servers`"),
        ("backends", "`servers`"),
        ("load_balance", "`policy`"),
        ("targets", "`servers`"),
        ("type", "`protocol`"),
    ],
};

pub(crate) const UPSTREAM_SERVER: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("addr", "`address`, with host and port"),
        ("host", "`address`, with host and port"),
        ("port", "`address`, with host and port"),
        ("url", "`address`, with host and port"),
    ],
};

/// TLS of the server's port for clients.
pub(crate) const SERVER_TLS: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("ca_file", "`client_ca_file`"),
        ("cert", "`cert_file`"),
        ("certificate", "`cert_file`"),
        ("crt", "`cert_file`"),
        ("key", "`key_file`"),
        ("trusted_ca_file", "`client_ca_file`"),
    ],
};

/// TLS of the client's connections to the server.
pub(crate) const CLIENT_TLS: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("ca", "`ca_file`"),
        ("ca_cert", "`ca_file`"),
        ("cert", "`cert_file`"),
        ("crt", "`cert_file`"),
        ("fingerprint", "`ca_fingerprint`"),
        (
            "insecure",
            "`ca_fingerprint`, which accepts one CA and no other",
        ),
        ("key", "`key_file`"),
        ("name", "`server_name`"),
        ("sni", "`server_name`"),
        ("trusted_ca_file", "`ca_file`"),
    ],
};

/// TLS towards a service.
pub(crate) const SERVICE_TLS: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("ca", "`ca_file`"),
        ("ca_cert", "`ca_file`"),
        ("insecure_skip_verify", "`insecure`"),
        ("name", "`server_name`"),
        ("skip_verify", "`insecure`"),
        ("sni", "`server_name`"),
        ("trusted_ca_file", "`ca_file`"),
        ("verify", "`insecure`, with the opposite value"),
    ],
};

pub(crate) const RECONNECT: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("backoff", "`backoff_factor`"),
        ("interval", "`initial_delay`"),
        ("jitter", "`enable_jitter`"),
        ("multiplier", "`backoff_factor`"),
        ("retry_interval", "`initial_delay`"),
    ],
};

pub(crate) const TUNNEL: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        (
            "addr",
            "`local_port`, and `local_addr` when the service is on another machine",
        ),
        ("backend_tls", "`local_tls`"),
        (
            "crt",
            "`server.https.certificates`, on the server, or `ssl_cert: auto`",
        ),
        ("group", "`client.group_id`"),
        ("headers", "`custom_headers`"),
        ("host", "`domain`"),
        ("host_header", "`host_rewrite`"),
        ("hostname", "`domain`"),
        ("local_host", "`local_addr`"),
        ("local_ip", "`local_addr`"),
        ("path", "`locations`"),
        ("port", "`local_port`"),
        ("proto", "`type`"),
        ("protocol", "`type`"),
        ("proxy_protocol_version", "`proxy_protocol`"),
        ("request_header", "`custom_headers`"),
        ("request_headers", "`custom_headers`"),
        ("subdomain", "`domain`, with the whole name"),
        ("tls", "`local_tls`, for the way to the service"),
        ("upstream", "`local_port` and `local_addr`"),
        ("url", "`domain`"),
        ("use_compression", "`compression`, with `gzip` or `zstd`"),
    ],
};

/// The keys of an item of `layers`.
pub(crate) const LAYER: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("custom_request_headers", "`request_headers`"),
        ("custom_response_headers", "`response_headers`"),
        ("basicauth", "`basic_auth`"),
        ("bearer_token", "`header_token`"),
        ("direct_response", "`respond`"),
        ("error_pages", "`server.error_pages`"),
        ("handle_errors", "`server.error_pages`"),
        ("header_down", "`response_headers`"),
        ("header_up", "`request_headers`"),
        ("headers", "`request_headers` and `response_headers`"),
        ("ip_allow_list", "`ip: { allow: [NETWORK] }`"),
        ("ip_restriction", "`ip: { allow: [NETWORK] }`"),
        ("ip_rules", "`ip: { allow: [NETWORK], deny: [NETWORK] }`"),
        ("fail2ban", "`ban`"),
        ("maintenance", "`respond`"),
        ("ratelimit", "`rate_limit`"),
        ("redir", "`redirect`"),
        ("redirect_scheme", "`redirect: { scheme: https }`"),
        (
            "remove_request_headers",
            "`request_headers: { remove: [NAME] }`",
        ),
        (
            "remove_response_headers",
            "`response_headers: { remove: [NAME] }`",
        ),
        (
            "set_request_headers",
            "`request_headers: { set: { NAME: value } }`",
        ),
        (
            "set_response_headers",
            "`response_headers: { set: { NAME: value } }`",
        ),
        ("static_response", "`respond`"),
    ],
};

/// Networks of visitors.
pub(crate) const IP_RULES: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("allow_cidrs", "`allow`"),
        ("block", "`deny`"),
        ("deny_cidrs", "`deny`"),
        ("source_range", "`allow`"),
    ],
};

/// Users of a layer.
pub(crate) const BASIC_AUTH: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        (
            "credentials",
            "`users: [{ name: NAME, password: PASSWORD }]`",
        ),
        ("remove_header", "`keep: false`, which is the default"),
    ],
};

/// A user of a layer.
pub(crate) const BASIC_USER: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("password_hash", "`hash`"),
        ("user", "`name`"),
        ("username", "`name`"),
    ],
};

/// Tokens of a layer.
pub(crate) const HEADER_TOKEN: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[("token", "`tokens`"), ("values", "`tokens`")],
};

/// Rates of a layer.
pub(crate) const RATE_LIMIT: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("average", "`requests`, such as `10/s`"),
        ("capacity", "`burst`"),
        ("rate", "`requests`, such as `10/s`"),
    ],
};

/// Bans.
pub(crate) const BAN: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("bantime", "`duration`"),
        ("findtime", "`within`"),
        ("maxretry", "`after`"),
    ],
};

/// Providers of forward auth.
pub(crate) const FORWARD_AUTH: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("address", "`url`"),
        ("auth_request_headers", "`send_headers`"),
        ("auth_response_headers", "`copy_headers`"),
        ("uri", "`url`"),
    ],
};

/// Pages for error responses.
pub(crate) const ERROR_PAGE: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("body_file", "`html_file` or `json_file`"),
        ("code", "`status`"),
        ("file", "`html_file` or `json_file`"),
    ],
};

/// Changes of headers.
pub(crate) const HEADER_EDIT: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("append", "`add`"),
        ("delete", "`remove`"),
        ("replace", "`set`"),
    ],
};

pub(crate) const REQUIRED_HEADER: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("header", "`name`"),
        ("token", "`values`"),
        ("tokens", "`values`"),
        ("value", "`values`"),
    ],
};

pub(crate) const REDIRECT: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("code", "`status`"),
        ("permanent", "`status: 308`, which is the default"),
        ("to", "`scheme` and `host`; path and query stay"),
        ("url", "`scheme` and `host`; path and query stay"),
    ],
};

pub(crate) const RESPOND: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[
        ("code", "`status`"),
        ("content_type", "`headers: { content-type: TYPE }`"),
        ("file", "`body_file`"),
        ("status_code", "`status`"),
        ("text", "`body`"),
    ],
};

/// The names for the keys beside `config`.
pub(crate) const NESTED_TUNNEL: KeyNames = KeyNames {
    unsupported: TUNNEL.unsupported,
    foreign_keys: &[
        ("custom_domains", "`config.custom_domains`"),
        ("domain", "`config.domain`"),
        ("local_addr", "`config.local_addr`"),
        ("local_port", "`config.local_port`"),
        ("remote_port", "`config.remote_port`"),
        ("ssl_cert", "`config.ssl_cert`"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_others_is_found_in_any_spelling() {
        let response = |key| SERVER.suggestion(key);
        assert_eq!(
            response("vhostHTTPPort").as_deref(),
            Some("adit calls it `http.bind_port`")
        );
        assert_eq!(response("vhost_http_port"), response("vhostHTTPPort"));
        assert_eq!(response("bind_port"), None);
    }
}
