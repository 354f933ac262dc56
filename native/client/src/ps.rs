//! `recompiler ps`: the running containers, one a line; with `--wait` their threads, and what each waits on.

use crate::connect::{Connection, failure};
use crate::message::Message;
use crate::watch::format;

pub fn ps(all: bool) -> Result<u8, String> {
    let mut c = Connection::open()?;
    c.send(&Message { r#type: "ps".into(), all: Some(all), ..Message::default() }, &[])?;
    println!("{:<14} {:<20} {:>8} {:>6} {:<12} {:<24} IMAGE", "CONTAINER", "NAME", "PID", "TASKS", "STATUS", "PORTS");
    for k in c.receive()?.containers.unwrap_or_default() {
        let status = k.code.map_or("running".to_string(), |c| format!("exited ({c})"));
        println!(
            "{:<14} {:<20} {:>8} {:>6} {status:<12} {:<24} {}",
            k.id,
            k.name,
            k.pid,
            k.tasks,
            k.ports.join(", "),
            k.image
        );
    }
    Ok(0)
}

pub fn waits(container: Option<String>) -> Result<u8, String> {
    let mut c = Connection::open()?;
    c.send(&Message { r#type: "waits".into(), container, ..Message::default() }, &[])?;
    let m = c.receive()?;
    if m.r#type == "error" {
        return Err(failure(m));
    }
    println!("{:<14} {:>6} {:>6} S {:<20} WAITS ON", "CONTAINER", "PID", "TID", "PROGRAM");
    for w in m.waits.unwrap_or_default() {
        let call = u32::try_from(w.nr).map_or(String::new(), |nr| format::call(nr, &w.args, &[], 32));
        let gap = if call.is_empty() || w.on.is_empty() { "" } else { ": " };
        println!("{:<14} {:>6} {:>6} {} {:<20} {call}{gap}{}", w.container, w.pid, w.tid, w.state, w.program, w.on);
    }
    Ok(0)
}
