//! `recompiler`: `run` and `exec` themselves, every other verb by starting the TypeScript CLI.
//! Exit status as docker's: the program's own, 125 for failures of ours, 126 and 127 from the guest.

mod connect;
mod message;
mod probe;
mod profile;
mod ps;
mod store;
mod tty;
mod watch;

use connect::Connection;
use message::{Bytes, Message, Mount};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

const USAGE: &str = "usage: recompiler run [OPTION]... IMAGE [PATH [ARG...]]
       recompiler exec [-i] [-t] [-e K=V]... [-w DIR] [-u USER] CONTAINER PATH [ARG...]
       recompiler trace [OPTION]... IMAGE [PATH [ARG...]] | trace -p CONTAINER | stats CONTAINER
       recompiler ps [-a | --wait [CONTAINER]] | logs CONTAINER | stop [-t SECONDS] CONTAINER | wait CONTAINER | rm CONTAINER
       recompiler policy CONTAINER [--egress RULE]... [--no-egress]
       recompiler build | verify …   (recompiler help)
options of run:
  -i                    keep standard input
  -t                    give it a terminal
  -d                    detach: print the container's id; its output is kept (recompiler logs)
  -e KEY[=VALUE]        set an environment variable
  -w DIR                working directory, made when missing
  -u USER[:GROUP]       names of the image, or numbers
  -v HOST:GUEST[:ro]    a directory or file of the host
  --tmpfs DIR           an empty directory
  -p [IP:][HOSTPORT]:PORT[/tcp|/udp]
                        publish a port that the image's policy lists
  --name NAME           instead of an id
  --rm                  with -d: forget it when it ends
  --profile FILE        where the time goes and what is interpreted, to FILE; FILE.svg is a flame graph
  --detach-on-close     go on when this command is killed
without PATH the image's own command runs";

#[derive(Default)]
struct Options {
    interactive: bool,
    tty: bool,
    detach: bool,
    detach_on_close: bool,
    rm: bool,
    name: Option<String>,
    env: Vec<OsString>,
    mounts: Vec<Mount>,
    ports: Vec<String>,
    cwd: Option<String>,
    user: Option<String>,
    trace: watch::Options,
    profile: Option<OsString>,
    /// Image or container, path, arguments.
    rest: Vec<OsString>,
}

/// `HOST:GUEST[:ro|:rw]`.
fn mount(text: &str) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, guest, ro) = match parts[..] {
        [host, guest] | [host, guest, "rw"] => (host, guest, false),
        [host, guest, "ro"] => (host, guest, true),
        _ => return Err(format!("-v {text}: it is HOST:GUEST[:ro]")),
    };
    let host = std::path::absolute(host).map_err(|e| format!("-v {text}: {e}"))?;
    Ok(Mount { host: host.to_string_lossy().into_owned(), guest: guest.into(), ro, tmpfs: false })
}

/// `-it` as `-i -t`: short options without values may be joined.
fn split_flags(a: &str) -> Vec<String> {
    let joined = a.len() > 2 && a.starts_with('-') && a[1..].chars().all(|c| "itd".contains(c));
    if joined { a[1..].chars().map(|c| format!("-{c}")).collect() } else { vec![a.to_string()] }
}

