//! Access layers: what one list says about a visitor, and what several lists do (section 15 of the protocol).

use std::{sync::Arc, time::Duration};

use adit_ingress::{
    Direction, Layers,
    layers::{
        Access, AccessBounds, AccessConfig, AccessRule, BanRule, BasicAuth, HeaderToken, IpRules,
        LayerConfig, LayerList, PasswordHash, RateLimit, TokenHash,
    },
};
use adit_testlink::{HttpEntry, Link, Route, exchanges::hello, http_config, http1};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const TOKEN: &str = "a token of the test";
const GOOD_TOKEN: &str = "adit-access-token: a token of the test\r\n";
const BAD_TOKEN: &str = "adit-access-token: another token of the test\r\n";
/// `alice:correct horse` and `alice:wrong horse`.
const GOOD_USER: &str = "authorization: Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==\r\n";
const BAD_USER: &str = "authorization: Basic YWxpY2U6d3JvbmcgaG9yc2U=\r\n";

const REQUIRED: (bool, bool) = (true, false);
const SUFFICIENT: (bool, bool) = (true, true);
const DRY_SUFFICIENT: (bool, bool) = (false, true);
const DRY: (bool, bool) = (false, false);

fn layer(rule: AccessRule, (enforce, sufficient): (bool, bool)) -> LayerConfig {
    LayerConfig::Access(AccessConfig::new(rule, enforce, sufficient).unwrap())
}

/// Admits this machine, or nobody of it.
fn allow(here: bool) -> AccessRule {
    let network = if here { "127.0.0.0/8" } else { "192.0.2.0/24" };
    AccessRule::Ip(IpRules::new(vec![network.parse().unwrap()], Vec::new()).unwrap())
}

fn users() -> AccessRule {
    let hash = PasswordHash::of_user("alice", "correct horse").unwrap();
    let users = vec![("alice".to_owned(), hash)];
    AccessRule::BasicAuth(BasicAuth::new(users, "office", false).unwrap())
}

fn token() -> AccessRule {
    let token = TokenHash::of(TOKEN).unwrap();
    AccessRule::HeaderToken(HeaderToken::new(vec![token], false).unwrap())
}

fn ban(after: u32) -> AccessRule {
    let minute = Duration::from_secs(60);
    AccessRule::Ban(BanRule::new(after, minute, minute).unwrap())
}

/// An entry whose requests pass each of these lists after they have been routed.
struct Lists {
    entry: HttpEntry,
    access: Arc<Access>,
}

impl Lists {
    fn new(lists: &[&[LayerConfig]]) -> Self {
        let access = Access::new(AccessBounds::default());
        let list = |(number, layers): (usize, &&[LayerConfig])| {
            let list = LayerList {
                layers,
                place: &format!("list {number}"),
                access: &access,
            };
            list.list()
        };
        let join = |all: Layers, list| all.followed_by(&list);
        let all = lists.iter().enumerate().map(list);
        let all = all.fold(Layers::default(), join);
        let link = Link::serving(hello);
        let there = link.clone();
        let route = Route::director(&[link], move |_, _| {
            let mut destination = there.destination(1);
            destination.layers = all.clone();
            Direction::Go(destination)
        });
        let entry = route.http(http_config());
        Self { entry, access }
    }

    /// Status and challenges of the response to a request with these lines.
    async fn get(&self, lines: &str) -> (String, Vec<String>) {
        let request = GET.replace("Host:", &format!("{lines}Host:"));
        let response = self.entry.raw(request).await.unwrap();
        let challenges = http1::values(&response, "www-authenticate");
        let challenges = challenges.into_iter().map(str::to_owned).collect();
        (response[9..12].to_owned(), challenges)
    }

    async fn status(&self, lines: &str) -> String {
        self.get(lines).await.0
    }

    fn would_deny(&self, kind: &str) -> u64 {
        self.access.counts().would_deny[kind]
    }
}

/// What the operator finds sufficient for a rule does not open a tunnel whose owner asks for more.
#[tokio::test]
async fn p_15_3_a_sufficient_layer_opens_no_other_list() {
    let of_rule = [layer(allow(true), SUFFICIENT)];
    let of_tunnel = [layer(token(), REQUIRED)];
    let lists = Lists::new(&[&of_rule, &of_tunnel]);
    assert_eq!(lists.status("").await, "401");
    assert_eq!(lists.status(GOOD_TOKEN).await, "200");
    // In one list it does.
    let one = [of_rule, of_tunnel].concat();
    assert_eq!(Lists::new(&[&one]).status("").await, "200");
}

#[tokio::test]
async fn p_15_3_each_list_asks_for_its_own_proof() {
    let first = [layer(token(), SUFFICIENT), layer(allow(false), REQUIRED)];
    let second = [layer(allow(false), SUFFICIENT), layer(users(), REQUIRED)];
    let lists = Lists::new(&[&first, &second]);
    assert_eq!(lists.status(GOOD_TOKEN).await, "401");
    assert_eq!(lists.status(GOOD_USER).await, "401");
    let both = format!("{GOOD_TOKEN}{GOOD_USER}");
    assert_eq!(lists.status(&both).await, "200");
}

