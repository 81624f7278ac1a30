//! Certificates from a CA: `server.https.acme`.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use adit_server::{
    AcmeHosts,
    acme::{
        Algorithm, Ca, Dns01, DnsCommand, DnsProvider, DnsUpdate, LETS_ENCRYPT, Propagation,
        Settings, TsigKey, Validation,
    },
};

use crate::{
    certificates::roots,
    error::ConfigError,
    fields::path,
    key_names,
    read::{Item, Section},
    secret_file,
    tunnel_tls::lifetime,
};

/// The bound of a file with one key in text.
const LARGEST_SECRET_BYTES: u64 = 4 << 10;

/// The bounds of counts of new names in a week.
const NEW_NAMES: RangeInclusive<u64> = 1..=1_000_000;

/// The least of every time: none of them can be zero.
const LEAST: Duration = Duration::from_millis(1);

/// The times of dns-01.
struct DnsTimes {
    command: Duration,
    propagation: Propagation,
}

/// Reads the section, and for which hosts certificates are obtained; `None` if it is not written.
pub(super) fn read(
    section: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<(Settings, AcmeHosts)>, ConfigError> {
    let hosts = match section.item("hosts") {
        Some(item) => hosts(&item)?,
        None => AcmeHosts::default(),
    };
    let ca = ca(section, file, warnings)?;
    let mut times = DnsTimes {
        command: Duration::from_secs(60),
        propagation: Propagation::default(),
    };
    section.set_wait("dns_command_timeout", LEAST, &mut times.command)?;
    let propagation = &mut times.propagation;
    section.set_wait("propagation_delay", Duration::ZERO, &mut propagation.delay)?;
    section.set_wait(
        "propagation_timeout",
        Duration::ZERO,
        &mut propagation.timeout,
    )?;
    section.set_wait("dns_timeout", LEAST, &mut propagation.exchange_timeout)?;
    let provider = provider(section, &times, file, warnings)?;
    let validation = validation(section, provider, times.propagation)?;
    let mut settings = Settings::new(ca, validation);
    staging(section, &mut settings)?;
    let timeouts = &mut settings.timeouts;
    section.set_wait("request_timeout", LEAST, &mut timeouts.request)?;
    section.set_wait("validation_timeout", LEAST, &mut timeouts.validation)?;
    section.set_wait("issuance_timeout", LEAST, &mut timeouts.issuance)?;
    section.set_number("max_orders", 1..=1000, &mut settings.max_orders)?;
    section.set_number("max_names", 1..=1_000_000, &mut settings.max_names)?;
    let policy = &mut settings.policy;
    section.set_number(
        "max_new_names_per_user",
        NEW_NAMES,
        &mut policy.owner_names.most,
    )?;
    section.set_number(
        "max_new_names_per_domain",
        NEW_NAMES,
        &mut policy.domain_names.most,
    )?;
    if let Some(item) = section.item("keep_unused") {
        settings.keep_unused = lifetime(&item, LEAST)?;
    }
    section.finish(&key_names::NO_OTHER_KEYS)?;
    Ok(section.is_written().then_some((settings, hosts)))
}

fn hosts(item: &Item<'_>) -> Result<AcmeHosts, ConfigError> {
    match item.text("`all` or `asked`")? {
        "all" => Ok(AcmeHosts::All),
        "asked" => Ok(AcmeHosts::Asked),
        other => Err(item.error(format!("expected `all` or `asked`, found `{other}`"))),
    }
}

fn ca(
    section: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Ca, ConfigError> {
    let mut ca = match section.item("directory") {
        Some(item) => Ca::new(item.text("the URL of a CA's directory")?)
            .map_err(|error| item.error(error.to_string()))?,
        None => Ca::new(LETS_ENCRYPT)
            .map_err(|error| section.conflict(&["directory"], error.to_string()))?,
    };
    if let Some(item) = section.item("ca_file") {
        ca = ca.with_roots(roots(&item, file)?);
    }
    if let Some(item) = section.item("email") {
        let email = item.text("an e-mail address")?;
        ca = ca
            .with_email(email)
            .map_err(|error| item.error(error.to_string()))?;
    }
    match (section.item("eab_key_id"), section.item("eab_key_file")) {
        (Some(id), Some(key)) => {
            let id = id.text("the key id that the CA shows")?;
            let secret = secret(&key, file, warnings)?;
            let bound = ca.with_external_account(id, &secret);
            bound.map_err(|error| key.error(error.to_string()))
        }
        (None, None) => Ok(ca),
        (Some(_), None) => {
            Err(section.missing("eab_key_file", "the path of the key of `eab_key_id`"))
        }
        (None, Some(_)) => {
            Err(section.missing("eab_key_id", "the id of the key in `eab_key_file`"))
        }
    }
}

/// Production and staging have the same roots and contact.
fn staging(section: &mut Section<'_>, settings: &mut Settings) -> Result<(), ConfigError> {
    match section.item("staging_directory") {
        Some(item) if item.is_off() => settings.staging = None,
        Some(item) => {
            let directory = item.text("the URL of a CA's directory, or `off`")?;
            let staging = settings.production.clone().at(directory);
            settings.staging = Some(staging.map_err(|error| item.error(error.to_string()))?);
        }
        None => {}
    }
    Ok(())
}

fn validation(
    section: &mut Section<'_>,
    provider: Option<DnsProvider>,
    propagation: Propagation,
) -> Result<Validation, ConfigError> {
    let challenge = section.item("challenge");
    let written = match &challenge {
        Some(item) => item.text("`http-01`, `tls-alpn-01` or `dns-01`")?,
        None if provider.is_some() => "dns-01",
        None => "http-01",
    };
    match (written, provider, &challenge) {
        ("http-01", None, _) => Ok(Validation::Http01),
        ("tls-alpn-01", None, _) => Ok(Validation::TlsAlpn01),
        ("dns-01", Some(provider), _) => Ok(Validation::Dns01(Box::new(Dns01 {
            provider,
            propagation,
        }))),
        ("dns-01", None, _) => Err(section.missing(
            "dns_command",
            "a program that changes records, or `dns_update`",
        )),
        ("http-01" | "tls-alpn-01", Some(_), _) => Err(section.conflict(
            &["challenge", "dns_command", "dns_update"],
            "records of DNS are for `challenge: dns-01`",
        )),
        (other, _, Some(item)) => Err(item.error(format!(
            "expected `http-01`, `tls-alpn-01` or `dns-01`, found `{other}`"
        ))),
        (_, _, None) => Ok(Validation::Http01),
    }
}

fn provider(
    section: &mut Section<'_>,
    times: &DnsTimes,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<DnsProvider>, ConfigError> {
    let command = match section.item("dns_command") {
        Some(item) => Some(command(&item, times.command)?),
        None => None,
    };
    let mut update = section.section("dns_update")?;
    let update = update_of(&mut update, times, file, warnings)?;
    match (command, update) {
        (Some(_), Some(_)) => Err(section.conflict(
            &["dns_command", "dns_update"],
            "expected either `dns_command` or `dns_update`",
        )),
        (Some(command), None) => Ok(Some(DnsProvider::Command(command))),
        (None, update) => Ok(update.map(DnsProvider::Update)),
    }
}

fn command(item: &Item<'_>, timeout: Duration) -> Result<DnsCommand, ConfigError> {
    let words = item.one_or_more("a program and its arguments")?;
    let words: Result<Vec<_>, _> = { words.iter() }
        .map(|word| {
            word.text("a program, or one of its arguments")
                .map(str::to_owned)
        })
        .collect();
    let mut words = words?.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Ok(DnsCommand {
            program,
            args: words.collect(),
            timeout,
        }),
        None => Err(item.error("expected a program and its arguments, found nothing")),
    }
}

fn update_of(
    section: &mut Section<'_>,
    times: &DnsTimes,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<DnsUpdate>, ConfigError> {
    let mut ttl = Duration::from_secs(60);
    section.set_wait("ttl", Duration::from_secs(1), &mut ttl)?;
    let zone = match section.item("zone") {
        Some(item) => Some(
            item.text("the name of a zone")?
                .trim_end_matches('.')
                .to_owned(),
        ),
        None => None,
    };
    let algorithm = match section.item("key_algorithm") {
        Some(item) => algorithm(&item)?,
        None => Algorithm::default(),
    };
    let (server, name) = (section.item("server"), section.item("key_name"));
    let key = section.item("key_file");
    section.finish(&key_names::NO_OTHER_KEYS)?;
    if !section.is_written() {
        return Ok(None);
    }
    let server = server.ok_or_else(|| section.missing("server", "the primary name server"))?;
    let server = server.text("a name server, as host:port")?;
    let server = if has_port(server) {
        server.to_owned()
    } else {
        format!("{server}:53")
    };
    let name = name.ok_or_else(|| section.missing("key_name", "the name of the TSIG key"))?;
    let key =
        key.ok_or_else(|| section.missing("key_file", "the path of the TSIG key's secret"))?;
    let secret = secret(&key, file, warnings)?;
    let key = TsigKey::new(name.text("the name of a TSIG key")?, algorithm, &secret)
        .map_err(|error| key.error(error.to_string()))?;
    Ok(Some(DnsUpdate {
        server,
        zone,
        key,
        ttl,
        timeout: times.propagation.exchange_timeout,
    }))
}

/// Whether a port follows the host; an address of IPv6 without brackets has none.
fn has_port(server: &str) -> bool {
    let port = server
        .rsplit_once(':')
        .filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

fn algorithm(item: &Item<'_>) -> Result<Algorithm, ConfigError> {
    let all = [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];
    let written = item.text("`hmac-sha256`, `hmac-sha384` or `hmac-sha512`")?;
    let found = all.into_iter().find(|one| one.name() == written);
    found.ok_or_else(|| {
        item.error(format!(
            "expected `hmac-sha256`, `hmac-sha384` or `hmac-sha512`, found `{written}`"
        ))
    })
}

/// The text of a file that holds a secret, without blanks around it.
fn secret(
    item: &Item<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<String, ConfigError> {
    let path = path(item, file)?;
    let refused = |problem: &str| item.error(format!("the file {} {problem}", path.display()));
    let bytes = secret_file::read(&path, LARGEST_SECRET_BYTES, warnings);
    let bytes = bytes.map_err(|problem| refused(&problem))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("is not a text"))?;
    Ok(text.trim().to_owned())
}
