//! Pages of a configuration in the place of the text of error responses.

use std::{borrow::Cow, sync::Arc};

use adit_link::Reason;
use bytes::Bytes;
use http::StatusCode;
use thiserror::Error;
use uuid::Uuid;

/// The pages of a configuration. The first one that fits a failure is used. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorPages(Option<Arc<[ErrorPage]>>);

/// A page for some statuses and reasons. `{{status}}`, `{{reason}}` and `{{request_id}}` in its texts are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    statuses: Vec<StatusCode>,
    reasons: Vec<Reason>,
    html: Option<Arc<str>>,
    json: Option<Arc<str>>,
}

/// A part of a page that is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ErrorPageError {
    /// The status is not one of an error.
    #[error("invalid status {0}: expected 400 to 599")]
    Status(u16),
    /// The reason is unknown.
    #[error("unknown reason {0:?}: section 7 of the protocol lists them")]
    Reason(String),
    /// The page has neither of the two texts.
    #[error("expected a page of HTML or of JSON")]
    Empty,
}

/// What the page is for.
pub(super) struct PageRequest {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    pub(super) uuid: Uuid,
}

impl ErrorPage {
    /// A page for failures with one of these statuses, and one of these reasons; an empty list is all of them.
    ///
    /// # Errors
    /// [`ErrorPageError`].
    pub fn new(
        statuses: &[u16],
        reasons: &[String],
        html: Option<String>,
        json: Option<String>,
    ) -> Result<Self, ErrorPageError> {
        if html.is_none() && json.is_none() {
            return Err(ErrorPageError::Empty);
        }
        let status = |status: &u16| {
            let error = ErrorPageError::Status(*status);
            let is_error = (400..600).contains(status);
            let parsed = StatusCode::from_u16(*status).ok().filter(|_| is_error);
            parsed.ok_or(error)
        };
        let reason = |name: &String| {
            let mut all = Reason::ALL.into_iter();
            let known = all.find(|reason| reason.as_str() == name);
            known.ok_or_else(|| ErrorPageError::Reason(name.clone()))
        };
        Ok(Self {
            statuses: statuses.iter().map(status).collect::<Result<_, _>>()?,
            reasons: reasons.iter().map(reason).collect::<Result<_, _>>()?,
            html: html.map(Into::into),
            json: json.map(Into::into),
        })
    }

    fn fits(&self, request: &PageRequest) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&request.status))
            && (self.reasons.is_empty() || self.reasons.contains(&request.reason))
    }
}

impl ErrorPages {
    /// The HTML for a failure.
    pub(super) fn html(&self, request: &PageRequest) -> Option<Bytes> {
        self.find(request, |page| page.html.as_ref())
    }

    /// The JSON for a failure.
    pub(super) fn json(&self, request: &PageRequest) -> Option<Bytes> {
        self.find(request, |page| page.json.as_ref())
    }

    fn find(
        &self,
        request: &PageRequest,
        text: impl Fn(&ErrorPage) -> Option<&Arc<str>>,
    ) -> Option<Bytes> {
        let pages = self.0.as_ref()?.iter();
        let mut fitting = pages.filter(|page| page.fits(request));
        let text = fitting.find_map(text)?;
        Some(filled(text, request))
    }
}

/// The text with its placeholders replaced: by numbers, names of reasons and ids, which need no escapes.
fn filled(text: &str, request: &PageRequest) -> Bytes {
    let mut filled = Cow::Borrowed(text);
    for (placeholder, value) in [
        ("{{status}}", request.status.as_str()),
        ("{{reason}}", request.reason.as_str()),
        ("{{request_id}}", &*request.uuid.to_string()),
    ] {
        if filled.contains(placeholder) {
            filled = filled.replace(placeholder, value).into();
        }
    }
    filled.into_owned().into()
}

impl FromIterator<ErrorPage> for ErrorPages {
    fn from_iter<I: IntoIterator<Item = ErrorPage>>(pages: I) -> Self {
        let pages: Arc<[ErrorPage]> = pages.into_iter().collect();
        Self((!pages.is_empty()).then_some(pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(status: u16, reason: Reason) -> PageRequest {
        PageRequest {
            status: StatusCode::from_u16(status).unwrap(),
            reason,
            uuid: Uuid::from_u128(7),
        }
    }

    #[test]
    fn the_first_page_that_fits_is_used_with_its_values() {
        let page = |statuses: &[u16], reasons: &[&str], text: &str| {
            let reasons: Vec<_> = reasons.iter().map(|reason| (*reason).to_owned()).collect();
            ErrorPage::new(statuses, &reasons, Some(text.to_owned()), None).unwrap()
        };
        let pages: ErrorPages = [
            page(&[503], &["no_client"], "offline {{request_id}}"),
            page(&[503, 502], &[], "{{status}} {{reason}} {{other}}"),
        ]
        .into_iter()
        .collect();
        let html = |status, reason| pages.html(&request(status, reason));
        let id = Uuid::from_u128(7);
        assert_eq!(
            html(503, Reason::NoClient).unwrap(),
            format!("offline {id}")
        );
        assert_eq!(html(503, Reason::Limit).unwrap(), "503 limit {{other}}");
        assert_eq!(html(404, Reason::NoTunnel), None);
        assert_eq!(pages.json(&request(503, Reason::Limit)), None);
        assert_eq!(
            ErrorPages::default().html(&request(503, Reason::Limit)),
            None
        );
    }

    #[test]
    fn unknown_statuses_and_reasons_are_rejected() {
        let new = |status, reason: &str| {
            ErrorPage::new(&[status], &[reason.to_owned()], Some(String::new()), None)
        };
        assert!(new(404, "no_tunnel").is_ok());
        assert_eq!(new(302, "no_tunnel"), Err(ErrorPageError::Status(302)));
        let error = ErrorPageError::Reason("none".to_owned());
        assert_eq!(new(404, "none"), Err(error));
        let empty = ErrorPage::new(&[], &[], None, None);
        assert_eq!(empty, Err(ErrorPageError::Empty));
    }
}
