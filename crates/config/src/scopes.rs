//! What a credential may use: a section `scopes`.

use std::{fmt::Display, str::FromStr};

use adit_auth::Scopes;

use crate::{
    error::ConfigError,
    key_names,
    ranges::COUNT,
    read::{Item, Section},
};

/// Reads the section. A list that is absent allows everything.
pub(crate) fn read(item: &Item<'_>) -> Result<Scopes, ConfigError> {
    let mut section = item.section()?;
    let scopes = Scopes {
        clients: list(&mut section, "clients")?,
        groups: list(&mut section, "groups")?,
        tunnels: list(&mut section, "tunnels")?,
        hosts: list(&mut section, "hosts")?,
        ports: list(&mut section, "ports")?,
        protocols: list(&mut section, "protocols")?,
        upstreams: list(&mut section, "upstreams")?,
        addresses: list(&mut section, "addresses")?,
        max_clients: number(&mut section, "max_clients")?,
        max_tunnels: number(&mut section, "max_tunnels")?,
    };
    section.finish(&key_names::SCOPES)?;
    Ok(scopes)
}

fn list<T>(section: &mut Section<'_>, key: &'static str) -> Result<Option<Vec<T>>, ConfigError>
where
    T: FromStr,
    T::Err: Display,
{
    let Some(item) = section.item(key) else {
        return Ok(None);
    };
    let items = item.one_or_more("scopes")?.into_iter();
    items
        .map(|item| one(&item))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// A text, or a number where the text would be one: a port.
fn one<T>(item: &Item<'_>) -> Result<T, ConfigError>
where
    T: FromStr,
    T::Err: Display,
{
    let text = match item.number::<u16>(0..=u16::MAX.into()) {
        Ok(number) => number.to_string(),
        Err(_) => item.text("a scope")?.to_owned(),
    };
    let parsed = text.parse();
    parsed.map_err(|error: T::Err| item.error(error.to_string()))
}

fn number(section: &mut Section<'_>, key: &'static str) -> Result<Option<u32>, ConfigError> {
    let item = section.item(key);
    item.map(|item| item.number(COUNT)).transpose()
}