fn parse(verb: &str, args: &[OsString]) -> Result<Options, String> {
    let mut o = Options::default();
    let mut it = args.iter();
    'options: while let Some(raw) = it.next() {
        let Some(a) = raw.to_str().filter(|a| a.starts_with('-')) else {
            o.rest.push(raw.clone());
            break;
        };
        let (a, inline) = match a.split_once('=') {
            Some((name, v)) if name.starts_with("--") => (name.to_string(), Some(OsString::from(v))),
            _ => (a.to_string(), None),
        };
        for a in split_flags(&a) {
            let mut value = || inline.clone().or_else(|| it.next().cloned()).ok_or(format!("{a} needs a value"));
            let text = |v: OsString| v.into_string().map_err(|_| format!("{a}: its value is not UTF-8"));
            if verb == "trace" && o.trace.take(&a, &mut value)? {
                continue;
            }
            match (a.as_str(), verb) {
                ("-i" | "--interactive", _) => o.interactive = true,
                ("-t" | "--tty", _) => o.tty = true,
                ("-e" | "--env", _) => o.env.push(value()?),
                ("-w" | "--workdir", _) => o.cwd = Some(text(value()?)?),
                ("-u" | "--user", _) => o.user = Some(text(value()?)?),
                ("--detach-on-close", _) => o.detach_on_close = true,
                ("--rm", "run" | "trace") => o.rm = true,
                ("-d" | "--detach", "run") => o.detach = true,
                ("--profile", "run") => o.profile = Some(value()?),
                ("--name", "run" | "trace") => o.name = Some(text(value()?)?),
                ("-v" | "--volume", "run" | "trace") => o.mounts.push(mount(&text(value()?)?)?),
                ("-p" | "--publish", "run") => o.ports.push(text(value()?)?),
                ("--tmpfs", "run" | "trace") => {
                    o.mounts.push(Mount { host: String::new(), guest: text(value()?)?, ro: false, tmpfs: true });
                }
                ("--", _) => {
                    o.rest.extend(it.next().cloned());
                    break 'options;
                }
                _ => return Err(format!("no option {a}\n{USAGE}")),
            }
        }
    }
    o.rest.extend(it.cloned());
    if verb == "trace" && o.trace.container.is_some() {
        return if o.rest.is_empty() { Ok(o) } else { Err(format!("-p goes without a command\n{}", watch::USAGE)) };
    }
    if o.rest.len() < if verb == "exec" { 2 } else { 1 } {
        return Err(format!("what shall run?\n{}", if verb == "trace" { watch::USAGE } else { USAGE }));
    }
    if o.detach && (o.tty || o.interactive) {
        return Err("-d goes without -i and -t: nobody is there to type".into());
    }
    if o.detach && o.profile.is_some() {
        return Err("--profile goes without -d: the profile is finished when the program ends".into());
    }
    Ok(o)
}

/// What was asked for; the rest is the image's and the daemon's. `-e KEY` takes this process's value.
fn environment(o: &Options) -> Vec<Bytes> {
    let mut env = Vec::new();
    if o.tty
        && let Some(term) = std::env::var_os("TERM")
    {
        env.push(Bytes([b"TERM=", term.as_bytes()].concat()));
    }
    for e in &o.env {
        if e.as_bytes().contains(&b'=') {
            env.push(Bytes(e.as_bytes().to_vec()));
        } else if let Some(v) = std::env::var_os(e) {
            env.push(Bytes([e.as_bytes(), b"=", v.as_bytes()].concat()));
        }
    }
    env
}

fn start(verb: &str, args: &[OsString]) -> Result<u8, String> {
    let mut o = parse(verb, args)?;
    if o.trace.container.is_some() {
        return watch::attach(o.trace, None);
    }
    let tracing = verb == "trace";
    let verb = if tracing { "run" } else { verb };
    let first = o.rest[0].to_str().ok_or("the image's name is not UTF-8")?;
    let image = if verb == "run" { Some(store::resolve(first)?.display().to_string()) } else { None };
    let path =
        o.rest.get(1).map(|p| p.to_str().map(str::to_string).ok_or("the program's path is not UTF-8")).transpose()?;
    let mut c = Connection::open()?;
    let terminal = if o.tty { Some(tty::Terminal::open(o.interactive)?) } else { None };
    let null =
        if o.interactive || o.tty { None } else { Some(std::fs::File::open("/dev/null").map_err(|e| e.to_string())?) };
    let streams = match (&terminal, &null) {
        (Some(t), _) => [t.slave, t.slave, t.slave],
        (None, Some(f)) => [std::os::fd::AsRawFd::as_raw_fd(f), 1, 2],
        (None, None) => [0, 1, 2],
    };
    let profile = match (&o.profile, &image) {
        (Some(file), Some(image)) => Some(profile::Profile::create(file, image)?),
        _ => None,
    };
    let request = Message {
        r#type: verb.into(),
        image,
        profile: profile.as_ref().map(|_| true),
        container: (verb == "exec").then(|| first.to_string()),
        path,
        argv: Some(o.rest[1..].iter().map(|a| Bytes(a.clone().into_vec())).collect()),
        env: Some(environment(&o)),
        cwd: o.cwd.clone(),
        user: o.user.clone(),
        tty: Some(o.tty),
        name: o.name.clone(),
        rm: Some(o.rm),
        detached: Some(o.detach),
        detach_on_close: Some(o.detach_on_close),
        ports: (!o.ports.is_empty()).then(|| std::mem::take(&mut o.ports)),
        mounts: (!o.mounts.is_empty()).then(|| std::mem::take(&mut o.mounts)),
        watch: tracing.then(|| o.trace.watch()),
        ..Message::default()
    };
    let signals = tty::forwarded_signals()?;
    let mut printer =
        if tracing { Some(watch::Printer::new(std::mem::take(&mut o.trace), o.tty && o.interactive)?) } else { None };
    let mut fds = if o.detach { Vec::new() } else { streams.to_vec() };
    fds.extend(profile.as_ref().map(profile::Profile::fd));
    c.send(&request, &fds)?;
    if o.detach {
        return c.print_id();
    }
    if let Some(t) = &terminal {
        t.close_slave();
    }
    let result = c.follow(signals, terminal, printer.as_mut());
    if let Some(p) = &mut printer {
        p.finish();
    }
    let code = result?;
    if let Some(p) = profile {
        p.report()?;
    }
    Ok(code)
}

