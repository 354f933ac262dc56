//! `recompiler ps`: the running containers, one a line.

use crate::connect::{Connection, Message};

pub fn ps(all: bool) -> Result<u8, String> {
    let mut c = Connection::open()?;
    c.send(&Message { r#type: "ps".into(), all: Some(all), ..Message::default() }, &[])?;
    println!("{:<14} {:<20} {:>8} {:>6} {:<12} IMAGE", "CONTAINER", "NAME", "PID", "TASKS", "STATUS");
    for k in c.receive()?.containers.unwrap_or_default() {
        let status = k.code.map_or("running".to_string(), |c| format!("exited ({c})"));
        println!("{:<14} {:<20} {:>8} {:>6} {status:<12} {}", k.id, k.name, k.pid, k.tasks, k.image);
    }
    Ok(0)
}
