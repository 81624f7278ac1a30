//! The cases of [`adit_benches::rooms::balance`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::rooms::balance::ROOM);
}
