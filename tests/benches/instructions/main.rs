//! What the parts of the gateway that count cost, in instructions, as callgrind counts them.
//!
//! `tests/benches/run` runs them and compares what they cost with `tests/benches/baseline.json`. What
//! is made in a `setup`, and what a benchmark returns, is not counted.

mod pool;
mod post;
mod service;
mod traffic;

use std::collections::VecDeque;
use std::hint::black_box;

use gateway::microbench;
use gateway::protocol::name::Name;
use gateway::protocol::scan::{Limits, scan};
use gateway::state::account::{Amount, End};
use gateway::state::parcel::Parcel;
use gateway::state::route::Shared;
use gungraun::prelude::*;

use self::pool::{Next, Pool};
use self::post::Line;
use self::service::{OUTSTANDING, Service, acknowledging_with_post, away_and_full, away_with_post, owing};
use self::traffic::{Style, message};

// 64 masked frames of one read, from the bytes of the socket to the parcel for their target.
#[library_benchmark]
#[bench::of_256_bytes(args = (256), setup = Line::of)]
#[bench::of_1024_bytes(args = (1_024), setup = Line::of)]
fn route_64_messages(mut line: Line) -> Line {
    line.read();
    line
}

fn text(bytes: usize, style: Style) -> String {
    message("backend", bytes, style)
}

// One message: is it JSON, and where are its keys?
#[library_benchmark]
#[bench::compact_256_bytes(args = (256, Style::Compact), setup = text)]
#[bench::compact_1024_bytes(args = (1_024, Style::Compact), setup = text)]
#[bench::compact_16384_bytes(args = (16_384, Style::Compact), setup = text)]
#[bench::spaced_256_bytes(args = (256, Style::Spaced), setup = text)]
#[bench::spaced_1024_bytes(args = (1_024, Style::Spaced), setup = text)]
#[bench::spaced_16384_bytes(args = (16_384, Style::Spaced), setup = text)]
fn scan_message(text: String) -> String {
    black_box(scan(black_box(&text), Limits { max_depth: 128 }).is_ok());
    text
}

// 1,024 messages of 256 bytes come for a service that is away.
#[library_benchmark]
#[bench::one_by_one(args = (OUTSTANDING, 1), setup = away_with_post)]
#[bench::in_bursts_of_64(args = (OUTSTANDING / 64, 64), setup = away_with_post)]
fn push_1024_messages((mut service, parcels): (Service, VecDeque<Parcel>)) -> Service {
    service.deliver(parcels);
    service
}

// It comes back and takes them.
#[library_benchmark]
#[bench::one_by_one(args = (OUTSTANDING, 1), setup = away_and_full)]
#[bench::in_bursts_of_64(args = (OUTSTANDING / 64, 64), setup = away_and_full)]
fn pop_1024_messages(mut service: Service) -> Service {
    service.attach(false);
    assert_eq!(service.waiting(), 0);
    service
}

// 1,024 messages of 256 bytes are numbered, handed over, and kept.
#[library_benchmark]
#[bench::one_by_one(args = (OUTSTANDING, 1), setup = acknowledging_with_post)]
#[bench::in_bursts_of_64(args = (OUTSTANDING / 64, 64), setup = acknowledging_with_post)]
fn number_1024_messages((mut service, parcels): (Service, VecDeque<Parcel>)) -> Service {
    service.deliver(parcels);
    service
}

// One ACK for half of 1,024 messages that wait for it.
#[library_benchmark]
#[bench::one_by_one(args = (OUTSTANDING, 1), setup = owing)]
#[bench::in_bursts_of_64(args = (OUTSTANDING / 64, 64), setup = owing)]
fn acknowledge_512_messages(mut service: Service) -> Service {
    service.acknowledge(512);
    service
}

// One step of the pool of 4,096 shard ids.
#[library_benchmark]
#[bench::connect(args = (Next::Connect), setup = Pool::before)]
#[bench::ready(args = (Next::Ready), setup = Pool::before)]
#[bench::death(args = (Next::Death), setup = Pool::before)]
#[bench::left(args = (Next::Left), setup = Pool::before)]
#[bench::wake(args = (Next::Wake), setup = Pool::before)]
fn step_4096_shards(mut pool: Pool) -> Pool {
    black_box(pool.go_on());
    pool
}

/// So many services, each of which has talked with one of 8 backends.
fn talked(services: u32) -> Shared {
    let shared = Shared::new(20_000, 1 << 40);
    let name = |kind: &str, index: u32| Name::new(&format!("{kind}-{index}")).unwrap();
    for index in 0..services {
        let (service, backend) = (name("shard", index), name("backend", index % 8));
        for (source, target) in [(&service, &backend), (&backend, &service)] {
            let entry = shared.accounts.entry(source, Some(target));
            let amount =
                Amount { messages: u64::from(index) * 31 + 2, bytes: u64::from(index) * 7_919 + 600 };
            entry.accept(amount);
            entry.end(Amount::message(300), End::Delivered);
        }
    }
    shared
}

// What became of every message, in Prometheus's text format.
#[library_benchmark]
#[bench::of_10000_services(args = (10_000), setup = talked)]
fn scrape(shared: Shared) -> (Shared, String) {
    let text = microbench::scrape(&shared);
    (shared, text)
}

library_benchmark_group!(
    name = gateway_parts,
    benchmarks = [
        route_64_messages,
        scan_message,
        push_1024_messages,
        pop_1024_messages,
        number_1024_messages,
        acknowledge_512_messages,
        step_4096_shards,
        scrape
    ]
);

main!(library_benchmark_groups = gateway_parts);
