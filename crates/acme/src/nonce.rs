//! Requests whose nonce a CA refuses.

/// How often a request is made again, each time with the attempts of the library.
pub(crate) const REPEATS: usize = 4;

/// Makes a request again while the CA refuses its nonce, which is not a failure of the order (RFC 8555, 6.5). The library
/// makes three attempts; a CA of several machines that know each other's nonces late refuses more.
macro_rules! with_nonce {
    ($request:expr) => {{
        let mut repeats = 0;
        loop {
            match $request.await {
                Err(error)
                    if repeats < $crate::nonce::REPEATS
                        && $crate::problem::is_problem(&error, "badNonce") =>
                {
                    repeats += 1;
                }
                ended => break ended,
            }
        }
    }};
}

pub(crate) use with_nonce;
