//! The cases of [`adit_benches::suites::pending`] under criterion.

mod speed;

fn main() {
    speed::bench(&adit_benches::suites::pending::SUITE);
}
