//! The cases of [`adit_benches::rooms::reconnect`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::rooms::reconnect::ROOM);
}
