//! What the fuzz targets run on their input: real code beside a simple model of it, compared.
//!
//! | target | drives | against |
//! |---|---|---|
//! | [`envelope`] | the envelope parser, ops and targets | `serde_json` |
//! | [`frames`] | the frame guard | a decoder of whole streams |
//! | [`session`] | sessions, parcels, gauges, accounts | a ledger of every message |
//!
//! Each `run` panics where the two differ. The fuzzer calls it (`targets`), and so does a test on
//! stable with every input that is kept (`corpus`, `regressions`).

pub mod envelope;
pub mod frames;
#[path = "../../../src/protocol/scan/oracle.rs"]
mod oracle;
pub mod session;
