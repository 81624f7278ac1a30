//! Reads `layers`: the layers that requests pass, in the order of the list. On a server they are before routing, on a
//! rule and a tunnel after it, and on an entry of a client before requests are sent to the server.

use std::path::Path;

use adit_server::layers::{HeaderEdit, LayerConfig, LayerError, Redirect, RequiredHeader, Respond};

use crate::{
    access_layers::{self, Flags},
    bounded_file,
    error::{ConfigError, Kind},
    fields::path,
    key_names,
    read::{Item, Section},
};

/// The largest body of a layer: a page, not a download. The server keeps the bodies of all tunnels in memory.
const LARGEST_BODY_BYTES: u64 = 256 << 10;

/// Reads the list of a section.
pub(crate) fn read(
    section: &mut Section<'_>,
    file: Option<&Path>,
) -> Result<Vec<LayerConfig>, ConfigError> {
    let Some(item) = section.item("layers") else {
        return Ok(Vec::new());
    };
    let layers = item.list("layers")?.into_iter();
    layers.map(|item| read_one(&item, file)).collect()
}

/// Rejects layers that do not fit TCP connections and UDP flows, which have no heads.
pub(crate) fn check_for_sessions(
    section: &Section<'_>,
    protocol: &str,
    layers: &[LayerConfig],
) -> Result<(), ConfigError> {
    let Some(layer) = layers.iter().find(|layer| !layer.fits_sessions()) else {
        return Ok(());
    };
    let kind = layer.kind();
    let what = format!("a layer `{kind}` is not for `type: {protocol}`");
    Err(section
        .conflict(&["layers"], what)
        .with_help("it is for requests of HTTP, gRPC and WebSocket"))
}

/// Reads the value of one kind of layer in a file.
type ReadKind = fn(&Item<'_>, Option<&Path>) -> Result<LayerConfig, ConfigError>;

/// The kinds, in the order in which an error lists them.
const KINDS: [(&str, ReadKind); 5] = [
    ("request_headers", |item, _| {
        header_edit(item).map(LayerConfig::RequestHeaders)
    }),
    ("response_headers", |item, _| {
        header_edit(item).map(LayerConfig::ResponseHeaders)
    }),
    ("require_header", |item, _| {
        required_header(item).map(LayerConfig::RequireHeader)
    }),
    ("redirect", |item, _| {
        redirect(item).map(LayerConfig::Redirect)
    }),
    ("respond", |item, file| {
        respond(item, file).map(LayerConfig::Respond)
    }),
];

/// The reader of one kind.
enum Read {
    Edit(ReadKind),
    Access(access_layers::ReadRule),
}

/// Reads an item of the list. It has one key that is the kind of the layer, and may have those of [`Flags`].
fn read_one(item: &Item<'_>, file: Option<&Path>) -> Result<LayerConfig, ConfigError> {
    let mut section = item.section()?;
    let edits = KINDS.map(|(kind, read)| (kind, Read::Edit(read)));
    let access = access_layers::KINDS.map(|(kind, read)| (kind, Read::Access(read)));
    let mut layers = Vec::new();
    for (kind, read) in edits.into_iter().chain(access) {
        layers.extend(section.item(kind).map(|item| (kind, read, item)));
    }
    let flags = Flags::read(&mut section);
    section.finish(&key_names::LAYER)?;
    match layers.as_slice() {
        [(kind, Read::Edit(read), item)] => {
            flags.reject(kind)?;
            read(item, file)
        }
        [(_, Read::Access(read), item)] => {
            let rule = read(item)?;
            flags.layer(item, rule).map(LayerConfig::Access)
        }
        [] => {
            let kinds = KINDS.map(|(kind, _)| kind).into_iter();
            let kinds = kinds.chain(access_layers::KINDS.map(|(kind, _)| kind));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            let what = format!("expected a layer, which is one of {kinds}");
            Err(item.error(what).of_kind(Kind::Missing))
        }
        [_, (second, ..), ..] => Err(section
            .conflict(&[second], "expected one layer in each item of the list")
            .with_help("begin another item with a dash: their order is that of the list")),
    }
}

/// Reads `{ remove: [NAME], set: { NAME: value }, add: { NAME: value } }`.
fn header_edit(item: &Item<'_>) -> Result<HeaderEdit, ConfigError> {
    let mut section = item.section()?;
    let mut edit = HeaderEdit::default();
    if let Some(item) = section.item("remove") {
        for item in item.one_or_more("names of headers")? {
            let name = item.text("the name of a header")?;
            at(&item, edit.remove(name.as_bytes()))?;
        }
    }
    if let Some(item) = section.item("set") {
        for (name, item) in item.section()?.pairs() {
            let value = item.text("the value of a header")?;
            at(&item, edit.set(name.as_bytes(), value.as_bytes()))?;
        }
    }
    if let Some(item) = section.item("add") {
        for (name, value) in lines(&item)? {
            let line = value.text("the value of a header")?;
            at(&value, edit.add(name.as_bytes(), line.as_bytes()))?;
        }
    }
    section.finish(&key_names::HEADER_EDIT)?;
    if edit.is_empty() {
        let what = "expected headers to `remove`, `set` or `add`";
        return Err(item.error(what).of_kind(Kind::Missing));
    }
    Ok(edit)
}

/// Reads `{ name: NAME, values: [value], status: 403 }`.
fn required_header(item: &Item<'_>) -> Result<RequiredHeader, ConfigError> {
    let mut section = item.section()?;
    let name = section.item("name");
    let values = section.item("values");
    let status = status(&mut section, RequiredHeader::STATUS)?;
    section.finish(&key_names::REQUIRED_HEADER)?;
    let Some(name) = name else {
        return Err(section.missing("name", "the name of a header such as `x-api-key`"));
    };
    let text = name.text("the name of a header")?;
    let mut header =
        RequiredHeader::new(text.as_bytes(), status.number).map_err(|error| match error {
            LayerError::Status { .. } => status.error(&section, &error),
            _ => name.error(error.to_string()),
        })?;
    if let Some(values) = values {
        let values_item = values.clone();
        let values = values.one_or_more("values")?;
        if values.is_empty() {
            return Err(values_item
                .error("expected at least one value")
                .of_kind(Kind::Missing)
                .with_help("without `values` any value is accepted"));
        }
        for value in values {
            let text = value.secret("the value of a header")?;
            at(&value, header.accept(text.as_bytes()))?;
        }
    }
    Ok(header)
}

/// Reads `{ scheme: https, host: www.example.com, status: 308 }`.
fn redirect(item: &Item<'_>) -> Result<Redirect, ConfigError> {
    let mut section = item.section()?;
    let (scheme, host) = (section.item("scheme"), section.item("host"));
    let status = status(&mut section, Redirect::STATUS)?;
    section.finish(&key_names::REDIRECT)?;
    let text = |item: &Option<Item<'_>>, what| match item {
        Some(item) => Ok(item.text(what)?.to_owned()),
        None => Ok(String::new()),
    };
    let to = text(&scheme, "`http` or `https`")?;
    let at_host = text(
        &host,
        "a host name or an address, with a port if it needs one",
    )?;
    Redirect::new(&to, &at_host, status.number).map_err(|error| match (&error, scheme, host) {
        (LayerError::Scheme { .. }, Some(item), _) | (LayerError::Host { .. }, _, Some(item)) => {
            item.error(error.to_string())
        }
        (LayerError::Status { .. }, ..) => status.error(&section, &error),
        _ => item
            .error("expected `scheme`, `host` or both")
            .of_kind(Kind::Missing),
    })
}

