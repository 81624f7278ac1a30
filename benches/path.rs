//! The cases of [`adit_benches::rooms::path`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::rooms::path::ROOM);
}
