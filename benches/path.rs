//! The cases of [`adit_benches::suites::path`] under criterion.

mod speed;

fn main() {
    speed::bench(&adit_benches::suites::path::SUITE);
}
