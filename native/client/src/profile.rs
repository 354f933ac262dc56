//! `run --profile FILE`: the file that the guest's processes append to, and the report when they have ended.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use vkernel_abi::profile::IMAGE;

pub struct Profile {
    path: OsString,
    file: File,
}

impl Profile {
    /// Makes the file anew; its first record says what is run.
    pub fn create(path: &OsStr, image: &str) -> Result<Self, String> {
        let shown = path.to_string_lossy().into_owned();
        let options = || File::options().create(true).append(true).custom_flags(libc::O_CLOEXEC).open(path);
        let mut file = options().map_err(|e| format!("--profile {shown}: {e}"))?;
        let mut name = image.as_bytes().to_vec();
        name.resize(name.len().next_multiple_of(8), 0);
        let mut record = (IMAGE | (name.len() as u64 / 8) << 8).to_le_bytes().to_vec();
        record.extend(name);
        file.set_len(0).and_then(|()| file.write_all(&record)).map_err(|e| format!("--profile {shown}: {e}"))?;
        Ok(Self { path: path.into(), file })
    }

    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Writes FILE.svg, and what the profile comes to on stderr: stdout is the program's.
    pub fn report(self) -> Result<(), String> {
        drop(self.file);
        let mut svg = self.path.clone();
        svg.push(".svg");
        let mut c = crate::typescript();
        c.arg("analyze").arg("--profile").arg(&self.path).arg("--flame-graph").arg(svg);
        let status = c.stdout(std::io::stderr()).status().map_err(|e| crate::no_typescript(&e))?;
        if status.success() {
            return Ok(());
        }
        Err(format!("the profile is in {}, but cannot be reported", self.path.display()))
    }
}
