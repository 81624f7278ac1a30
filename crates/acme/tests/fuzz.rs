//! The decoder of answers of name servers against random bytes: no panic, no loop, and names that are read are written again
//! as they were. On stable a test, with an engine a fuzz target.
#![allow(missing_docs)]

#[test]
fn answers_of_name_servers() {
    bolero::check!().for_each(|bytes| {
        let _ = adit_acme::fuzz_answer(bytes);
    });
}

#[test]
fn answers_with_a_valid_head() {
    bolero::check!().for_each(|bytes| {
        let count = bytes.first().copied().unwrap_or(0) & 7;
        let head = [0, 1, 0x80, 0, 0, 0, 0, count, 0, 0, 0, 0];
        let _ = adit_acme::fuzz_answer(&[&head[..], bytes].concat());
    });
}