/// Reads `{ status: 503, headers: { NAME: value }, body: text }`, or `body_file`.
fn respond(item: &Item<'_>, file: Option<&Path>) -> Result<Respond, ConfigError> {
    let mut section = item.section()?;
    let status = section.item("status");
    let headers = section.item("headers");
    let (body, body_file) = (section.item("body"), section.item("body_file"));
    section.finish(&key_names::RESPOND)?;
    let Some(status) = status else {
        return Err(section.missing("status", "a status such as 503"));
    };
    let mut respond = at(&status, Respond::new(status.number::<u32>(200..=599)?))?;
    if let Some(item) = headers {
        for (name, value) in lines(&item)? {
            let line = value.text("the value of a header")?;
            at(&value, respond.add_header(name.as_bytes(), line.as_bytes()))?;
        }
    }
    match (body, body_file) {
        (Some(_), Some(_)) => {
            Err(section.conflict(&["body_file"], "expected either `body` or `body_file`"))
        }
        (Some(item), None) => {
            let text = item.text("the text of the response")?.to_owned();
            at(&item, respond.set_body(text)).map(|()| respond)
        }
        (None, Some(item)) => {
            let bytes = read_body(&path(&item, file)?).map_err(|problem| item.error(problem))?;
            at(&item, respond.set_body(bytes)).map(|()| respond)
        }
        (None, None) => Ok(respond),
    }
}

fn read_body(path: &Path) -> Result<Vec<u8>, String> {
    let read = bounded_file::read(path, LARGEST_BODY_BYTES)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    read.ok_or_else(|| {
        let largest = bytesize::ByteSize(LARGEST_BODY_BYTES);
        format!("{} is larger than {largest}", path.display())
    })
}

/// Reads header lines; a header may have one value or a list of values.
fn lines<'n>(item: &Item<'n>) -> Result<Vec<(&'n str, Item<'n>)>, ConfigError> {
    let mut lines = Vec::new();
    for (name, item) in item.section()?.pairs() {
        let values = item.one_or_more("values")?.into_iter();
        lines.extend(values.map(|value| (name, value)));
    }
    Ok(lines)
}

/// A status, and its place in the file.
struct Status<'n> {
    number: u32,
    item: Option<Item<'n>>,
}

impl Status<'_> {
    fn error(&self, section: &Section<'_>, error: &LayerError) -> ConfigError {
        match &self.item {
            Some(item) => item.error(error.to_string()),
            None => section.conflict(&["status"], error.to_string()),
        }
    }
}

fn status<'n>(section: &mut Section<'n>, default: u16) -> Result<Status<'n>, ConfigError> {
    let item = section.item("status");
    let number = match &item {
        Some(item) => item.number::<u32>(100..=999)?,
        None => default.into(),
    };
    Ok(Status { number, item })
}

fn at<T>(item: &Item<'_>, read: Result<T, LayerError>) -> Result<T, ConfigError> {
    read.map_err(|error| item.error(error.to_string()))
}
