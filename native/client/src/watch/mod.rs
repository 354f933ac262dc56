//! `trace` and `stats`: a container's system calls, each one a line or all of them a table.

pub mod format;
pub mod symbols;

use crate::connect::Connection;
use crate::message::{Bytes, CallStats, Message, Reply, Watch};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, Instant};
use vkernel_abi::generated::{ring as abi, table::TABLE};
use vkernel_abi::syscall::{Arg, Syscall};

pub const USAGE: &str = "usage: recompiler trace [OPTION]... [OPTION of run]... IMAGE [PATH [ARG...]]
       recompiler trace [OPTION]... -p CONTAINER
       recompiler stats [-t SECONDS] CONTAINER
options:
  -p CONTAINER          a running container; ^C ends the trace, not the container
  -e CALL[,CALL]...     only these: names, %file %net %process %signal %mm %fd %ipc %poll %time %system;
                        a leading ! means all but these
  -Z                    only what failed
  --errno NAME[,NAME]   only what failed so
  -c                    no lines: a table of counts and times at the end
  -T                    each call's time and who answered it
  -s BYTES              of each string (32)
  -o FILE               there instead of standard error; -: standard output
  --env KEY[=VALUE]     for the program, where run has -e";

/// What to show of the calls.
pub struct Options {
    calls: Vec<u8>,
    bytes: u32,
    failed: bool,
    errno: Vec<u64>,
    pub counts: bool,
    times: bool,
    out: Option<OsString>,
    pub container: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let calls = vec![0xff; abi::STATS_CALLS / 8];
        Self {
            calls,
            bytes: 32,
            failed: false,
            errno: Vec::new(),
            counts: false,
            times: false,
            out: None,
            container: None,
        }
    }
}

/// Whether an item of `-e` means this call.
fn means(item: &str, s: &Syscall) -> bool {
    match item.strip_prefix('%') {
        // strace's: what takes the name of a file.
        Some("file") => s.group == "file" || s.args.contains(&Arg::Path),
        Some("network") => s.group == "net",
        Some("desc") => s.group == "fd" || s.args.contains(&Arg::Fd),
        Some("memory") => s.group == "mm",
        Some("signals") => s.group == "signal",
        Some(group) => s.group == group || group == "process" && matches!(s.name, "wait4" | "waitid"),
        None => s.name == item,
    }
}

fn filter(text: &str) -> Result<Vec<u8>, String> {
    let (but, text) = text.strip_prefix('!').map_or((false, text), |t| (true, t));
    let text = text.strip_prefix("trace=").unwrap_or(text);
    let mut calls = vec![0u8; abi::STATS_CALLS / 8];
    for item in text.split(',') {
        let mut any = false;
        for s in TABLE.iter().filter(|s| means(item, s)) {
            calls[s.nr as usize / 8] |= 1 << (s.nr % 8);
            any = true;
        }
        if !any {
            return Err(format!("-e {item}: no system call or group is named so\n{USAGE}"));
        }
    }
    if but {
        calls.iter_mut().for_each(|b| *b = !*b);
    }
    Ok(calls)
}

impl Options {
    /// Takes an option of trace; false: it is none.
    pub fn take(&mut self, a: &str, mut value: impl FnMut() -> Result<OsString, String>) -> Result<bool, String> {
        let mut text = || value()?.into_string().map_err(|_| format!("{a}: its value is not UTF-8"));
        match a {
            "-e" => self.calls = filter(&text()?)?,
            "-Z" => self.failed = true,
            "--errno" => {
                for name in text()?.split(',') {
                    self.errno.push(symbols::errno_of(name).ok_or(format!("--errno: there is no error {name}"))?);
                }
            }
            "-c" => self.counts = true,
            "-T" => self.times = true,
            "-s" => {
                let n = text()?.parse().ok().filter(|n| *n <= 8192);
                self.bytes = n.ok_or("-s takes bytes, at most 8192")?;
            }
            "-o" => self.out = Some(text()?.into()),
            "-p" => self.container = Some(text()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What the daemon shall send.
    pub fn watch(&self) -> Watch {
        Watch { calls: Bytes(self.calls.clone()), bytes: self.bytes, records: !self.counts, stats: self.counts }
    }
}

/// Where lines go.
pub struct Printer {
    o: Options,
    out: Box<dyn Write>,
    eol: &'static str,
    before: HashMap<u32, CallStats>,
}

impl Printer {
    /// `raw`: the terminal that standard error goes to is in raw mode.
    pub fn new(o: Options, raw: bool) -> Result<Self, String> {
        let out: Box<dyn Write> = match &o.out {
            Some(path) if path == "-" => Box::new(std::io::stdout()),
            Some(path) => Box::new(std::io::BufWriter::new(
                std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()))?,
            )),
            None => Box::new(std::io::stderr()),
        };
        Ok(Self { eol: if raw && o.out.is_none() { "\r\n" } else { "\n" }, o, out, before: HashMap::new() })
    }

    fn print(&mut self, text: &str) {
        // Nobody reads any more: what was asked for is the program's run.
        let _ = write!(self.out, "{text}{}", self.eol);
    }

    fn wanted(&self, ret: Option<i64>) -> bool {
        let errno = ret.filter(|r| (-4095..0).contains(r)).map(i64::unsigned_abs);
        match errno {
            Some(n) => self.o.errno.is_empty() || self.o.errno.contains(&n),
            None => !self.o.failed && self.o.errno.is_empty(),
        }
    }

    /// A message of the daemon's that is about calls.
    pub fn message(&mut self, m: Reply) {
        match m.r#type.as_str() {
            "record" => {
                let Some(Ok(r)) = m.record.map(|b| rmp_serde::from_slice::<format::Record>(&b.0)) else { return };
                if self.wanted(r.ret) {
                    let line = format::line(&r, self.o.bytes as usize, self.o.times);
                    self.print(&line);
                }
            }
            "lost" => self
                .print(&format!("[{} calls left out: they came faster than they were read]", m.records.unwrap_or(0.0))),
            "stats" => {
                for s in m.calls.unwrap_or_default() {
                    self.before.insert(s.nr, s);
                }
            }
            _ => {}
        }
    }