#[tokio::test]
async fn p_15_3_a_visitor_receives_the_challenges_of_all_layers_that_can_admit_it() {
    let both = |challenges: &[String]| {
        challenges == [r#"Basic realm="office", charset="UTF-8""#, "Bearer"]
    };
    let alternatives = [layer(users(), SUFFICIENT), layer(token(), REQUIRED)];
    let lists = Lists::new(&[&alternatives]);
    for lines in ["", BAD_USER, BAD_TOKEN] {
        let (status, challenges) = lists.get(lines).await;
        assert!(
            status == "401" && both(&challenges),
            "{lines}: {challenges:?}"
        );
    }
    for lines in [GOOD_USER, GOOD_TOKEN] {
        assert_eq!(lists.status(lines).await, "200");
    }
    // An address cannot be changed, so that the visitor is asked to log in.
    let with_address = [
        layer(users(), SUFFICIENT),
        layer(token(), SUFFICIENT),
        layer(allow(false), REQUIRED),
    ];
    let (status, challenges) = Lists::new(&[&with_address]).get("").await;
    assert!(
        status == "401" && both(&challenges),
        "{status} {challenges:?}"
    );
    // A layer of another list could not have admitted it.
    let lists = Lists::new(&[&[layer(allow(true), REQUIRED)], &[layer(token(), REQUIRED)]]);
    assert_eq!(lists.get("").await.1, ["Bearer"]);
}

#[tokio::test]
async fn p_15_9_wrong_credentials_count_at_each_layer_that_could_have_admitted() {
    for (wrong, alternatives) in [
        (
            BAD_USER,
            [layer(users(), SUFFICIENT), layer(token(), REQUIRED)],
        ),
        (
            BAD_TOKEN,
            [layer(token(), SUFFICIENT), layer(users(), REQUIRED)],
        ),
        (
            BAD_USER,
            [layer(users(), SUFFICIENT), layer(allow(false), REQUIRED)],
        ),
    ] {
        let list = [&[layer(ban(2), REQUIRED)][..], &alternatives].concat();
        let lists = Lists::new(&[&list]);
        // A visitor that has not tried yet is not counted.
        for _ in 0..3 {
            assert_eq!(lists.status("").await, "401");
        }
        for _ in 0..2 {
            assert_eq!(lists.status(wrong).await, "401");
        }
        assert_eq!(lists.status(wrong).await, "403");
        assert_eq!(lists.access.bans().len(), 1);
    }
}

#[tokio::test]
async fn p_15_9_being_elsewhere_does_not_count_where_a_login_would_do() {
    let list = [
        layer(ban(1), REQUIRED),
        layer(allow(false), SUFFICIENT),
        layer(token(), REQUIRED),
    ];
    let lists = Lists::new(&[&list]);
    for _ in 0..3 {
        assert_eq!(lists.status("").await, "401");
    }
    assert_eq!(lists.status(BAD_TOKEN).await, "401");
    assert_eq!(lists.status("").await, "403");
}

#[tokio::test]
async fn p_15_4_a_dry_run_reports_only_what_it_would_deny() {
    // Another layer would still have to decide.
    let lists = Lists::new(&[&[layer(users(), DRY_SUFFICIENT), layer(token(), REQUIRED)]]);
    assert_eq!(lists.status(GOOD_TOKEN).await, "200");
    assert_eq!(lists.status("").await, "401");
    assert_eq!(lists.would_deny("basic_auth"), 0);
    // The layer that is last of a list of dry runs would deny.
    let lists = Lists::new(&[&[layer(users(), DRY_SUFFICIENT), layer(token(), DRY)]]);
    assert_eq!(lists.status("").await, "200");
    assert_eq!(
        (
            lists.would_deny("basic_auth"),
            lists.would_deny("header_token")
        ),
        (0, 1)
    );
    // It would have been skipped for a user.
    assert_eq!(lists.status(GOOD_USER).await, "200");
    assert_eq!(lists.would_deny("header_token"), 1);
    // A dry run does not admit to an enforced layer.
    let lists = Lists::new(&[&[layer(allow(true), DRY_SUFFICIENT), layer(token(), REQUIRED)]]);
    assert_eq!(lists.status("").await, "401");
}

#[tokio::test]
async fn p_15_8_a_connection_above_its_rate_gets_nothing_and_is_closed() {
    let limit = RateLimit {
        connections: Some("1/h".parse().unwrap()),
        ..RateLimit::default()
    };
    let rate = [layer(AccessRule::RateLimit(limit), REQUIRED)];
    let lists = Lists::new(&[&rate]);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let twice = format!("{get}{GET}");
    let served = lists.entry.raw(twice.clone()).await.unwrap();
    assert_eq!(served.matches("HTTP/1.1 200 ").count(), 2, "{served}");
    let rejected = lists.entry.raw(twice).await.unwrap();
    assert_eq!(rejected.matches("HTTP/1.1 429 ").count(), 1, "{rejected}");
    assert_eq!(http1::values(&rejected, "connection"), ["close"]);
    assert!(!rejected.contains("HTTP/1.1 200 "), "{rejected}");
    // Nor does a second request on a connection of HTTP/2 pass.
    let mut visitor = adit_testlink::grpc::Visitor::connect(lists.entry.connect().await).await;
    for _ in 0..2 {
        let response = visitor.call("/a.B/C", &[], b"").await;
        assert_eq!(response.verdict().0, "8", "RESOURCE_EXHAUSTED");
    }
}
