//! Reads `server.error_pages`.

use std::path::Path;

use adit_server::{ErrorPage, ErrorPageError, ErrorPages};

use crate::{
    bounded_file,
    error::{ConfigError, Kind},
    fields::path,
    key_names,
    read::Item,
};

/// The largest page. The server keeps all pages in memory.
const LARGEST_PAGE_BYTES: u64 = 256 << 10;

/// Reads the list.
pub(super) fn read(item: &Item<'_>, file: Option<&Path>) -> Result<ErrorPages, ConfigError> {
    let pages = item.list("error pages")?;
    pages.iter().map(|item| read_one(item, file)).collect()
}

fn read_one(item: &Item<'_>, file: Option<&Path>) -> Result<ErrorPage, ConfigError> {
    let mut section = item.section()?;
    let (status, reason) = (section.item("status"), section.item("reason"));
    let (html, json) = (section.item("html_file"), section.item("json_file"));
    section.finish(&key_names::ERROR_PAGE)?;
    let mut statuses = Vec::new();
    if let Some(item) = &status {
        for item in item.one_or_more("statuses")? {
            statuses.push(item.number::<u16>(400..=599)?);
        }
    }
    let mut reasons = Vec::new();
    if let Some(item) = &reason {
        for item in item.one_or_more("reasons")? {
            reasons.push(item.text("a reason such as `no_client`")?.to_owned());
        }
    }
    let page = |item: Option<Item<'_>>| item.map(|item| text(&item, file)).transpose();
    let page = ErrorPage::new(&statuses, &reasons, page(html)?, page(json)?);
    page.map_err(|error| {
        let at = match (&error, &status, &reason) {
            (ErrorPageError::Status(_), Some(status), _) => status,
            (ErrorPageError::Reason(_), _, Some(reason)) => reason,
            _ => return item.error(error.to_string()).of_kind(Kind::Missing),
        };
        at.error(error.to_string())
    })
}

/// Reads a page, which is text in UTF-8.
fn text(item: &Item<'_>, file: Option<&Path>) -> Result<String, ConfigError> {
    let path = path(item, file)?;
    let shown = path.display();
    let read = bounded_file::read(&path, LARGEST_PAGE_BYTES)
        .map_err(|error| item.error(format!("{shown} cannot be read: {error}")))?;
    let bytes = read.ok_or_else(|| {
        let largest = bytesize::ByteSize(LARGEST_PAGE_BYTES);
        item.error(format!("{shown} is larger than {largest}"))
    })?;
    String::from_utf8(bytes).map_err(|_| item.error(format!("{shown} is not text in UTF-8")))
}
