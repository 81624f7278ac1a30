//! The cases of [`adit_benches::rooms::pending`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::rooms::pending::ROOM);
}
