//! Straight programs, one instruction or several in a row, on the host CPU, in the interpreter and as
//! translated code. `DIFFTEST_CASES=10000000 cargo test --release -p vkernel-difftest -- --ignored`
//! runs as many as asked for, of another seed each time unless `DIFFTEST_SEED` is set.

use vkernel_difftest::compare::{Report, graphs, straight};

fn check(what: &str, seed: u64, r: &Report) {
    eprintln!(
        "{} cases of {what}, seed {seed:#x}: {} codes, {} as translated code alone, {} differences",
        r.interpreted, r.codes, r.lifted, r.failures
    );
    if r.failures > 0 {
        eprintln!("by instruction: {:?}", r.wrong);
    }
    assert_eq!(r.failures, 0);
    assert!(r.unknown.is_empty(), "instructions without semantics: {:?}", r.unknown);
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

#[test]
fn single_instructions() {
    let r = straight(SEED, 30_000, 1..2, 8);
    check("single instructions", SEED, &r);
    assert!(r.lifted >= 195_000, "only {} cases ran as translated code", r.lifted);
    assert!(r.codes >= 1_040, "only {} instruction codes came up", r.codes);
}

#[test]
fn sequences() {
    let r = straight(!SEED, 10_000, 3..9, 4);
    check("sequences", !SEED, &r);
    assert!(r.lifted >= 25_000, "only {} cases ran as translated code", r.lifted);
}

#[test]
fn control_flow() {
    let r = graphs(SEED, 3_000, 6);
    check("control-flow graphs", SEED, &r);
    assert!(r.lifted >= 5_000, "only {} cases ran as translated code", r.lifted);
}

/// (cases, seed) of the long runs.
fn long() -> (usize, u64) {
    let number = |name: &str| {
        let v = std::env::var(name).ok()?;
        Some(v.strip_prefix("0x").map_or_else(|| v.parse(), |h| u64::from_str_radix(h, 16)).expect("a number"))
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = number("DIFFTEST_SEED").unwrap_or(now.as_nanos() as u64);
    (number("DIFFTEST_CASES").unwrap_or(10_000_000) as usize, seed)
}

#[test]
#[ignore = "as long as DIFFTEST_CASES says"]
fn many_single_instructions() {
    let (cases, seed) = long();
    check("single instructions", seed, &straight(seed, cases / 2 / 16, 1..2, 16));
}

#[test]
#[ignore = "as long as DIFFTEST_CASES says"]
fn many_sequences() {
    let (cases, seed) = long();
    check("sequences", seed, &straight(seed, cases * 3 / 8 / 16, 3..9, 16));
}

#[test]
#[ignore = "as long as DIFFTEST_CASES says"]
fn many_control_flow_graphs() {
    let (cases, seed) = long();
    check("control-flow graphs", seed, &graphs(seed, cases / 8 / 16, 16));
}