    /// The table of what was counted since `base`.
    pub fn table(&mut self, base: &HashMap<u32, CallStats>) {
        let mut rows: Vec<CallStats> =
            self.before.values().map(|s| s.since(base.get(&s.nr))).filter(|s| s.count > 0.0).collect();
        rows.sort_by(|a, b| b.ns.total_cmp(&a.ns));
        let total = rows.iter().fold(0.0, |a, r| a + r.ns);
        self.print(&format!(
            "{:>7} {:>11} {:>9} {:>8} {:>9} {:>9} {:>10}  call",
            "% time", "seconds", "calls", "errors", "p50 µs", "p99 µs", "max µs"
        ));
        for r in &rows {
            let name = vkernel_abi::syscall::find(r.nr.into()).map_or("?", |s| s.name);
            let share = if total > 0.0 { 100.0 * r.ns / total } else { 0.0 };
            self.print(&format!(
                "{share:>7.2} {:>11.6} {:>9} {:>8} {:>9} {:>9} {:>10.1}  {name}",
                r.ns / 1e9,
                r.count,
                r.failed,
                r.below(0.5),
                r.below(0.99),
                r.longest / 1000.0
            ));
        }
        let sum = |f: fn(&CallStats) -> f64| rows.iter().map(f).fold(0.0, |a, b| a + b);
        self.print(&format!(
            "{:>7} {:>11.6} {:>9} {:>8} {:>30}  total",
            "100.00",
            total / 1e9,
            sum(|r| r.count),
            sum(|r| r.failed),
            ""
        ));
    }

    pub fn finish(&mut self) {
        if self.o.counts {
            self.table(&HashMap::new());
        }
        let _ = self.out.flush();
    }
}

impl CallStats {
    fn since(&self, old: Option<&Self>) -> Self {
        let mut s = self.clone();
        if let Some(o) = old {
            s.count -= o.count;
            s.failed -= o.failed;
            s.ns -= o.ns;
            s.below.iter_mut().zip(&o.below).for_each(|(n, m)| *n -= m);
        }
        s
    }

    /// µs that this share of the calls did not reach, to a power of two.
    fn below(&self, share: f64) -> String {
        let all: f64 = self.below.iter().sum();
        let mut seen = 0.0;
        for (n, k) in self.below.iter().enumerate() {
            seen += k;
            if seen >= share * all {
                let us = 0.064 * (1u64 << n) as f64;
                return if n + 1 == self.below.len() {
                    format!(">{:.0}", us / 2.0)
                } else if us < 10.0 {
                    format!("<{us:.2}")
                } else {
                    format!("<{us:.0}")
                };
            }
        }
        "-".into()
    }
}

/// Watches a running container until it ends, `time` is over, or ^C.
pub fn attach(o: Options, time: Option<Duration>) -> Result<u8, String> {
    let container = o.container.clone();
    let watch = o.watch();
    let counts = o.counts;
    let mut p = Printer::new(o, false)?;
    let mut c = Connection::open()?;
    let signals = crate::tty::forwarded_signals()?;
    let request = Message {
        r#type: "watch".into(),
        container,
        calls: Some(watch.calls),
        bytes: Some(watch.bytes),
        records: Some(watch.records),
        stats: Some(watch.stats),
        ..Message::default()
    };
    c.send(&request, &[])?;
    let deadline = time.map(|t| Instant::now() + t);
    let mut base: Option<HashMap<u32, CallStats>> = None;
    let mut over = false;
    loop {
        let left = deadline.map_or(-1, |d| d.saturating_duration_since(Instant::now()).as_millis() as i32);
        let ready = c.wait(signals, if over { -1 } else { left })?;
        if !ready && !over {
            // Time is over, or ^C.
            if !counts {
                break;
            }
            over = true;
            c.send(&Message { r#type: "stats".into(), ..Message::default() }, &[])?;
        }
        if !ready {
            continue;
        }
        let m = c.receive()?;
        match m.r#type.as_str() {
            "error" => return Err(crate::connect::failure(m)),
            "exit" => break,
            "stats" => {
                p.message(m);
                if base.is_none() {
                    base = Some(p.before.clone());
                } else if over {
                    break;
                }
            }
            _ => p.message(m),
        }
    }
    if counts {
        p.table(&base.unwrap_or_default());
    }
    let _ = p.out.flush();
    Ok(0)
}

/// `stats [-t SECONDS] CONTAINER`.
pub fn stats(args: &[OsString]) -> Result<u8, String> {
    let mut o = Options { counts: true, ..Options::default() };
    let mut time = None;
    let mut it = args.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(a) = it.next() {
        match a.as_str() {
            "-t" => {
                let v = it.next().and_then(|v| v.parse::<f64>().ok()).filter(|v| (0.0..=86_400.0).contains(v));
                time = Some(Duration::from_secs_f64(v.ok_or("stats -t takes seconds")?));
            }
            _ if a.starts_with('-') || o.container.is_some() => {
                return Err(format!("stats takes one container\n{USAGE}"));
            }
            _ => o.container = Some(a),
        }
    }
    if o.container.is_none() {
        return Err(format!("stats: which container?\n{USAGE}"));
    }
    // The table is what was asked for: standard output.
    o.out = Some("-".into());
    attach(o, time)
}
