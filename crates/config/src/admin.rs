//! The section `admin` of either side.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{error::ConfigError, fields::host_name, key_names, ranges::PORT, read::Section};

/// The admin port.
pub(crate) struct AdminPort {
    /// The address with a port, or a port on loopback; `None` for `off`.
    pub(crate) addr: Option<SocketAddr>,
    /// Host names that the admin port accepts.
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
            hosts.push(host_name(&item, "the port belongs in `bind`")?);
        }
    }
    admin.finish(&key_names::ADMIN)?;
    Ok(AdminPort { addr, hosts })
}