/// logs, stop, wait, rm: one container each.
fn on_container(verb: &str, args: &[OsString]) -> Result<u8, String> {
    let mut timeout_ms = None;
    let mut which = None;
    let mut it = args.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(a) = it.next() {
        match (a.as_str(), verb) {
            ("-t" | "--time", "stop") => {
                let seconds = it.next().and_then(|v| v.parse::<f64>().ok()).filter(|v| (0.0..=3600.0).contains(v));
                timeout_ms = Some((seconds.ok_or("stop -t takes seconds, at most 3600")? * 1000.0) as u32);
            }
            _ if a.starts_with('-') || which.is_some() => return Err(format!("{verb} takes one container\n{USAGE}")),
            _ => which = Some(a),
        }
    }
    let container = Some(which.ok_or(format!("{verb}: which container?\n{USAGE}"))?);
    let mut c = Connection::open()?;
    c.send(&Message { r#type: verb.into(), container, timeout_ms, ..Message::default() }, &[])?;
    c.outcome(verb)
}

/// policy: what a container may reach, has used and was refused; `--egress` and `--no-egress` narrow it.
fn policy(args: &[OsString]) -> Result<u8, String> {
    let mut egress: Option<Vec<String>> = None;
    let mut which = None;
    let mut it = args.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(a) = it.next() {
        match a.as_str() {
            "--egress" => egress.get_or_insert_default().push(it.next().ok_or("--egress needs a rule")?),
            "--no-egress" => drop(egress.get_or_insert_default()),
            _ if a.starts_with('-') || which.is_some() => {
                return Err(format!("policy takes one container, --egress RULE and --no-egress\n{USAGE}"));
            }
            _ => which = Some(a),
        }
    }
    let container = Some(which.ok_or(format!("policy: which container?\n{USAGE}"))?);
    let mut c = Connection::open()?;
    c.send(&Message { r#type: "policy".into(), container, egress, ..Message::default() }, &[])?;
    let r = c.policy()?;
    println!("network      {}", r.network.unwrap_or_default());
    for (name, list) in [("egress", r.egress), ("published", r.ports)] {
        let list = list.unwrap_or_default();
        println!("{name:<12} {}", if list.is_empty() { "none".into() } else { list.join(", ") });
    }
    let (connections, open, bytes) = (r.connections, r.open, r.bytes);
    println!(
        "used         {} connections, {} of them to the outside and open, {} bytes",
        connections.unwrap_or(0.0),
        open.unwrap_or(0.0),
        bytes.unwrap_or(0.0)
    );
    for d in r.refused.unwrap_or_default() {
        println!("refused      {:>6} {} {}", d.count, d.rule, d.program);
    }
    Ok(0)
}

/// The TypeScript CLI.
fn typescript() -> std::process::Command {
    let root = connect::root();
    let mut c = std::process::Command::new(root.join("node_modules/.bin/node"));
    c.arg(root.join("src/cli/main.ts"));
    c
}

fn no_typescript(e: &std::io::Error) -> String {
    let root = connect::root();
    format!("cannot start the command line's other half in {}: {e}; run `npm run build` there", root.display())
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match args.first().and_then(|a| a.to_str()) {
        Some(verb @ ("run" | "exec" | "trace")) => start(verb, &args[1..]),
        Some(verb @ ("logs" | "stop" | "wait" | "rm")) => on_container(verb, &args[1..]),
        Some("policy") => policy(&args[1..]),
        Some("stats") => watch::stats(&args[1..]),
        Some("ps") if args.get(1).is_some_and(|a| a == "--wait") && args.len() < 4 => {
            ps::waits(args.get(2).map(|a| a.to_string_lossy().into_owned()))
        }
        Some("ps") if args.len() < 3 && args.get(1).is_none_or(|a| a == "-a") => ps::ps(args.len() == 2),
        Some("probe") => {
            println!("{}", probe::probe());
            Ok(0)
        }
        _ => {
            use std::os::unix::process::CommandExt;
            Err(no_typescript(&typescript().args(&args).exec()))
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("recompiler: {e}");
            ExitCode::from(connect::failure_status())
        }
    }
}
