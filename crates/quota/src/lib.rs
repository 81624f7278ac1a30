//! Quotas of bytes and requests, per day and per month.
//!
//! Holds:
//! - [`Calendar`], the time zone in which days and months begin, and [`Periods`], the day and the month of a moment;
//! - [`Usage`], what has been used in them, in the form in which it is stored;
//! - [`Quota`], how much may be used, and [`Exceeded`], which of its numbers does not allow more, and until when.
//!
//! Promises:
//! - a usage counts from zero at the beginning of a day and of a month, and at no other moment: not when the clock is set
//!   back;
//! - the time of reset is the beginning of the next day or month in the time zone, also where its clocks change.
//!
//! Leaves to the caller: the clock, whose usage it is, and where it is stored.
//!
//! Cost: a comparison; the calendar is used once for each day.
//!
//! Proof: the tests beside the code, with random times.

mod calendar;
mod quota;
mod usage;

pub use calendar::{Calendar, Periods, UnknownTimeZone};
pub use jiff::Timestamp;
pub use quota::{Exceeded, Quota, QuotaKind};
pub use usage::Usage;
