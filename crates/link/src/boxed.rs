//! Futures of calls.

use std::{future::Future, pin::Pin};

/// A boxed future. Calls are rare, and a boxed future is compiled in the crate that makes it, not in each crate that
/// awaits it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
