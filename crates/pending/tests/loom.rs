//! Each pair of concurrent calls, in every order that memory allows. The comment of each scenario names the fault that
//! it finds.
#![cfg(adit_loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scenarios;

#[test]
fn complete_races_expire() {
    loom::model(scenarios::complete_races_expire);
}

#[test]
fn complete_races_cancel() {
    loom::model(scenarios::complete_races_cancel);
}

#[test]
fn cancel_races_close() {
    loom::model(scenarios::cancel_races_close);
}

#[test]
fn expire_races_close() {
    loom::model(scenarios::expire_races_close);
}

#[test]
fn insert_races_close() {
    loom::model(scenarios::insert_races_close);
}

#[test]
fn lookup_races_settle() {
    loom::model(scenarios::lookup_races_settle);
}

#[test]
fn insert_races_insert_for_the_last_place() {
    loom::model(scenarios::insert_races_insert_for_the_last_place);
}

#[test]
fn set_deadline_races_expire() {
    loom::model(scenarios::set_deadline_races_expire);
}
