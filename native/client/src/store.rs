//! Images by name: the same rule as src/image/store.ts.

use std::path::{Path, PathBuf};

/// Where named images are: $VKERNEL_IMAGES; root's in /var/lib, anyone else's in the data directory.
fn directory() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("VKERNEL_IMAGES") {
        return dir;
    }
    // SAFETY: getuid cannot fail.
    if unsafe { libc::getuid() } == 0 {
        return "/var/lib/vkernel/images".into();
    }
    let data = set("XDG_DATA_HOME").unwrap_or_else(|| set("HOME").unwrap_or_default().join(".local/share"));
    data.join("vkernel/images")
}

/// A name of the store as a file's: `/` is `+` and the tag `latest` is left out. None: it is no name.
fn file_name(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let first = name.chars().next()?;
    if name.len() > 200
        || !name.chars().all(fits)
        || !(first.is_ascii_lowercase() || first.is_ascii_digit())
        || name.contains("..")
    {
        return None;
    }
    Some(name.strip_suffix(":latest").unwrap_or(name).replace('/', "+"))
}

fn resolve_in(store: &Path, image: &str) -> Result<PathBuf, String> {
    if Path::new(image).is_dir() {
        return std::path::absolute(image).map_err(|e| format!("{image}: {e}"));
    }
    let named = file_name(image).map(|f| store.join(f)).filter(|p| p.is_dir());
    named.ok_or_else(|| {
        format!(
            "there is no image {image}: no such directory, and no such name in {}; `recompiler images` lists the names",
            store.display()
        )
    })
}

/// The layout that an argument means: a directory that exists, otherwise a name in the store.
pub fn resolve(image: &str) -> Result<PathBuf, String> {
    resolve_in(&directory(), image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_directories() {
        let store = std::env::temp_dir().join(format!("vkernel-store-{}", std::process::id()));
        std::fs::create_dir_all(store.join("example.org+team+app:v2")).unwrap();
        std::fs::create_dir_all(store.join("debian")).unwrap();
        assert_eq!(resolve_in(&store, "debian:latest").unwrap(), store.join("debian"));
        assert_eq!(resolve_in(&store, "example.org/team/app:v2").unwrap(), store.join("example.org+team+app:v2"));
        assert_eq!(resolve_in(&store, "/").unwrap(), Path::new("/"));
        for wrong in ["", "Debian", "no-such-image", "a/../debian", ".debian", "/no/such/dir"] {
            assert!(resolve_in(&store, wrong).is_err(), "{wrong}");
        }
        std::fs::remove_dir_all(&store).unwrap();
    }
}
