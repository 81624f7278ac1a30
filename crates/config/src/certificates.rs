//! Certificates, keys and names of TLS: the values of keys that more than one section has.

use std::path::Path;

use adit_tls::{Identity, Roots, TlsName};

use crate::{
    bounded_file,
    error::ConfigError,
    fields::path,
    read::{Item, Section},
    secret_file,
};

/// The bound of a file with certificates. The trust store of a platform has a tenth of this size; a larger file was given
/// by mistake.
pub(crate) const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// The bound of a key file. An RSA key of 16,384 bits has a fifth of this size.
const LARGEST_KEY_BYTES: u64 = 64 << 10;

/// The certificates of CAs in the file that `item` names.
pub(crate) fn roots(item: &Item<'_>, file: Option<&Path>) -> Result<Roots, ConfigError> {
    let path = path(item, file)?;
    Roots::from_pem(&pem(item, &path)?).map_err(|error| {
        refused(
            item,
            &path,
            &format!("is not a list of CA certificates: {error}"),
        )
        .with_help("the certificate of the CA that signed the other side's, in PEM")
    })
}

/// The certificate of `cert_file` with the key of `key_file`: both or none.
pub(crate) fn identity(
    section: &mut Section<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<Identity>, ConfigError> {
    let (certificate, key) = (section.item("cert_file"), section.item("key_file"));
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        (Some(_), None) => {
            return Err(section.missing("key_file", "the path of the key of `cert_file`"));
        }
        (None, Some(_)) => {
            return Err(section.missing("cert_file", "the path of the certificate of `key_file`"));
        }
    };
    let (certificate_path, key_path) = (path(&certificate, file)?, path(&key, file)?);
    let certificates = pem(&certificate, &certificate_path)?;
    let secret = secret_file::read(&key_path, LARGEST_KEY_BYTES, warnings)
        .map_err(|problem| refused(&key, &key_path, &problem))?;
    let identity = Identity::from_pem(&certificates, &secret).map_err(|error| {
        if error.is_of_key() {
            refused(&key, &key_path, &format!("is refused: {error}"))
        } else {
            refused(
                &certificate,
                &certificate_path,
                &format!("is refused: {error}"),
            )
        }
    })?;
    Ok(Some(identity))
}

/// The name that the other side's certificate must be valid for.
pub(crate) fn server_name(item: &Item<'_>) -> Result<TlsName, ConfigError> {
    let text = item.text("the name that the certificate is for")?;
    TlsName::parse(text).map_err(|error| item.error(error.to_string()))
}

fn pem(item: &Item<'_>, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let read = bounded_file::read(path, LARGEST_FILE_BYTES)
        .map_err(|error| refused(item, path, &format!("cannot be read: {error}")))?;
    read.ok_or_else(|| refused(item, path, "is larger than 4 MiB"))
}

fn refused(item: &Item<'_>, path: &Path, problem: &str) -> ConfigError {
    item.error(format!("the file {} {problem}", path.display()))
}
