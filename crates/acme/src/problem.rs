//! The types of ACME's problem documents (RFC 8555, 6.7).

use instant_acme::{Error as AcmeError, Problem};

/// The beginning of the types.
pub(crate) const TYPE: &str = "urn:ietf:params:acme:error:";

/// Whether the error is a problem of this type.
pub(crate) fn is_problem(error: &AcmeError, kind: &str) -> bool {
    match error {
        AcmeError::Api(problem) => has_type(problem, kind),
        _ => false,
    }
}

/// Whether the problem is of this type.
pub(crate) fn has_type(problem: &Problem, kind: &str) -> bool {
    let full = problem.r#type.as_deref();
    full.and_then(|full| full.strip_prefix(TYPE)) == Some(kind)
}
