//! A build that is killed goes on from the cache.

use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn start(plan: &Path) -> Child {
    let mut c = Command::new(env!("CARGO_BIN_EXE_vkernel-recompiler"));
    c.arg("batch").arg(plan).stdout(Stdio::piped()).spawn().unwrap()
}

fn event(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_killed_build_goes_on_from_the_cache() {
    let dir = std::env::temp_dir().join(format!("vkernel-resume-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("cache")).unwrap();
    let elfs: Vec<_> = ["/bin/bash", "/bin/ls", "/bin/sort", "/bin/cat", "/bin/true"]
        .into_iter()
        .map(|path| {
            let sha256 = vkernel_recompiler::cache::hex(&Sha256::digest(std::fs::read(path).unwrap()));
            serde_json::json!({ "path": path, "sha256": sha256, "nids": [1] })
        })
        .collect();
    let plan = dir.join("plan.json");
    let text =
        serde_json::json!({ "out": dir.join("mega"), "cache": dir.join("cache"), "translate": true, "elfs": elfs });
    std::fs::write(&plan, text.to_string()).unwrap();

    let mut first = start(&plan);
    let mut done = Vec::new();
    for line in BufReader::new(first.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(sha256) = event(&line)["done"].as_str() {
            done.push(sha256.to_string());
            first.kill().unwrap();
        }
    }
    assert!(!first.wait().unwrap().success(), "it was killed before it had finished");
    assert!(!dir.join("mega").exists());

    let mut second = start(&plan);
    let mut out = String::new();
    second.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(second.wait().unwrap().success());
    let cached: Vec<_> = out.lines().map(event).filter(|e| e["cached"] == true).collect();
    for sha256 in &done {
        assert!(cached.iter().any(|e| e["done"] == sha256.as_str()), "{sha256} was translated again");
    }
    assert!(cached.len() < elfs.len(), "the first build had finished everything");
    assert!(dir.join("mega").exists());
    std::fs::remove_dir_all(&dir).unwrap();
}
