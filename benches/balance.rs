//! The cases of [`adit_benches::suites::balance`] under criterion.

mod speed;

fn main() {
    speed::bench(&adit_benches::suites::balance::SUITE);
}
