//! What goes over the control socket (docs/abi.md).

use serde::{Deserialize, Serialize};

/// Bytes that need not be UTF-8, as msgpack's bin.
#[derive(Debug)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

struct BytesVisitor;
impl serde::de::Visitor<'_> for BytesVisitor {
    type Value = Bytes;
    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("bytes")
    }
    fn visit_bytes<E>(self, v: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(v.to_vec()))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_bytes(BytesVisitor)
    }
}

/// Which calls of a container are of interest (docs/abi.md).
#[derive(Serialize, Debug)]
pub struct Watch {
    pub calls: Bytes,
    pub bytes: u32,
    pub records: bool,
    pub stats: bool,
}

#[derive(Serialize, Debug)]
pub struct Mount {
    pub host: String,
    pub guest: String,
    pub ro: bool,
    pub tmpfs: bool,
}

/// What this program sends.
#[derive(Serialize, Default, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<Bytes>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<Bytes>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signo: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach_on_close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<String>>,
    /// A fourth descriptor takes the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<bool>,
}

/// What the daemon answers.
#[derive(Deserialize, Debug)]
pub struct Reply {
    pub r#type: String,
    pub code: Option<Code>,
    pub error: Option<String>,
    pub message: Option<String>,
    pub hint: Option<String>,
    /// Exit status of this program for an `error`.
    pub status: Option<u8>,
    pub container: Option<String>,
    pub containers: Option<Vec<Container>>,
    pub record: Option<Bytes>,
    /// How many were left out.
    pub records: Option<f64>,
    pub calls: Option<Vec<CallStats>>,
    pub waits: Option<Vec<Wait>>,
    // Of `policy`.
    pub network: Option<String>,
    pub egress: Option<Vec<String>>,
    pub ports: Option<Vec<String>>,
    pub connections: Option<f64>,
    pub bytes: Option<f64>,
    pub open: Option<f64>,
    pub refused: Option<Vec<Refusal>>,
}

/// What a container was refused, and how often.
#[derive(Deserialize, Debug)]
pub struct Refusal {
    pub program: String,
    pub rule: String,
    pub count: f64,
}

/// What one call has cost; msgpack has large numbers as floating point.
#[derive(Deserialize, Debug, Clone)]
pub struct CallStats {
    pub nr: u32,
    pub count: f64,
    pub failed: f64,
    pub ns: f64,
    pub longest: f64,
    pub below: Vec<f64>,
}

/// A thread, and what it waits on.
#[derive(Deserialize, Debug)]
pub struct Wait {
    pub container: String,
    pub pid: i32,
    pub tid: i32,
    pub program: String,
    pub state: String,
    /// −1: no call, or it is not known.
    pub nr: i64,
    pub args: Vec<u64>,
    pub on: String,
}

/// `code` is an exit code in `exit` and a name in `error`.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub enum Code {
    Number(u8),
    Name(#[allow(dead_code, reason = "shown in Debug only; the message says it in words")] String),
}

#[derive(Deserialize, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: String,
    pub pid: i32,
    pub tasks: u32,
    pub code: Option<u8>,
    #[serde(default)]
    pub ports: Vec<String>,
}
