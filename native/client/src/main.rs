//! `recompiler`: `run` and `exec` themselves, every other verb by starting the TypeScript CLI.
//! Exit status as docker's: the program's own, 125 for failures of ours, 126 and 127 from the guest.

mod connect;
mod probe;
mod store;
mod tty;

use connect::{Connection, Message};
use std::process::ExitCode;

const USAGE: &str = "usage: recompiler run [--rm] [-i] [-t] [-e K=V]... [-w DIR] [-u USER] IMAGE PATH [ARG...]
       recompiler exec [-i] [-t] [-e K=V]... [-w DIR] [-u USER] CONTAINER PATH [ARG...]
       recompiler ps
       recompiler build | verify …   (recompiler help)";

struct Options {
    interactive: bool,
    tty: bool,
    env: Vec<String>,
    cwd: String,
    user: String,
    /// Image or container, path, arguments.
    rest: Vec<String>,
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut o = Options { interactive: false, tty: false, env: Vec::new(), cwd: "/".into(), user: "0".into(), rest: Vec::new() };
    let mut it = args.iter();
    while let Some(a) = it.next() {
        let mut value = |name: &str| it.next().cloned().ok_or(format!("{name} needs a value"));
        match a.as_str() {
            "--rm" => {}
            "-i" | "--interactive" => o.interactive = true,
            "-t" | "--tty" => o.tty = true,
            "-it" | "-ti" => (o.interactive, o.tty) = (true, true),
            "-e" | "--env" => o.env.push(value("-e")?),
            "-w" | "--workdir" => o.cwd = value("-w")?,
            "-u" | "--user" => o.user = value("-u")?,
            "-v" | "--volume" => return Err("-v is not there yet: a container sees its image only (docs/quirks.md)".into()),
            "--" => {}
            flag if flag.starts_with('-') => return Err(format!("no option {flag}\n{USAGE}")),
            first => {
                o.rest.push(first.to_string());
                o.rest.extend(it.cloned());
                break;
            }
        }
    }
    if o.rest.len() < 2 {
        return Err(format!("what shall run?\n{USAGE}"));
    }
    Ok(o)
}

/// The guest's environment: docker's default PATH, HOME, TERM with a terminal, and what was asked.
fn environment(o: &Options) -> Vec<String> {
    let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string(), "HOME=/root".into()];
    if o.tty {
        env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    for e in &o.env {
        let (key, given) = e.split_once('=').map_or((e.as_str(), None), |(k, v)| (k, Some(v)));
        let v = given.map(str::to_string).or_else(|| std::env::var(key).ok());
        env.retain(|old| old.split('=').next() != Some(key));
        if let Some(v) = v {
            env.push(format!("{key}={v}"));
        }
    }
    env
}

fn start(verb: &str, args: &[String]) -> Result<u8, String> {
    let o = parse(args)?;
    let image = if verb == "run" { store::resolve(&o.rest[0])?.display().to_string() } else { String::new() };
    let mut c = Connection::open()?;
    let terminal = if o.tty { Some(tty::Terminal::open(o.interactive)?) } else { None };
    let null = if o.interactive || o.tty { None } else { Some(std::fs::File::open("/dev/null").map_err(|e| e.to_string())?) };
    let fds = match (&terminal, &null) {
        (Some(t), _) => [t.slave, t.slave, t.slave],
        (None, Some(f)) => [std::os::fd::AsRawFd::as_raw_fd(f), 1, 2],
        (None, None) => [0, 1, 2],
    };
    let request = Message {
        r#type: verb.into(),
        image: Some(image),
        container: (verb == "exec").then(|| o.rest[0].clone()),
        path: Some(o.rest[1].clone()),
        argv: Some(o.rest[1..].to_vec()),
        env: Some(environment(&o)),
        cwd: Some(o.cwd.clone()),
        user: Some(o.user.clone()),
        tty: Some(o.tty),
        ..Message::default()
    };
    let signals = tty::forwarded_signals()?;
    c.send(&request, &fds)?;
    if let Some(t) = &terminal {
        t.close_slave();
    }
    c.follow(signals, terminal)
}

/// Starts the TypeScript CLI in place of this process.
fn typescript(args: &[String]) -> String {
    use std::os::unix::process::CommandExt;
    let root = connect::root();
    let e = std::process::Command::new(root.join("node_modules/.bin/node"))
        .arg(root.join("src/cli/main.ts"))
        .args(args)
        .exec();
    format!("cannot start the command line's other half in {}: {e}; run `npm run build` there", root.display())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some(verb @ ("run" | "exec")) => start(verb, &args[1..]),
        Some("ps") => connect::ps(),
        Some("probe") => {
            println!("{}", probe::probe());
            Ok(0)
        }
        _ => Err(typescript(&args)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("recompiler: {e}");
            ExitCode::from(125)
        }
    }
}
