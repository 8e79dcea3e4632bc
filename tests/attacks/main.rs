//! Attacks on a gateway: each is met by its own limit, is counted, and costs neither memory nor the
//! others' time.
//!
//! A binary of its own, whose tests take turns: two bystanders' delivery times are compared with and
//! without the attack in the same run, which nothing else on the machine's cores should disturb (see
//! [`priority`]). Only in release builds (`cargo test --release --test attacks`): a debug build spends
//! its time elsewhere.

#![cfg(not(debug_assertions))]

mod attack;
mod attacker;
mod bystanders;
mod floods;
mod guesses;
mod handshakes;
mod idle;
mod priority;
mod queued;
mod slow;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the broker's tests, which use all of it")]
mod support;
